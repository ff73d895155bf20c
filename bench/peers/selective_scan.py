"""The plain torch loop of the selective scan, timed in turns with `molt_ops_bench` on the same machine.

    python bench/peers/selective_scan.py build/release/molt_ops_bench [--rounds 5] [--threads 2]

Inner 512, state 16, one sequence of 1024 tokens, float32, gradients for all eight inputs. The loop steps over unbound tensors and
applies C once at the end, which makes its backward pass linear in the length (stepping by index is quadratic).
"""

import argparse
import json
import os
import statistics
import subprocess
import time

import torch
import torch.nn.functional as F

TOKENS, INNER, STATE = 1024, 512, 16


def inputs():
    torch.manual_seed(1)
    x, dt, B, C, z = (torch.randn(1, TOKENS, width) for width in (INNER, INNER, STATE, STATE, INNER))
    A_log = torch.arange(1, STATE + 1).float().log().repeat(INNER, 1)
    return [x, dt - 3, torch.randn(INNER), A_log, B, C, torch.ones(INNER), z]


def scan(x, dt, dt_bias, A_log, B, C, D, z):
    dt = F.softplus(dt + dt_bias)
    decays = torch.exp(dt.unsqueeze(-1) * -torch.exp(A_log)).unbind(1)
    steps = ((dt * x).unsqueeze(-1) * B.unsqueeze(2)).unbind(1)
    h, states = torch.zeros(x.shape[0], INNER, STATE), []
    for decay, step in zip(decays, steps):
        h = decay * h + step
        states.append(h)
    y = (torch.stack(states, 1) * C.unsqueeze(2)).sum(-1) + D * x
    return y * F.silu(z)


def time_loop(backward):
    tensors = inputs()
    gradient = torch.randn(1, TOKENS, INNER)
    start = time.perf_counter()
    if backward:
        scan(*(t.requires_grad_() for t in tensors)).backward(gradient)
    else:
        with torch.no_grad():
            scan(*tensors)
    return 1e3 * (time.perf_counter() - start)


def time_molt(program, name):
    out = subprocess.run(
        [program, f"--benchmark_filter=^scan_{name}/1/1024/512/512/16/", "--benchmark_format=json", "--benchmark_min_time=0.2"],
        capture_output=True, text=True, check=True)
    return json.loads(out.stdout)["benchmarks"][0]["real_time"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    os.environ["OMP_NUM_THREADS"] = str(args.threads)
    for backward, name in ((False, "forward"), (True, "forward_backward")):
        time_loop(backward)
        rounds = [(time_loop(backward), time_molt(args.program, name)) for _ in range(args.rounds)]
        loop, molt = (statistics.median(times) for times in zip(*rounds))
        ratios = [a / b for a, b in rounds]
        print(f"{name}: torch loop {loop:.1f} ms, molt {molt:.2f} ms, median ratio {statistics.median(ratios):.0f}x "
              f"({min(ratios):.0f} to {max(ratios):.0f}), {args.threads} threads, {args.rounds} rounds")


if __name__ == "__main__":
    main()
