"""Operations of a step as one XLA module for a GPU.

Depthwise convolutions, and those of a single input channel, are kernels of Triton that
the module contains. Other convolutions are those of "xla_module", some of them computed
by matrix products of maps whose channels come first. What a kernel does not support,
such as float64, is left to "xla_module".
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence

import tensorflow as tf
from tensorflow.compiler.tf2xla.ops import gen_xla_ops

from u2net_tf.networks.ops.implementations import plain, xla_module
from u2net_tf.networks.ops.implementations.triton import channels_first, kernels
from u2net_tf.networks.ops.implementations.triton.language import DTYPES
from u2net_tf.networks.ops.implementations.triton.maps import Maps, Tiling
from u2net_tf.networks.ops.implementations.triton.sub_voxel import (
    strided_input_gradient,
)
from u2net_tf.networks.ops.shapes import Factors

# What was fastest on an H200, or nearly so, in either precision.
_VOXELS_PER_THREAD = 4
_SLICES = 32
_GRADIENT_VOXELS_PER_THREAD = 1
_GRADIENT_SLICES = 64
_ONES = (1, 1, 1)
_TO_CHANNELS_FIRST = (0, 4, 1, 2, 3)
_TO_CHANNELS_LAST = (0, 2, 3, 4, 1)
_strided_kernel_gradient = functools.partial(
    xla_module.gradient_by_matrix_products,
    multiply=channels_first.sum_of_outer_products,
)


def launch(
    program: kernels.Program,
    operands: Sequence[tf.Tensor],
    shape: Sequence[int],
    dtype: tf.DType,
) -> tf.Tensor:
    """Runs a kernel. Only XLA for a GPU can compile this operation.

    Args:
      program: the kernel.
      operands: its arrays but the last.
      shape: shape of the last.
      dtype: dtype of the last.
    """
    text = "".join(
        f"\\{ord(letter):02X}" if letter in '"\\\n' else letter
        for letter in program.kernel.text()
    )
    settings = {
        "name": f'"{program.kernel.name}"',
        "ir": f'"{text}"',
        "num_stages": "1 : i32",
        "num_warps": f"{program.warps} : i32",
        "grid_x": f"{program.num_programs} : i32",
        "grid_y": "1 : i32",
        "grid_z": "1 : i32",
        "debug": "false",
    }
    config = ", ".join(f"{name} = {value}" for name, value in settings.items())
    (result,) = gen_xla_ops.xla_custom_call_v2(
        operands=list(operands),
        call_target_name="__gpu$xla.gpu.triton",
        backend_config=f"{{{config}}}",
        has_side_effect=False,
        result_dtypes=[dtype],
        result_shapes=[tf.TensorShape(shape)],
    )
    return result


def depthwise_conv3d(
    inputs: tf.Tensor, kernel: tf.Tensor, bias: tf.Tensor | None, factors: Factors
) -> tf.Tensor:
    """Up-samples and convolves in one kernel."""
    if not _is_supported(inputs):
        return xla_module.depthwise_conv3d(inputs, kernel, bias, factors)
    size = [n * by for n, by in zip(inputs.shape[1:4], factors, strict=True)]
    return _correlate(inputs, kernel, bias, size, upsample=factors)


def depthwise_input_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """Correlates the gradient with the flipped kernel, summed over repeated voxels."""
    if not (_is_supported(inputs) and _is_supported(upstream)):
        return xla_module.depthwise_input_gradient(inputs, upstream, kernel, factors)
    adjoint = _adjoint_kernel(kernel, factors)
    return _correlate(upstream, adjoint, None, inputs.shape[1:4], stride=factors)


def depthwise_kernel_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, factors: Factors
) -> tf.Tensor:
    """Sums over voxels, without materializing the up-sampled inputs."""
    if not (_is_supported(inputs) and _is_supported(upstream)):
        return xla_module.depthwise_kernel_gradient(inputs, upstream, kernel, factors)
    gradient = _kernel_gradient(inputs, upstream, kernel.shape[:3], factors)
    return tf.cast(gradient, kernel.dtype)


def conv3d(
    groups: Sequence[tf.Tensor], kernel: tf.Tensor, strides: Sequence[int]
) -> tf.Tensor:
    """Calls `xla_module.conv3d`, except for three kinds of kernels.

    Pointwise kernels, and the gradients of strided ones whose strides divide the sizes,
    are computed with channels first; kernels of a single input channel by Triton.
    """
    inputs, sizes = groups[0], kernel.shape[:3]
    if plain.is_pointwise(kernel, strides):
        return plain.sum_of_products(groups, kernel, multiply=channels_first.pointwise)
    if len(groups) > 1 or not inputs.shape.is_fully_defined():
        return xla_module.conv3d(groups, kernel, strides)
    if max(strides) > 1:
        pairs = zip(inputs.shape[1:4], strides, strict=True)
        if not any(size % stride for size, stride in pairs):
            return xla_module.convolve_with(
                _strided_kernel_gradient, _sub_voxel_gradient, inputs, kernel, strides
            )
    elif inputs.shape[-1] == 1 and all(n % 2 for n in sizes) and _is_supported(inputs):
        return _convolve_channel(inputs, kernel)
    return xla_module.conv3d(groups, kernel, strides)


def _sub_voxel_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, kernel: tf.Tensor, strides: Sequence[int]
) -> tf.Tensor:
    del inputs  # their sizes follow from those of the outputs
    return strided_input_gradient(upstream, kernel, strides)


def _convolve_channel(inputs: tf.Tensor, kernel: tf.Tensor) -> tf.Tensor:
    """Convolves a single channel: filters act like a depthwise kernel on copies."""
    sizes = kernel.shape[:3]

    @tf.custom_gradient
    def convolve(inputs: tf.Tensor, kernel: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            by_kernel = _kernel_gradient(inputs, upstream, sizes, _ONES)
            by_kernel = tf.cast(by_kernel[..., tf.newaxis, :], kernel.dtype)
            by_inputs = xla_module.input_gradient(inputs, upstream, kernel, _ONES)
            return by_inputs, by_kernel

        depthwise = tf.squeeze(kernel, axis=3)
        return _correlate(inputs, depthwise, None, inputs.shape[1:4]), gradient

    return convolve(inputs, kernel)


def _is_supported(maps: tf.Tensor) -> bool:
    return maps.dtype.name in DTYPES and maps.shape.is_fully_defined()


def _correlate(
    inputs: tf.Tensor,
    kernel: tf.Tensor,
    bias: tf.Tensor | None,
    size: Sequence[int],
    *,
    upsample: Factors = _ONES,
    stride: Factors = _ONES,
) -> tf.Tensor:
    """Runs `kernels.correlation`, with taps around the voxels that a stride covers.

    Args:
      inputs: (N, D, H, W, C), or one channel for all outputs.
      kernel: (kd, kh, kw, C), sizes that exceed the strides by even numbers.
      bias: (C,) or None.
      size: D, H, W of the outputs.
      upsample: see `Maps`, as for `stride`.
      stride: see there.

    Returns:
      The outputs (N, D, H, W, C), of the dtype of the inputs.
    """
    num, channels = inputs.shape[0], kernel.shape[-1]
    maps = Maps(
        num, channels, inputs.shape[-1], size, upsample, stride, inputs.dtype.name
    )
    tiling = Tiling.of(
        size[1] * size[2], voxels_per_thread=_VOXELS_PER_THREAD, slices=_SLICES
    )
    sizes = kernel.shape[:3]
    first = [-((n - step) // 2) for n, step in zip(sizes, stride, strict=True)]
    program = kernels.correlation(maps, sizes, first, tiling, has_bias=bias is not None)
    weights = [tf.cast(w, tf.float32) for w in (kernel, bias) if w is not None]
    operands = [tf.transpose(inputs, _TO_CHANNELS_FIRST), *weights]
    outputs = launch(program, operands, (num, channels, *size), inputs.dtype)
    return tf.transpose(outputs, _TO_CHANNELS_LAST)


def _kernel_gradient(
    inputs: tf.Tensor, upstream: tf.Tensor, sizes: Sequence[int], upsample: Factors
) -> tf.Tensor:
    """Runs `kernels.kernel_gradient`; returns (kd, kh, kw, C), float32."""
    num, *size, channels = upstream.shape
    maps = Maps(
        num,
        channels,
        inputs.shape[-1],
        size,
        upsample,
        _ONES,
        inputs.dtype.name,
    )
    tiling = Tiling.of(
        size[1] * size[2],
        voxels_per_thread=_GRADIENT_VOXELS_PER_THREAD,
        slices=_GRADIENT_SLICES,
    )
    program = kernels.kernel_gradient(maps, sizes, tiling)
    operands = [tf.transpose(each, _TO_CHANNELS_FIRST) for each in (inputs, upstream)]
    shape = (math.prod(sizes), num, channels, program.num_programs // (num * channels))
    parts = launch(program, operands, shape, tf.float32)
    return tf.reshape(tf.reduce_sum(parts, axis=[1, 3]), [*sizes, channels])


def _adjoint_kernel(kernel: tf.Tensor, factors: Factors) -> tf.Tensor:
    """Returns the kernel that gathers the gradient of up-sampled, convolved inputs.

    Output voxel f·q + o of a convolution reads voxel q of the inputs through the taps t
    with 0 <= o + t - r < f, where r is the radius of the kernel. The gradient of the
    voxel is the sum over these outputs, o = -r, …, f - 1 + r, times these taps.

    Args:
      kernel: (kd, kh, kw, C), odd sizes.
      factors: factors f of the up-sampling.

    Returns:
      float32 (kd - 1 + fd, kh - 1 + fh, kw - 1 + fw, C).
    """
    gathered = tf.cast(kernel, tf.float32)
    for axis, factor in enumerate(factors):
        taps = tf.unstack(gathered, axis=axis)
        radius = len(taps) // 2
        sums = [
            functools.reduce(
                tf.add,
                (
                    value
                    for tap, value in enumerate(taps)
                    if 0 <= offset + tap - radius < factor
                ),
            )
            for offset in range(-radius, factor + radius)
        ]
        gathered = tf.stack(sums, axis=axis)
    return gathered
