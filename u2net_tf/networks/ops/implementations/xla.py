"""The XLA implementation: each elementwise formula is compiled into one pass.

TensorFlow takes one pass over memory for each elementwise operation; on a CPU, such
passes dominate a step. Only formulas are compiled, not entire networks: on a CPU, dense
convolutions and matrix products are several times as fast outside of XLA.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections.abc import Callable, Sequence

import tensorflow as tf

from u2net_tf.networks.ops.implementations import instance_norm as norm
from u2net_tf.networks.ops.implementations import plain
from u2net_tf.networks.ops.precision import accumulation_dtype
from u2net_tf.networks.ops.shapes import Factors, dims

# Minimum number of up-sampled elements (8 MB in float32) to fuse the up-sampling.
_MIN_ELEMENTS_TO_FUSE = 2**21
# Maximum number of depth slices that are summed while they are computed.
_MAX_SLICES = 4
# For each position within a repeated voxel: (offset, taps) of the voxels it reads.
_Phases = list[list[tuple[int, list[int]]]]


def xla_compiled(function: Callable[..., tf.Tensor]) -> Callable[..., tf.Tensor]:
    """Compiles a pure function of tensors by XLA.

    Arguments of the same shapes share one compilation, regardless of the network,
    domain or step that they come from.
    """
    # Without autograph, which slows tracing down: there is no control flow.
    return tf.function(function, jit_compile=True, autograph=False)


repeat = xla_compiled(plain.repeat)
sum_pool = xla_compiled(plain.sum_pool)


def _num_slices(inputs: tf.Tensor) -> int:
    """Returns the number of depth slices to sum together, a divisor of the depth."""
    depth = inputs.shape[1] or 1
    return max(n for n in range(1, _MAX_SLICES + 1) if depth % n == 0)


instance_norm = functools.partial(
    norm.instance_norm,
    norm.Passes(
        squared_deviations=xla_compiled(norm.squared_deviations),
        normalize=xla_compiled(norm.normalize),
        gradient_sums=xla_compiled(norm.gradient_sums),
        gradients=xla_compiled(norm.gradients),
        num_slices=_num_slices,
    ),
)


def depthwise_conv3d(
    inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, factors: Factors
) -> tf.Tensor:
    """Up-samples and convolves, in one pass if the up-sampled inputs are large."""
    if max(factors) > 1 and not _fuses_upsampling(inputs, factors):
        inputs, factors = repeat(inputs, factors), (1, 1, 1)
    if bias is None:
        # Zeros instead of None: the gradient then shares the compiled function.
        bias = tf.zeros(kernel.shape[-1:], kernel.dtype)
    return _convolve_shifted(inputs, kernel, bias, factors)


def depthwise_input_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """Computes the input gradient of `depthwise_conv3d`, fused where that is."""
    if max(factors) > 1 and _fuses_upsampling(inputs, factors):
        return _fused_input_gradient(upstream, kernel, factors)
    flipped = tf.reverse(kernel, axis=[0, 1, 2])
    gradient = depthwise_conv3d(upstream, flipped, None, (1, 1, 1))
    return sum_pool(gradient, factors) if max(factors) > 1 else gradient


def depthwise_kernel_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """Up-samples, and calls `plain.depthwise_kernel_gradient`."""
    if max(factors) > 1:
        inputs = repeat(inputs, factors)
    return plain.depthwise_kernel_gradient(inputs, upstream, kernel, (1, 1, 1))


def _fuses_upsampling(inputs: tf.Tensor, factors: Factors) -> bool:
    """Returns whether up-sampling is fused, which does not pay off for small inputs."""
    num_outputs = math.prod(factors) * (inputs.shape.num_elements() or math.inf)
    return num_outputs >= _MIN_ELEMENTS_TO_FUSE


def _phases(size: int, factor: int) -> _Phases:
    """Maps the taps of a kernel to input voxels, along an axis repeated `factor` times.

    Returns:
      For each of the `factor` copies of a voxel, a list of (offset, taps): these taps
      read the input voxel at this offset, counted before the repetition.
    """
    phases = []
    for position in range(factor):
        offsets: dict[int, list[int]] = {}
        for tap in range(size):
            offset = (position + tap - size // 2) // factor
            offsets.setdefault(offset, []).append(tap)
        phases.append(sorted(offsets.items()))
    return phases


def _reach(phases: _Phases) -> tuple[int, int]:
    """Returns how many voxels the taps reach before and after a voxel."""
    offsets = [offset for phase in phases for offset, _ in phase]
    return -min(offsets), max(offsets)


def _add(parts: Sequence[tf.Tensor]) -> tf.Tensor:
    """Returns the sum, without starting from zero."""
    first, *others = parts
    return sum(others, start=first)


def _sum_of_taps(kernel: tf.Tensor, taps: Sequence[int]) -> tf.Tensor:
    return _add([kernel[tap] for tap in taps])


@xla_compiled
def _convolve_shifted(
    inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """Convolves the repeated inputs by multiply-adds of shifted feature maps.

    Where an axis is repeated, several taps see one voxel: a 3×3×3 kernel on inputs
    repeated twice is equivalent to eight 2×2×2 kernels on the inputs themselves.
    """
    sum_dtype = accumulation_dtype(inputs.dtype)
    wide, kernel = tf.cast(inputs, sum_dtype), tf.cast(kernel, sum_dtype)
    _, depth, height, width, _ = dims(inputs)
    phases = [_phases(*pair) for pair in zip(kernel.shape[:3], factors, strict=True)]
    reach = [_reach(axis) for axis in phases]
    padded = tf.pad(wide, [[0, 0], *reach, [0, 0]])
    (first_d, _), (first_h, _), (first_w, _) = reach
    feature_maps = []
    for phase_d, phase_h, phase_w in itertools.product(*phases):
        planes = []
        for offset_d, taps_d in phase_d:
            kernel_d, rows = _sum_of_taps(kernel, taps_d), []
            for offset_h, taps_h in phase_h:
                kernel_h, top = _sum_of_taps(kernel_d, taps_h), first_h + offset_h
                for offset_w, taps_w in phase_w:
                    left = first_w + offset_w
                    part = padded[:, :, top : top + height, left : left + width]
                    rows.append(part * _sum_of_taps(kernel_h, taps_w))
            # Shifting each depth tap as one block makes XLA generate faster code.
            front = first_d + offset_d
            planes.append(_add(rows)[:, front : front + depth])
        feature_maps.append(_add(planes) + tf.cast(bias, sum_dtype))
    return tf.cast(_interleave(feature_maps, factors), inputs.dtype)


def _interleave(feature_maps: list[tf.Tensor], factors: Factors) -> tf.Tensor:
    """Interleaves the feature maps of all phases, the innermost axis first."""
    for axis in (3, 2, 1):
        factor = factors[axis - 1]
        if factor > 1:
            groups = [
                feature_maps[i : i + factor]
                for i in range(0, len(feature_maps), factor)
            ]
            shape = dims(feature_maps[0])
            shape[axis] = shape[axis] * factor
            feature_maps = [
                tf.reshape(tf.stack(group, axis=axis + 1), shape) for group in groups
            ]
    (interleaved,) = feature_maps
    return interleaved


@xla_compiled
def _fused_input_gradient(
    upstream: tf.Tensor, kernel: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """Computes the input gradient of `_convolve_shifted`, gathering per voxel."""
    sum_dtype = accumulation_dtype(upstream.dtype)
    kernel = tf.cast(kernel, sum_dtype)
    phases = [_phases(*pair) for pair in zip(kernel.shape[:3], factors, strict=True)]
    reach = [_reach(axis) for axis in phases]
    # The gradient of a voxel that was read at `offset` is found at `-offset`.
    paddings = [
        [after * factor, before * factor]
        for (before, after), factor in zip(reach, factors, strict=True)
    ]
    padded = tf.pad(tf.cast(upstream, sum_dtype), [[0, 0], *paddings, [0, 0]])
    factor_d, factor_h, factor_w = factors
    depth, height, width = (
        size // factor
        for size, factor in zip(dims(upstream)[1:4], factors, strict=True)
    )
    (_, last_d), (_, last_h), (_, last_w) = reach
    planes = []
    for index_d, phase_d in enumerate(phases[0]):
        for offset_d, taps_d in phase_d:
            kernel_d, rows = _sum_of_taps(kernel, taps_d), []
            for (index_h, phase_h), (index_w, phase_w) in itertools.product(
                enumerate(phases[1]), enumerate(phases[2])
            ):
                for offset_h, taps_h in phase_h:
                    kernel_h = _sum_of_taps(kernel_d, taps_h)
                    top = last_h - offset_h
                    for offset_w, taps_w in phase_w:
                        left = last_w - offset_w
                        part = padded[
                            :,
                            index_d::factor_d,
                            index_h::factor_h,
                            index_w::factor_w,
                        ][:, :, top : top + height, left : left + width]
                        rows.append(part * _sum_of_taps(kernel_h, taps_w))
            front = last_d - offset_d
            planes.append(_add(rows)[:, front : front + depth])
    return tf.cast(_add(planes), upstream.dtype)
