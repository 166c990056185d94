"""Compares the depthwise 3×3×3 convolution with PyTorch's grouped `conv3d`.

    python -m tools.bench.depthwise --output=depthwise.json

Measures the forward pass, alone and with the gradients of input and kernel, for each of
our implementations and both layouts of PyTorch. Results are reported only if all agree.
Peak memory includes the library: about 0.6 GB for TensorFlow, 0.25 GB for PyTorch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner
from tools.bench.measuring import Contender, Task, check_agreement, measure
from tools.bench.setting import memory_format, to_torch
from u2net_tf import command, machine

SHAPES = ("2,64,64,64,16", "2,32,32,32,64", "2,8,8,8,256", "1,33,47,29,16")
PASSES = ("forward", "forward + backward")
# For sums over half a million voxels in float32, in different orders.
TOLERANCE = 1e-4
# Approximate number of values in a timed run; small arrays are convolved repeatedly.
VALUES_PER_RUN = 2 * 64**3 * 16
MAX_REPEATS = 32
COLUMNS = (
    reporting.Column("shape", "N,D,H,W,C"),
    reporting.Column("what", "pass"),
    reporting.CONTENDER,
    *reporting.TIMES_MS,
    *reporting.MEMORY,
)


def _convolve(implementation, inputs, kernel):
    from u2net_tf.networks import ops

    return ops.depthwise_conv3d(inputs, kernel, implementation=implementation)


# Our implementations by name: (N, D, H, W, C), (3, 3, 3, C) -> (N, D, H, W, C). The
# first is the default of the network and the reference of the ratios.
IMPLEMENTATIONS: Mapping[str, Callable] = {
    "ours": functools.partial(_convolve, None),
    "ours, plain": functools.partial(_convolve, "plain"),
}


def draw_arrays(shape: Sequence[int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draws inputs (N, D, H, W, C), kernel (3, 3, 3, C) and upstream gradient."""
    generator = np.random.default_rng(0)
    sizes = (shape, (3, 3, 3, shape[-1]), shape)
    return tuple(generator.normal(size=size).astype(np.float32) for size in sizes)


def num_repeats(shape: Sequence[int]) -> int:
    """Returns how many times an array of this shape is convolved in a timed run."""
    return min(MAX_REPEATS, max(1, round(VALUES_PER_RUN / math.prod(shape))))


def make_ours(implementation: str, shape: Sequence[int], backward: bool) -> Task:
    """Returns the task of one of `IMPLEMENTATIONS`, compiled by `tf.function`."""
    return make_convolution(
        IMPLEMENTATIONS[implementation], draw_arrays(shape), backward
    )


def make_convolution(
    convolve: Callable, arrays: Sequence[np.ndarray], backward: bool
) -> Task:
    """Returns the task of one of our implementations, compiled by `tf.function`.

    Args:
        convolve: inputs (N, D, H, W, C), kernel (3, 3, 3, C) -> outputs.
        arrays: inputs, kernel and the upstream gradient, which has the shape of the
            outputs.
        backward: whether to compute the gradients of inputs and kernel.
    """
    machine.import_tensorflow()
    import tensorflow as tf

    inputs, kernel, upstream = map(tf.constant, arrays)

    @tf.function
    def forward(inputs, kernel, upstream):
        return [convolve(inputs, kernel)]

    @tf.function
    def forward_and_backward(inputs, kernel, upstream):
        with tf.GradientTape() as tape:
            tape.watch([inputs, kernel])
            outputs = convolve(inputs, kernel)
        return [outputs, *tape.gradient(outputs, [inputs, kernel], upstream)]

    function = forward_and_backward if backward else forward

    def results(tensors):
        return _named([tensor.numpy() for tensor in tensors])

    return Task(
        lambda: function(inputs, kernel, upstream),
        results,
        repeats=num_repeats(upstream.shape),
    )


def make_torch(layout: str, shape: Sequence[int], backward: bool) -> Task:
    """Returns the task of PyTorch in one of its layouts."""
    import torch
    from torch.nn import functional

    inputs, kernel, upstream = draw_arrays(shape)
    inputs, upstream = to_torch(inputs, layout), to_torch(upstream, layout)
    kernel = torch.from_numpy(np.moveaxis(kernel, -1, 0)[:, np.newaxis])
    kernel = kernel.contiguous(memory_format=memory_format(layout))

    def forward():
        with torch.inference_mode():
            return [functional.conv3d(inputs, kernel, padding=1, groups=shape[-1])]

    def forward_and_backward():
        outputs = functional.conv3d(inputs, kernel, padding=1, groups=shape[-1])
        return [outputs, *torch.autograd.grad(outputs, [inputs, kernel], upstream)]

    if backward:
        inputs.requires_grad_()
        kernel.requires_grad_()

    def results(tensors):
        arrays = [tensor.detach().numpy() for tensor in tensors]
        arrays[:2] = [np.moveaxis(array, 1, -1) for array in arrays[:2]]
        if backward:
            arrays[2] = np.moveaxis(arrays[2][:, 0], 0, -1)
        return _named(arrays)

    function = forward_and_backward if backward else forward
    return Task(function, results, repeats=num_repeats(shape))


def _named(arrays):
    names = ("outputs", "gradient of inputs", "gradient of kernel")
    return dict(zip(names, arrays, strict=False))


def benchmark(
    shapes: Sequence[Sequence[int]], layouts: Sequence[str], *, runs: int, threads: int
) -> reporting.Report:
    """Measures every shape, with and without gradients."""
    rows, largest = [], 0.0
    for shape in shapes:
        for what in PASSES:
            options = {"shape": tuple(shape), "backward": what != "forward"}
            contenders = [
                *(
                    Contender(name, make_ours, {"implementation": name, **options})
                    for name in IMPLEMENTATIONS
                ),
                *bench_flags.torch_contenders(make_torch, layouts, **options),
            ]
            measured = measure(contenders, runs=runs, warm_ups=3, threads=threads)
            largest = max(largest, check_agreement(measured, TOLERANCE))
            text = ",".join(map(str, shape))
            rows += reporting.rows_of(measured, shape=text, what=what)
    note = f"Results agree: they differ by at most {largest:.1e} of the largest value."
    return reporting.Report("depthwise", COLUMNS, rows, [note])


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(runs=15)
    flags.DEFINE_multi_string("shape", SHAPES, "Shape N,D,H,W,C; may be repeated.")


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    return benchmark(
        shapes_of("shape"),
        bench_flags.torch_layouts(),
        runs=flags.FLAGS.runs,
        threads=bench_flags.num_threads(),
    )


def shapes_of(name: str) -> list[tuple[int, ...]]:
    """Returns the shapes N,D,H,W,C in the flag `name`.

    Raises:
        InputError: if one of them is not such a shape.
    """
    return [_shape(name, text) for text in flags.FLAGS[name].value]


def _shape(name, text):
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        sizes = ()
    if len(sizes) != 5 or min(sizes) < 1:
        raise command.InputError(
            f"`{name}`",
            expected="five integers N,D,H,W,C of at least 1",
            received=text,
        )
    return sizes


if __name__ == "__main__":
    runner.run(define_flags, report)
