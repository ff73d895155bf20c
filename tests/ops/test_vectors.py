"""The committed vectors are what the oracle computes today, and the oracle agrees with transformers where the groups coincide."""

import pathlib
import sys

import numpy as np
import pytest

sys.path.insert(0, str(pathlib.Path(__file__).parent))
import selective_scan_oracle as oracle


def test_vectors_are_current(tmp_path, monkeypatch):
    committed = oracle.FOLDER
    monkeypatch.setattr(oracle, "FOLDER", tmp_path)
    oracle.main()
    names = sorted(path.name for path in committed.glob("*.txt"))
    assert names == sorted(path.name for path in tmp_path.glob("*.txt"))
    for name in names:
        for ours, theirs in zip((tmp_path / name).read_text().splitlines(), (committed / name).read_text().splitlines(), strict=True):
            ours, theirs = ours.split(), theirs.split()
            assert ours[0] == theirs[0]
            np.testing.assert_allclose([float(v) for v in ours[1:]], [float(v) for v in theirs[1:]], rtol=1e-12, atol=1e-14)


def test_oracle_is_mamba_with_one_group():
    """With d_inner = state there is one group, which is Mamba as transformers has it."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    from transformers.models.mamba.modeling_mamba import MambaMixer

    torch.manual_seed(0)
    config = transformers.MambaConfig(hidden_size=8, expand=2, state_size=16, time_step_rank=2, conv_kernel=4, num_hidden_layers=1)
    mixer = MambaMixer(config, layer_idx=0).double().requires_grad_(False)
    hidden = torch.randn(1, 9, 8, dtype=torch.double)
    with torch.no_grad():
        expected = mixer(hidden)[0].numpy()
        x, z = mixer.in_proj(hidden)[0].numpy().reshape(9, 2, 16).swapaxes(0, 1)
        weight, bias = mixer.conv1d.weight.squeeze(1).numpy(), mixer.conv1d.bias.numpy()
        x = oracle.conv([9], x, weight, bias, np.zeros((1, 16, 3)), repeat=1, group_size=1)
        steps, B, C = np.split(x @ mixer.x_proj.weight.numpy().T, [2, 18], axis=1)
        y, _ = oracle.scan([9], x, steps @ mixer.dt_proj.weight.numpy().T, mixer.dt_proj.bias.numpy(), mixer.A_log.numpy(), B, C,
                           mixer.D.numpy(), z, np.zeros((1, 16, 16)))
    np.testing.assert_allclose(y @ mixer.out_proj.weight.numpy().T, expected, rtol=1e-5, atol=1e-6)
