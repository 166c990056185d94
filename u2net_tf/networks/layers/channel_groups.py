"""Inputs that are groups of channels: a list of tensors that counts as one tensor.

A decoder block reads up-sampled features and a skip connection. An operation that
treats each channel alike need not concatenate them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

from u2net_tf.networks.ops import IMPLEMENTATIONS, current_implementation

# Tensor of shape (N, D, H, W, C), or a list of such that count as concatenated along C.
Inputs: TypeAlias = tf.Tensor | list[tf.Tensor]


def map_channel_groups(
    function: Callable[..., tf.Tensor], inputs: Inputs, *parameters: tf.Tensor
) -> Inputs:
    """Returns `function(inputs, *parameters)`, for each group of a list of inputs.

    The current implementation may have groups concatenated first.

    Args:
      function: Function of features and of tensors whose last axis is their channels.
      inputs: Tensor of shape (N, D, H, W, C), or a list of such.
      *parameters: Tensors whose last axis is all the channels.
    """
    if not isinstance(inputs, list):
        return function(inputs, *parameters)
    inputs = IMPLEMENTATIONS[current_implementation()].gather_groups(inputs)
    sizes = [group.shape[-1] for group in inputs]
    split = [tf.split(tensor, sizes, axis=-1) for tensor in parameters]
    return [function(*group) for group in zip(inputs, *split, strict=True)]


def concat_channels(inputs: Inputs) -> tf.Tensor:
    """Returns the one tensor that the groups count as."""
    return tf.concat(inputs, axis=-1) if isinstance(inputs, list) else inputs
