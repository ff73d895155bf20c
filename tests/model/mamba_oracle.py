"""The whole Mamba layer as loops over sequences, tokens and channels, written from the formula. Prints the vectors that the
tests keep: python tests/model/mamba_oracle.py > tests/model/mamba_vectors.json"""
import json

import numpy as np


def sigmoid(v):
    return 1 / (1 + np.exp(-v))


def mamba(w, hidden, lengths, state, repeat_before):
    """w: weights by name (published shapes, dt's bias once); hidden: (tokens, hidden). Output, last conv windows, last states."""
    d_inner, d_xb = w["D"].shape[0], (w["in_proj.weight"].shape[0] - 2 * w["D"].shape[0]) // 2
    repeat, width = d_inner // d_xb, w["conv1d.weight"].shape[2]
    outputs, windows, states = [], [], []
    begin = 0
    for length in lengths:
        past = np.zeros((width - 1, d_xb))
        h = np.zeros((d_inner, state))
        for t in range(begin, begin + length):
            projected = w["in_proj.weight"] @ hidden[t]
            z, x, B, C = np.split(projected, [d_inner, d_inner + d_xb, d_inner + 2 * d_xb])
            dt = w["dt_proj.weight"] @ (w["dt_in_proj.weight"] @ hidden[t]) + w["dt_proj.bias"]
            dt = np.log1p(np.exp(dt))
            rows = np.vstack([past, x])
            y = np.zeros(d_inner)
            for c in range(d_inner):
                group, inside = divmod(c, state)
                source = group // repeat * state + inside
                channel = c if repeat_before else source
                taps = w["conv1d.weight"][channel, 0]
                u = sum(taps[k] * rows[k, source] for k in range(width)) + w["conv1d.bias"][channel]
                u = u * sigmoid(u)
                for n in range(state):
                    decay = np.exp(-np.exp(w["A_log"][c, n]) * dt[c])
                    h[c, n] = decay * h[c, n] + dt[c] * B[group // repeat * state + n] * u
                    y[c] += C[group * state + n] * h[c, n]
                y[c] = (y[c] + w["D"][c] * u) * z[c] * sigmoid(z[c])
            outputs.append(w["out_proj.weight"] @ y)
            past = rows[1:]
        windows.append(past.T)
        states.append(h)
        begin += length
    return np.array(outputs), np.array(windows), np.array(states)


def cases():
    for seed, repeat_before, width in ((1, True, 4), (2, False, 3)):
        rng = np.random.default_rng(seed)
        size, d_inner, d_xb, state, rank, lengths = 10, 16, 8, 4, 3, [6, 1, 9]
        channels = d_inner if repeat_before else d_xb
        shapes = {
            "in_proj.weight": (2 * d_inner + 2 * d_xb, size),
            "dt_in_proj.weight": (rank, size),
            "dt_proj.weight": (d_inner, rank),
            "dt_proj.bias": (d_inner,),
            "conv1d.weight": (channels, 1, width),
            "conv1d.bias": (channels,),
            "A_log": (d_inner, state),
            "D": (d_inner,),
            "out_proj.weight": (size, d_inner),
        }
        w = {name: np.round(rng.normal(size=shape) * 0.5, 3) for name, shape in shapes.items()}
        hidden = np.round(rng.normal(size=(sum(lengths), size)), 3)
        output, windows, states = mamba(w, hidden, lengths, state, repeat_before)
        sizes = dict(hidden_size=size, d_inner=d_inner, d_xb=d_xb, state_size=state, dt_rank=rank, d_conv=width)
        yield dict(repeat_kv_before_conv=repeat_before, sizes=sizes, lengths=lengths,
                   weights={k: tensor(v) for k, v in w.items()}, hidden=tensor(hidden), output=tensor(output),
                   conv=tensor(windows), state=tensor(states))


def tensor(values):
    return {"shape": list(values.shape), "values": [float(f"{v:.7g}") for v in values.flatten()]}


def array(stored):
    return np.array(stored["values"]).reshape(stored["shape"])


def text():
    return "[\n" + ",\n".join(json.dumps(case) for case in cases()) + "\n]\n"


if __name__ == "__main__":
    print(text(), end="")
