"""The committed vectors of the Mamba layer against the oracle that made them, and against transformers' MambaMixer."""
import json
from pathlib import Path

import numpy as np
import pytest

import mamba_oracle
from mamba_oracle import array

VECTORS = Path(__file__).with_name("mamba_vectors.json")
CASES = json.loads(VECTORS.read_text())


def test_vectors_are_the_oracle_s():
    for stored, fresh in zip(CASES, mamba_oracle.cases(), strict=True):
        for name in ("output", "conv", "state"):
            np.testing.assert_allclose(array(stored[name]), array(fresh[name]), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("case", CASES, ids=["repeated before", "repeated after"])
def test_transformers_computes_the_same_group_by_group(case):
    """MambaMixer has one B and C for all its channels: one group of ours is a MambaMixer of `state` channels. It projects B, C and
    dt from the convolved x, ours from the hidden states, so its x_proj is replaced by our projection; convolution, scan, skip, gate
    and output projection are its own. The groups' outputs add up."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.mamba.modeling_mamba import MambaMixer

    sizes = case["sizes"]
    d_inner, d_xb, state, rank = sizes["d_inner"], sizes["d_xb"], sizes["state_size"], sizes["dt_rank"]
    repeat = d_inner // d_xb
    w = {name: torch.tensor(array(value), dtype=torch.float32) for name, value in case["weights"].items()}
    z, x, B, C = w["in_proj.weight"].split([d_inner, d_xb, d_xb, d_inner])
    hidden = torch.tensor(array(case["hidden"]), dtype=torch.float32)
    expected = torch.tensor(array(case["output"]), dtype=torch.float32)
    config = transformers.MambaConfig(hidden_size=sizes["hidden_size"], state_size=state, conv_kernel=sizes["d_conv"], use_bias=False,
                                      intermediate_size=state, time_step_rank=rank, num_hidden_layers=1, vocab_size=1)
    config.intermediate_size = state

    class Projected(torch.nn.Module):
        def __init__(self, rows):
            super().__init__()
            self.rows = rows

        def forward(self, _):
            return self.tokens @ self.rows.T

    begin = 0
    for length in case["lengths"]:
        tokens = hidden[begin : begin + length][None]
        total = torch.zeros(1, length, sizes["hidden_size"], dtype=torch.float32)
        for group in range(d_inner // state):
            channels = slice(group * state, (group + 1) * state)
            sources = slice(group // repeat * state, (group // repeat + 1) * state)
            conv = channels if case["repeat_kv_before_conv"] else sources
            mixer = MambaMixer(config, layer_idx=0).eval()
            mixer.x_proj = Projected(torch.cat([w["dt_in_proj.weight"], B[sources], C[channels]]))
            mixer.x_proj.tokens = tokens
            with torch.no_grad():
                mixer.in_proj.weight.copy_(torch.cat([x[sources], z[channels]]))
                mixer.conv1d.weight.copy_(w["conv1d.weight"][conv])
                mixer.conv1d.bias.copy_(w["conv1d.bias"][conv])
                mixer.dt_proj.weight.copy_(w["dt_proj.weight"][channels])
                mixer.dt_proj.bias.copy_(w["dt_proj.bias"][channels])
                mixer.A_log.copy_(w["A_log"][channels])
                mixer.D.copy_(w["D"][channels])
                mixer.out_proj.weight.copy_(w["out_proj.weight"][:, channels])
                total += mixer(tokens)
        torch.testing.assert_close(total[0], expected[begin : begin + length], rtol=1e-5, atol=1e-5)
        begin += length
