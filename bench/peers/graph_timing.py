"""Times on the GPU without the host's part, as molt's benchmarks take them (bench/support/cuda_graph.h)."""

import statistics

import torch


def milliseconds(prepare, calls, runs=15):
    """Of one call of what `prepare` returns: `calls` of them in a CUDA graph, median of `runs`."""
    stream, graph = torch.cuda.Stream(), torch.cuda.CUDAGraph()
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):  # where autograd then runs backward passes as well
        body = prepare()
        for _ in range(3):
            body()
        stream.synchronize()
        graph.capture_begin()
        for _ in range(calls):
            body()
        graph.capture_end()
    times = []
    for i in range(runs + 3):
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        graph.replay()
        end.record()
        end.synchronize()
        if i >= 3:
            times.append(begin.elapsed_time(end) / calls)
    return statistics.median(times)


def both_passes(make, calls):
    """Of `make() -> (inputs, forward)`: milliseconds of forward without gradients, and of forward with the gradients of all inputs."""

    def alone():
        _, forward = make()

        def body():
            with torch.no_grad():
                forward()

        return body

    def with_backward():
        inputs, forward = make()
        gradients = [torch.randn_like(y) for y in forward()]
        return lambda: torch.autograd.grad(forward(), inputs, gradients)

    return milliseconds(alone, calls), milliseconds(with_backward, calls)
