"""Table of implementations, and selection of the current one."""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence

import tensorflow as tf

from u2net_tf.networks.ops.implementations import (
    concatenated,
    export,
    plain,
    xla,
    xla_module,
)
from u2net_tf.networks.ops.implementations.triton import operations as triton
from u2net_tf.networks.ops.shapes import Factors


@dataclasses.dataclass(frozen=True)
class Operations:
    """A row of the table: one implementation of each operation.

    All arguments have been checked and are passed by position. The functions in `ops`
    add the checks and custom gradients.

    Attributes:
      conv3d: list of inputs to concatenate, kernel, strides -> outputs.
      conv3d_concatenated: list of inputs to concatenate, kernel -> outputs of stride 1.
        Does not keep the concatenated inputs, where that is possible.
      depthwise_conv3d: inputs, kernel, bias or None, up-sampling factors -> outputs.
      depthwise_input_gradient: inputs of `depthwise_conv3d`, gradient of its outputs,
        kernel, factors -> gradient of the inputs.
      depthwise_kernel_gradient: likewise -> gradient of the kernel.
      repeat: inputs, factors -> every voxel repeated along D, H, W.
      sum_pool: gradient of the outputs of `repeat`, factors -> gradient of its inputs.
      instance_norm: inputs, scale, offset, list of residuals, epsilon, negative slope
        or None -> outputs, and the function that maps their gradient to those of all
        tensors.
      wait_for: tensor, list of tensors -> copies of the list, made after the tensor is
        computed; gradient checkpointing recomputes from them.
      invert_permutation: (P,) int32, a permutation -> (P,) int32, its inverse.
      max_pool: inputs, factors -> maxima of blocks of voxels.
      gather_groups: list of channel groups -> list of tensors to each of which a
        channelwise operation is applied: the groups, or their concatenation.
      upsample_linear: inputs, factors, whether corners are aligned -> interpolated
        inputs; None for the matrix products of `ops.upsample_linear`.
    """

    conv3d: Callable[[Sequence[tf.Tensor], tf.Tensor, Sequence[int]], tf.Tensor]
    conv3d_concatenated: Callable[[Sequence[tf.Tensor], tf.Tensor], tf.Tensor]
    depthwise_conv3d: Callable[
        [tf.Tensor, tf.Tensor, tf.Tensor | None, Factors], tf.Tensor
    ]
    depthwise_input_gradient: Callable[
        [tf.Tensor, tf.Tensor, tf.Tensor, Factors], tf.Tensor
    ]
    depthwise_kernel_gradient: Callable[
        [tf.Tensor, tf.Tensor, tf.Tensor, Factors], tf.Tensor
    ]
    repeat: Callable[[tf.Tensor, Factors], tf.Tensor]
    sum_pool: Callable[[tf.Tensor, Factors], tf.Tensor]
    instance_norm: Callable[
        [
            tf.Tensor,
            tf.Tensor,
            tf.Tensor,
            Sequence[tf.Tensor],
            float,
            float | None,
        ],
        tuple[tf.Tensor, Callable[[tf.Tensor], tuple[tf.Tensor, ...]]],
    ]
    wait_for: Callable[[tf.Tensor, Sequence[tf.Tensor]], list[tf.Tensor]]
    invert_permutation: Callable[[tf.Tensor], tf.Tensor]
    max_pool: Callable[[tf.Tensor, Factors], tf.Tensor]
    gather_groups: Callable[[Sequence[tf.Tensor]], Sequence[tf.Tensor]]
    upsample_linear: Callable[[tf.Tensor, Factors, bool], tf.Tensor] | None = None


# TensorFlow operations only, for graphs that must run without XLA, such as exported
# models. Defines every operation.
_PLAIN = Operations(
    conv3d=plain.conv3d,
    conv3d_concatenated=concatenated.conv3d_concatenated,
    depthwise_conv3d=plain.depthwise_conv3d,
    depthwise_input_gradient=plain.depthwise_input_gradient,
    depthwise_kernel_gradient=plain.depthwise_kernel_gradient,
    repeat=plain.repeat,
    sum_pool=plain.sum_pool,
    instance_norm=plain.instance_norm,
    wait_for=plain.wait_for,
    invert_permutation=tf.math.invert_permutation,
    max_pool=plain.max_pool,
    gather_groups=list,
)
_XLA = dataclasses.replace(
    _PLAIN,
    depthwise_conv3d=xla.depthwise_conv3d,
    depthwise_input_gradient=xla.depthwise_input_gradient,
    depthwise_kernel_gradient=xla.depthwise_kernel_gradient,
    repeat=xla.repeat,
    sum_pool=xla.sum_pool,
    instance_norm=xla.instance_norm,
)
_XLA_MODULE = dataclasses.replace(
    _XLA,
    conv3d=xla_module.conv3d,
    conv3d_concatenated=functools.partial(xla_module.conv3d, strides=(1, 1, 1)),
    depthwise_conv3d=xla_module.depthwise_conv3d,
    depthwise_input_gradient=xla_module.depthwise_input_gradient,
    depthwise_kernel_gradient=xla_module.depthwise_kernel_gradient,
    instance_norm=xla_module.instance_norm,
    wait_for=xla_module.wait_for,
    invert_permutation=xla_module.invert_permutation,
)
# Each other implementation replaces some operations; the rest are the plain ones.
IMPLEMENTATIONS: Mapping[str, Operations] = {
    "xla": _XLA,
    "plain": _PLAIN,
    # For functions that XLA compiles as one module.
    "xla_module": _XLA_MODULE,
    # For functions that XLA compiles as one module for a GPU.
    "triton": dataclasses.replace(
        _XLA_MODULE,
        conv3d=triton.conv3d,
        conv3d_concatenated=functools.partial(triton.conv3d, strides=(1, 1, 1)),
        depthwise_conv3d=triton.depthwise_conv3d,
        depthwise_input_gradient=triton.depthwise_input_gradient,
        depthwise_kernel_gradient=triton.depthwise_kernel_gradient,
    ),
    # For conversion to ONNX.
    "export": dataclasses.replace(
        _PLAIN,
        conv3d=export.conv3d,
        conv3d_concatenated=functools.partial(export.conv3d, strides=(1, 1, 1)),
        depthwise_conv3d=export.depthwise_conv3d,
        repeat=export.repeat,
        instance_norm=export.instance_norm,
        max_pool=export.max_pool,
        gather_groups=lambda groups: [tf.concat(groups, axis=-1)],
        upsample_linear=export.upsample_linear,
    ),
}
_current = contextvars.ContextVar("implementation", default="xla")


def current_implementation() -> str:
    """Returns the implementation of operations that are called without one."""
    return _current.get()


@contextlib.contextmanager
def use_implementation(implementation: str | None) -> Iterator[None]:
    """Sets the implementation of operations that are called without one.

    None keeps the current one.

    It takes effect when an operation is called or traced, not when a graph is run, and
    only in the current thread: replicas of a `tf.distribute` strategy have their own.

    Raises:
      ValueError: if `implementation` is not in the table.
    """
    token = _current.set(check_implementation(implementation))
    try:
        yield
    finally:
        _current.reset(token)


def check_implementation(implementation: str | None) -> str:
    """Returns `implementation`, or the current one if None.

    Raises:
      ValueError: if it is not in the table.
    """
    if implementation is None:
        return current_implementation()
    if implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"`implementation` must be one of {tuple(IMPLEMENTATIONS)}. "
            f"Received: implementation={implementation!r}"
        )
    return implementation
