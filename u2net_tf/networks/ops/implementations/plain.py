"""The plain implementation: TensorFlow operations only.

The depthwise convolution is a sum of 2D depthwise convolutions, one per depth tap.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

import tensorflow as tf

from u2net_tf.networks.ops.implementations import instance_norm as norm
from u2net_tf.networks.ops.precision import accumulation_dtype
from u2net_tf.networks.ops.shapes import Factors, dims, product

# Up to this batch size, the kernel gradient is computed sample by sample.
_MAX_SAMPLES_UNSTACKED = 4

instance_norm = functools.partial(
    norm.instance_norm,
    norm.Passes(
        squared_deviations=norm.squared_deviations,
        normalize=norm.normalize,
        gradient_sums=norm.gradient_sums,
        gradients=norm.gradients,
        num_slices=lambda inputs: 1,
    ),
)


def wait_for(upstream: tf.Tensor, tensors: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Returns copies of the tensors that are made after `upstream` is computed."""
    with tf.control_dependencies([upstream]):
        return [tf.identity(tensor) for tensor in tensors]


def conv3d(
    groups: Sequence[tf.Tensor], kernel: tf.Tensor, strides: Sequence[int]
) -> tf.Tensor:
    """Convolves channel groups as if concatenated."""
    if is_pointwise(kernel, strides):
        return sum_of_products(groups, kernel, multiply=_pointwise)
    inputs = tf.concat(groups, axis=-1) if len(groups) > 1 else groups[0]
    # TensorFlow 2.21 on a CPU with AVX512_BF16 reads uninitialized memory in the
    # bfloat16 gradient of such a kernel over inputs of depth 2.
    faulty = kernel.shape[0] > 1 and inputs.shape[1] in (2, None)
    faulty = inputs.dtype == tf.bfloat16 and faulty
    if faulty or sums_in_float16(inputs.dtype):
        wide = [tf.cast(tensor, tf.float32) for tensor in (inputs, kernel)]
        return tf.cast(conv3d(wide[:1], wide[1], strides), inputs.dtype)
    return tf.nn.conv3d(inputs, kernel, strides=[1, *strides, 1], padding="SAME")


def is_pointwise(kernel: tf.Tensor, strides: Sequence[int]) -> bool:
    """Returns whether outputs depend on a single voxel and are computed for each."""
    return tuple(kernel.shape[:3]) == tuple(strides) == (1, 1, 1)


def sum_of_products(
    groups: Sequence[tf.Tensor],
    kernel: tf.Tensor,
    *,
    multiply: Callable[[tf.Tensor, tf.Tensor], tf.Tensor],
) -> tf.Tensor:
    """Convolves channel groups with a pointwise kernel, without concatenating them.

    Args:
      groups: channel groups (N, D, H, W, C).
      kernel: (1, 1, 1, C, F), C the channels of all groups.
      multiply: channel group, matrix (C, F) -> outputs (N, D, H, W, F).
    """
    matrices = tf.split(kernel[0, 0, 0], [group.shape[-1] for group in groups])
    return functools.reduce(tf.add, map(multiply, groups, matrices))


def _pointwise(inputs: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Convolves by a matrix product, which is faster, including its gradients."""
    *outer, channels = dims(inputs)
    outputs = tf.matmul(tf.reshape(inputs, [-1, channels]), matrix)
    return tf.reshape(outputs, [*outer, matrix.shape[-1]])


def repeat(inputs: tf.Tensor, factors: Factors) -> tf.Tensor:
    """Repeats every voxel, one axis at a time, by broadcasting three dimensions.

    `tf.broadcast_to` supports only few dimensions on the CPU. The innermost axis comes
    first, so that the later, larger copies move longer contiguous runs.
    """
    for axis in (3, 2, 1):
        factor = factors[axis - 1]
        if factor > 1:
            shape = dims(inputs)
            outer, inner = product(shape[: axis + 1]), product(shape[axis + 1 :])
            rows = tf.reshape(inputs, [outer, 1, inner])
            shape[axis] = shape[axis] * factor
            inputs = tf.reshape(tf.broadcast_to(rows, [outer, factor, inner]), shape)
    return inputs


def sum_pool(upstream: tf.Tensor, factors: Factors) -> tf.Tensor:
    """Sums blocks of `factors` voxels along D, H, W, in at least float32."""
    wide = tf.cast(upstream, accumulation_dtype(upstream.dtype))
    fd, fh, fw = factors
    total = None
    for d, h, w in ((d, h, w) for d in range(fd) for h in range(fh) for w in range(fw)):
        part = wide[:, d::fd, h::fh, w::fw]
        total = part if total is None else total + part
    return tf.cast(total, upstream.dtype)


def max_pool(inputs: tf.Tensor, factors: Factors) -> tf.Tensor:
    """Max-pools blocks of voxels, one axis at a time.

    TensorFlow's own pooling does not support float64 on the CPU, and a reduction over
    three of eight axes copies its input.
    """
    outputs = inputs
    for axis, factor in enumerate(factors, start=1):
        if factor > 1:
            shape = dims(outputs)
            shape[axis] = shape[axis] // factor
            rows = tf.reshape(outputs, [-1, factor, product(shape[axis + 1 :])])
            maxima = functools.reduce(tf.maximum, tf.unstack(rows, axis=1))
            outputs = tf.reshape(maxima, shape)
    return outputs


def depthwise_conv3d(
    inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, factors: Factors
) -> tf.Tensor:
    """Up-samples and convolves, by one 2D depthwise convolution per depth tap."""
    if max(factors) > 1:
        inputs = repeat(inputs, factors)
    num, depth, height, width, channels = shape = dims(inputs)
    radius = kernel.shape[0] // 2
    rows = _fold_depth(inputs, radius)
    num_outputs = num * (depth + 2 * radius) - 2 * radius
    outputs = tf.add_n(
        [
            tf.raw_ops.DepthwiseConv2dNative(
                input=_slice_rows(rows, tap, num_outputs),
                filter=kernel_2d,
                strides=[1, 1, 1, 1],
                padding="SAME",
            )
            for tap, kernel_2d in enumerate(tf.unstack(kernel[..., tf.newaxis]))
        ]
    )
    if not isinstance(num, int) or num > 1:
        # Drops the 2 * radius rows between two samples, which mix both.
        outputs = tf.pad(outputs, [[0, 2 * radius], [0, 0], [0, 0], [0, 0]])
        outputs = tf.reshape(
            outputs, [num, depth + 2 * radius, height, width, channels]
        )[:, :depth]
    outputs = tf.reshape(outputs, shape)
    return outputs if bias is None else tf.nn.bias_add(outputs, bias)


def _fold_depth(tensor: tf.Tensor, radius: int) -> tf.Tensor:
    """Pads the depth with `radius` zeros and folds it into the batch.

    A depth tap is then a slice of the leading axis, which TensorFlow takes without
    copying, and the zeros between two samples separate them.
    """
    padded = tf.pad(tensor, [[0, 0], [radius, radius], [0, 0], [0, 0], [0, 0]])
    num, depth, height, width, channels = dims(padded)
    return tf.reshape(padded, [num * depth, height, width, channels])


def _slice_rows(rows: tf.Tensor, start: int, num_rows: int | tf.Tensor) -> tf.Tensor:
    return tf.slice(rows, [start, 0, 0, 0], [num_rows, -1, -1, -1])


def depthwise_input_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """Convolves the gradient with the flipped kernel and sums over repeated voxels."""
    del inputs  # the gradient does not depend on them
    flipped = tf.reverse(kernel, axis=[0, 1, 2])
    gradient = depthwise_conv3d(upstream, flipped, None, (1, 1, 1))
    return sum_pool(gradient, factors) if max(factors) > 1 else gradient


def depthwise_kernel_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """Up-samples, and computes the kernel gradient by 2D filter gradients."""
    if max(factors) > 1:
        inputs = repeat(inputs, factors)
    if sums_in_float16(inputs.dtype):
        wide, wide_upstream = (tf.cast(t, tf.float32) for t in (inputs, upstream))
        gradient = depthwise_kernel_gradient(wide, wide_upstream, kernel, (1, 1, 1))
        return tf.cast(gradient, inputs.dtype)
    num_taps, (num, depth) = kernel.shape[0], inputs.shape[:2]
    if num is not None and depth is not None and num <= _MAX_SAMPLES_UNSTACKED:
        samples = zip(tf.unstack(inputs), tf.unstack(upstream), strict=True)
        by_sample = [_taps_of_sample(*sample, kernel) for sample in samples]
        taps = [tf.add_n(same_tap) for same_tap in zip(*by_sample, strict=True)]
    else:
        radius = num_taps // 2
        rows, upstream_rows = (_fold_depth(t, radius) for t in (inputs, upstream))
        # The padding of the upstream gradient masks the rows between two samples.
        num_outputs = dims(rows)[0] - 2 * radius
        upstream_rows = _slice_rows(upstream_rows, radius, num_outputs)
        taps = [
            filter_gradient(_slice_rows(rows, tap, num_outputs), upstream_rows, kernel)
            for tap in range(num_taps)
        ]
    return tf.reshape(tf.stack(taps), kernel.shape)


def sums_in_float16(dtype: tf.DType) -> bool:
    """Returns whether TensorFlow adds products of voxels in float16.

    On a CPU it does, which loses half of a sum over 64³ voxels.
    """
    return dtype == tf.float16 and not tf.config.list_physical_devices("GPU")


def _taps_of_sample(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor
) -> list[tf.Tensor]:
    """Computes the depth taps of a sample's kernel gradient without copying slices."""
    depth, taps = inputs.shape[0], []
    for tap in range(kernel.shape[0]):
        offset = tap - kernel.shape[0] // 2
        if abs(offset) >= depth:
            taps.append(tf.zeros([*kernel.shape[1:], 1], inputs.dtype))
            continue
        input_rows = inputs[max(offset, 0) : depth + min(offset, 0)]
        upstream_rows = upstream[max(-offset, 0) : depth - max(offset, 0)]
        taps.append(filter_gradient(input_rows, upstream_rows, kernel))
    return taps


def filter_gradient(
    rows: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor
) -> tf.Tensor:
    """Computes the gradient (kh, kw, C, 1) of one depth tap of a kernel.

    Args:
      rows: voxels that the tap reads, depth slices as a batch (N, H, W, C).
      upstream: gradient of the outputs, likewise.
      kernel: the entire kernel; only its shape is used.
    """
    return tf.raw_ops.DepthwiseConv2dNativeBackpropFilter(
        input=rows,
        filter_sizes=[*kernel.shape[1:], 1],
        out_backprop=upstream,
        strides=[1, 1, 1, 1],
        padding="SAME",
    )
