"""Channel groups: a list of tensors that is treated as their concatenation.

A decoder block reads up-sampled features and a skip connection. Channelwise operations
need not concatenate them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import tensorflow as tf

from u2net_tf.networks.ops import IMPLEMENTATIONS, current_implementation

# Tensor of shape (N, D, H, W, C), or a list of such tensors to concatenate along C.
Inputs: TypeAlias = tf.Tensor | list[tf.Tensor]


def map_channel_groups(
    function: Callable[..., tf.Tensor], inputs: Inputs, *parameters: tf.Tensor
) -> Inputs:
    """Applies a channelwise function to a tensor or to each group of a list.

    The current implementation may concatenate the groups first.

    Args:
      function: Function of feature maps and of parameters per channel.
      inputs: Tensor of shape (N, D, H, W, C), or a list of such tensors.
      *parameters: Tensors whose last axis has the channels of all groups.
    """
    if not isinstance(inputs, list):
        return function(inputs, *parameters)
    inputs = IMPLEMENTATIONS[current_implementation()].gather_groups(inputs)
    sizes = [group.shape[-1] for group in inputs]
    split = [tf.split(tensor, sizes, axis=-1) for tensor in parameters]
    return [function(*group) for group in zip(inputs, *split, strict=True)]


def concat_channels(inputs: Inputs) -> tf.Tensor:
    """Concatenates channel groups; returns a single tensor unchanged."""
    return tf.concat(inputs, axis=-1) if isinstance(inputs, list) else inputs
