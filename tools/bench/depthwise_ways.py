"""Compares our depthwise convolution with alternative implementations.

    python -m tools.bench.depthwise_ways --output=depthwise_ways.json

Our implementations were chosen by this benchmark, which can be repeated on other
devices. It measures the kernel gradient and the convolution after up-sampling by 2.
Results are reported only if all agree. For small feature maps, ours materializes the
up-sampled map, so that both alternatives are the same.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence

from absl import flags

from tools.bench import depthwise, reporting, runner
from tools.bench import flags as bench_flags
from tools.bench.measuring import Contender, Task, check_agreement, measure
from u2net_tf import machine

UP_SAMPLED_SHAPES = ("2,32,32,32,32", "2,8,8,8,128")
FACTORS = (2, 2, 2)


def _ours(inputs, kernel, upstream):
    from u2net_tf.networks.ops.implementations import plain

    return plain.depthwise_kernel_gradient(inputs, upstream, kernel, (1, 1, 1))


def _padded_rows(inputs, kernel, upstream):
    """Computes our variant for large batches, selected by hiding the batch size."""
    import tensorflow as tf

    maps = tf.TensorSpec([None, *inputs.shape[1:]], inputs.dtype)
    spec = (maps, tf.TensorSpec(kernel.shape, kernel.dtype), maps)
    return tf.function(_ours, input_signature=spec)(inputs, kernel, upstream)


def _three_times_the_channels(inputs, kernel, upstream):
    """Computes one 2D filter gradient, with the depth taps as additional channels."""
    import tensorflow as tf

    num, depth, height, width, channels = inputs.shape
    size_d, size_h, size_w, _ = kernel.shape
    rows, wide = (num * depth, height, width), size_d * channels
    radius = size_d // 2
    padded = tf.pad(inputs, [[0, 0], [radius, radius], [0, 0], [0, 0], [0, 0]])
    shifted = tf.concat([padded[:, tap : tap + depth] for tap in range(size_d)], -1)
    gradient = tf.nn.depthwise_conv2d_backprop_filter(
        tf.reshape(shifted, [*rows, wide]),
        [size_h, size_w, wide, 1],
        tf.reshape(tf.concat([upstream] * size_d, -1), [*rows, wide]),
        strides=[1, 1, 1, 1],
        padding="SAME",
    )
    gradient = tf.reshape(gradient, [size_h, size_w, size_d, channels])
    return tf.transpose(gradient, [2, 0, 1, 3])


def _sums_by_xla(inputs, kernel, upstream):
    """Sums the upstream gradient times the shifted inputs over all voxels, per tap."""
    import tensorflow as tf

    _, depth, height, width, _ = inputs.shape
    sizes = kernel.shape[:3]

    @tf.function(jit_compile=True, autograph=False)
    def sums(inputs, upstream):
        padded = tf.pad(inputs, [[0, 0], *([n // 2, n // 2] for n in sizes), [0, 0]])
        return [
            tf.reduce_sum(
                padded[:, d : d + depth, h : h + height, w : w + width] * upstream,
                axis=[0, 1, 2, 3],
            )
            for d, h, w in itertools.product(*map(range, sizes))
        ]

    return tf.reshape(tf.stack(sums(inputs, upstream)), kernel.shape)


def _convolve(inputs, kernel):
    from u2net_tf.networks import ops

    return ops.depthwise_conv3d(inputs, kernel, upsample=FACTORS)


def _convolve_map(inputs, kernel):
    from u2net_tf.networks import ops

    return ops.depthwise_conv3d(ops.upsample_nearest(inputs, FACTORS), kernel)


# Implementations of the kernel gradient by name: inputs (N, D, H, W, C), kernel
# (3, 3, 3, C), upstream gradient (N, D, H, W, C) -> (3, 3, 3, C).
GRADIENT_IMPLEMENTATIONS: Mapping[str, Callable] = {
    "ours": _ours,
    "padded rows": _padded_rows,
    "three times the channels": _three_times_the_channels,
    "sums compiled by XLA": _sums_by_xla,
}
# Implementations of the convolution after up-sampling by name: (N, D, H, W, C),
# (3, 3, 3, C) -> (N, 2 D, 2 H, 2 W, C).
UP_SAMPLED_IMPLEMENTATIONS: Mapping[str, Callable] = {
    "ours": _convolve,
    "materialized map": _convolve_map,
}


def make_kernel_gradient(implementation: str, shape: Sequence[int]) -> Task:
    """Returns the task of one of `GRADIENT_IMPLEMENTATIONS` for this shape."""
    machine.import_tensorflow()
    import tensorflow as tf

    arrays = [tf.constant(array) for array in depthwise.draw_arrays(shape)]
    function = tf.function(GRADIENT_IMPLEMENTATIONS[implementation])
    return Task(
        lambda: function(*arrays),
        lambda gradient: {"gradient of kernel": gradient.numpy()},
        repeats=depthwise.num_repeats(shape),
    )


def make_up_sampled(implementation: str, shape: Sequence[int], backward: bool) -> Task:
    """Returns the task of one of `UP_SAMPLED_IMPLEMENTATIONS` for this shape."""
    num, *sizes, channels = shape
    large = (num, *map(math.prod, zip(sizes, FACTORS, strict=True)), channels)
    inputs, kernel, _ = depthwise.draw_arrays(shape)
    *_, upstream = depthwise.draw_arrays(large)
    return depthwise.make_convolution(
        UP_SAMPLED_IMPLEMENTATIONS[implementation], (inputs, kernel, upstream), backward
    )


def benchmark(
    shapes: Sequence[Sequence[int]],
    up_sampled_shapes: Sequence[Sequence[int]],
    *,
    runs: int,
    threads: int,
) -> reporting.Report:
    """Measures the kernel gradient and the convolution of an up-sampled map.

    Args:
        shapes: shapes (N, D, H, W, C) of the inputs for the kernel gradient.
        up_sampled_shapes: shapes (N, D, H, W, C) of the inputs before up-sampling.
        runs: timed runs of each implementation.
        threads: threads of each implementation.
    """
    parts = [
        (
            "kernel gradient",
            GRADIENT_IMPLEMENTATIONS,
            make_kernel_gradient,
            {"shape": tuple(shape)},
        )
        for shape in shapes
    ]
    parts += [
        (
            f"{what}, up-sampled",
            UP_SAMPLED_IMPLEMENTATIONS,
            make_up_sampled,
            {"shape": tuple(shape), "backward": what != "forward"},
        )
        for shape in up_sampled_shapes
        for what in depthwise.PASSES
    ]
    rows, largest = [], 0.0
    for what, implementations, make, options in parts:
        contenders = [
            Contender(
                implementation, make, {"implementation": implementation, **options}
            )
            for implementation in implementations
        ]
        measured = measure(contenders, runs=runs, warm_ups=3, threads=threads)
        largest = max(largest, check_agreement(measured, depthwise.TOLERANCE))
        text = ",".join(map(str, options["shape"]))
        rows += reporting.rows_of(measured, shape=text, what=what)
    note = f"Results agree: they differ by at most {largest:.1e} of the largest value."
    return reporting.Report("depthwise_ways", depthwise.COLUMNS, rows, [note])


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(torch=False, runs=15)
    flags.DEFINE_multi_string(
        "shape",
        depthwise.SHAPES,
        "Shape N,D,H,W,C for the kernel gradient; may be repeated.",
    )
    flags.DEFINE_multi_string(
        "up_sampled_shape",
        UP_SAMPLED_SHAPES,
        "Shape N,D,H,W,C before up-sampling; may be repeated.",
    )


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    return benchmark(
        depthwise.shapes_of("shape"),
        depthwise.shapes_of("up_sampled_shape"),
        runs=flags.FLAGS.runs,
        threads=bench_flags.num_threads(),
    )


if __name__ == "__main__":
    runner.run(define_flags, report)
