"""An independent selective scan and causal convolution: loops over tokens, channels and states, written from the formulas.

    python tests/ops/selective_scan_oracle.py        writes tests/ops/vectors/*.txt, which the C++ tests read

One array a line: its name, its shape, and its values in double precision.
"""

import pathlib

import numpy as np

FOLDER = pathlib.Path(__file__).parent / "vectors"


def silu(value):
    return value / (1 + np.exp(-value))


def scan(lengths, x, dt, dt_bias, A_log, B, C, D, z, initial_state):
    tokens, d_inner = dt.shape
    state = A_log.shape[1]
    repeat = d_inner // B.shape[1]
    y = np.zeros((tokens, d_inner))
    final_state = np.zeros((len(lengths), d_inner, state))
    t = 0
    for sequence, length in enumerate(lengths):
        h = initial_state[sequence].copy()
        for _ in range(length):
            for c in range(d_inner):
                group = c // state
                shared = group // repeat  # the group of B, and of x unless x is repeated already
                column = c if x.shape[1] == d_inner else shared * state + c % state
                step = np.log(1 + np.exp(dt[t, c] + dt_bias[c]))
                total = D[c] * x[t, column]
                for n in range(state):
                    decay = np.exp(-np.exp(A_log[c, n]) * step)
                    h[c, n] = decay * h[c, n] + step * B[t, shared * state + n] * x[t, column]
                    total += C[t, group * state + n] * h[c, n]
                y[t, c] = total * silu(z[t, c])
            t += 1
        final_state[sequence] = h
    return y, final_state


def conv(lengths, x, weight, bias, initial_window, repeat, group_size):
    tokens, columns = x.shape
    channels, width = weight.shape
    y = np.zeros((tokens, channels))
    start = 0
    for sequence, length in enumerate(lengths):
        for t in range(length):
            for c in range(channels):
                group = c // group_size // repeat
                column = group * group_size + c % group_size
                total = bias[c]
                for k in range(width):
                    source = t - (width - 1) + k
                    before = source < 0
                    value = initial_window[sequence, column, source + width - 1] if before else x[start + source, column]
                    total += weight[c, k] * value
                y[start + t, c] = silu(total)
        start += length
    return y


def write(name, arrays):
    lines = []
    for key, value in arrays.items():
        value = np.asarray(value, dtype=np.float64)
        shape = " ".join(str(size) for size in value.shape)
        lines.append(f"{key} {value.ndim} {shape} " + " ".join(repr(float(v)) for v in value.ravel()))
    (FOLDER / f"{name}.txt").write_text("\n".join(lines) + "\n")


def draw(random, *shape):
    """Normal numbers that float32 holds exactly."""
    return random.standard_normal(shape).astype(np.float32).astype(np.float64)


def scan_case(seed, lengths, d_inner, d_xb, state, x_columns):
    random, tokens = np.random.default_rng(seed), sum(lengths)
    arrays = {
        "lengths": lengths,
        "x": draw(random, tokens, x_columns),
        "dt": draw(random, tokens, d_inner),
        "dt_bias": draw(random, d_inner),
        "A_log": draw(random, d_inner, state),
        "B": draw(random, tokens, d_xb),
        "C": draw(random, tokens, d_inner),
        "D": draw(random, d_inner),
        "z": draw(random, tokens, d_inner),
        "initial_state": draw(random, len(lengths), d_inner, state),
    }
    y, final_state = scan(**arrays)
    return arrays | {"y": y, "final_state": final_state}


def conv_case(seed, lengths, columns, width, repeat, group_size):
    random = np.random.default_rng(seed)
    arrays = {
        "lengths": lengths,
        "x": draw(random, sum(lengths), columns),
        "weight": draw(random, columns * repeat, width),
        "bias": draw(random, columns * repeat),
        "initial_window": draw(random, len(lengths), columns, width - 1),
    }
    y = conv(**arrays, repeat=repeat, group_size=group_size)
    return arrays | {"repeat": repeat, "group_size": group_size, "y": y}


def main():
    FOLDER.mkdir(exist_ok=True)
    write("scan_grouped", scan_case(1, [3, 0, 4], d_inner=16, d_xb=4, state=2, x_columns=4))
    write("scan_x_repeated", scan_case(2, [5], d_inner=12, d_xb=6, state=3, x_columns=12))
    write("scan_one_group", scan_case(3, [4, 1], d_inner=16, d_xb=16, state=16, x_columns=16))
    write("conv_plain", conv_case(4, [1, 6], columns=5, width=4, repeat=1, group_size=1))
    write("conv_repeated", conv_case(5, [4, 2], columns=4, width=3, repeat=3, group_size=2))


if __name__ == "__main__":
    main()
