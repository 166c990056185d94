"""Convolutions with per-domain or shared kernels."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from u2net_tf.networks import ops
from u2net_tf.networks.arguments import (
    check_positive_integer,
    check_positive_integers,
)
from u2net_tf.networks.layers.channel_groups import Inputs, map_channel_groups
from u2net_tf.networks.layers.domain_layer import DomainLayer, track_for_checkpoint


def he_normal(fan_in: int) -> keras.initializers.Initializer:
    """Returns the published initializer: normal, standard deviation sqrt(2 / fan_in).

    Keras' own `he_normal` is truncated, and infers the fan-in of a depthwise kernel
    from the order of its axes. Each variable needs a new object, because an initializer
    returns the same numbers at every call.
    """
    return keras.initializers.RandomNormal(stddev=math.sqrt(2.0 / fan_in))


@keras.saving.register_keras_serializable(package="u2net_tf")
class DepthwiseConv3D(DomainLayer):
    """Depthwise convolution with kernel and bias per domain, stride 1, 'SAME' padding.

    Args:
      channels: Number of channels, the same in every domain.
      num_domains: Number of domains.
      kernel_size: Three odd integers, along D, H, W.
      upsample: Three integers, the factors of nearest-neighbour up-sampling of the
        inputs along D, H, W.
      **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
      ValueError: If a kernel size is even.
    """

    def __init__(
        self,
        channels: int,
        num_domains: int,
        *,
        kernel_size: Sequence[int] = (3, 3, 3),
        upsample: Sequence[int] = (1, 1, 1),
        **kwargs: Any,
    ):
        super().__init__(num_domains, **kwargs)
        self.channels = check_positive_integer("channels", channels)
        self.kernel_size = check_positive_integers("kernel_size", kernel_size, length=3)
        if any(size % 2 == 0 for size in self.kernel_size):
            raise ValueError(
                f"`kernel_size` must be odd. Received: kernel_size={kernel_size}"
            )
        self.upsample = check_positive_integers("upsample", upsample, length=3)
        self.kernels: list[keras.Variable] = []
        self.biases: list[keras.Variable] = []

    def build(self) -> None:
        """Creates the variables of all domains."""
        for domain in range(self.num_domains):
            self.kernels.append(
                self.add_weight(
                    name=f"kernel_{domain}",
                    shape=(*self.kernel_size, self.channels),
                    initializer=he_normal(math.prod(self.kernel_size)),
                )
            )
            self.biases.append(
                self.add_weight(
                    name=f"bias_{domain}", shape=(self.channels,), initializer="zeros"
                )
            )
        track_for_checkpoint(self, "kernel", self.kernels)
        track_for_checkpoint(self, "bias", self.biases)

    def own_domain_variables(self, domain: int) -> dict[str, keras.Variable]:
        """Returns kernel and bias of `domain`."""
        return {"kernel": self.kernels[domain], "bias": self.biases[domain]}

    def call(self, inputs: Inputs, *, domain: int) -> Inputs:
        """Convolves (N, D, H, W, C), or channel groups, with the kernel of `domain`."""
        domain = self.check_domain(domain)
        convolve = functools.partial(ops.depthwise_conv3d, upsample=self.upsample)
        parameters = self.kernels[domain], self.biases[domain]
        return map_channel_groups(
            convolve, inputs, *map(tf.convert_to_tensor, parameters)
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "num_domains": self.num_domains,
            "kernel_size": self.kernel_size,
            "upsample": self.upsample,
        }


@keras.saving.register_keras_serializable(package="u2net_tf")
class DomainConv3D(DomainLayer):
    """Convolution with a kernel and a bias per domain, stride 1, 'SAME' padding.

    Args:
      in_channels_per_domain: Input channels of each domain.
      filters_per_domain: Output channels of each domain.
      kernel_size: Three integers, along D, H, W.
      **kwargs: Arguments of `keras.layers.Layer`.

    Raises:
      ValueError: If the first two arguments differ in length.
    """

    def __init__(
        self,
        in_channels_per_domain: Sequence[int],
        filters_per_domain: Sequence[int],
        *,
        kernel_size: Sequence[int] = (3, 3, 3),
        **kwargs: Any,
    ):
        self.in_channels_per_domain = check_positive_integers(
            "in_channels_per_domain", in_channels_per_domain
        )
        self.filters_per_domain = check_positive_integers(
            "filters_per_domain", filters_per_domain
        )
        if len(self.in_channels_per_domain) != len(self.filters_per_domain):
            raise ValueError(
                "`in_channels_per_domain` and `filters_per_domain` must have the same "
                "length. Received: "
                f"in_channels_per_domain={self.in_channels_per_domain}, "
                f"filters_per_domain={self.filters_per_domain}"
            )
        super().__init__(num_domains=len(self.filters_per_domain), **kwargs)
        self.kernel_size = check_positive_integers("kernel_size", kernel_size, length=3)
        self.kernels: list[keras.Variable] = []
        self.biases: list[keras.Variable] = []

    def build(self) -> None:
        """Creates the variables of all domains."""
        channels = zip(
            self.in_channels_per_domain, self.filters_per_domain, strict=True
        )
        for domain, (in_channels, filters) in enumerate(channels):
            self.kernels.append(
                self.add_weight(
                    name=f"kernel_{domain}",
                    shape=(*self.kernel_size, in_channels, filters),
                    initializer=he_normal(math.prod(self.kernel_size) * in_channels),
                )
            )
            self.biases.append(
                self.add_weight(
                    name=f"bias_{domain}", shape=(filters,), initializer="zeros"
                )
            )
        track_for_checkpoint(self, "kernel", self.kernels)
        track_for_checkpoint(self, "bias", self.biases)

    def own_domain_variables(self, domain: int) -> dict[str, keras.Variable]:
        """Returns kernel and bias of `domain`."""
        return {"kernel": self.kernels[domain], "bias": self.biases[domain]}

    def call(self, inputs: tf.Tensor, *, domain: int) -> tf.Tensor:
        """Convolves (N, D, H, W, C) with the kernel of `domain`.

        Raises:
          ValueError: If the channels of `inputs` are not those of `domain`.
        """
        domain = self.check_domain(domain)
        if inputs.shape[-1] != self.in_channels_per_domain[domain]:
            raise ValueError(
                f"Domain {domain} has {self.in_channels_per_domain[domain]} input "
                f"channels. Received: inputs.shape={inputs.shape}"
            )
        return ops.conv3d(inputs, self.kernels[domain], self.biases[domain])

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "in_channels_per_domain": self.in_channels_per_domain,
            "filters_per_domain": self.filters_per_domain,
            "kernel_size": self.kernel_size,
        }


@keras.saving.register_keras_serializable(package="u2net_tf")
class SharedConv3D(DomainLayer):
    """Convolution with one kernel and one bias for all domains, 'SAME' padding.

    Args:
      in_channels: Input channels, the same in every domain.
      filters: Output channels.
      num_domains: Number of domains.
      kernel_size: Three integers, along D, H, W.
      strides: Three integers, along D, H, W.
      **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        num_domains: int,
        *,
        kernel_size: Sequence[int] = (3, 3, 3),
        strides: Sequence[int] = (1, 1, 1),
        **kwargs: Any,
    ):
        super().__init__(num_domains, **kwargs)
        self.in_channels = check_positive_integer("in_channels", in_channels)
        self.filters = check_positive_integer("filters", filters)
        self.kernel_size = check_positive_integers("kernel_size", kernel_size, length=3)
        self.strides = check_positive_integers("strides", strides, length=3)
        # Created here, not in `build`: its seed is drawn on creation, so that the
        # weights depend on the order in which layers are created.
        self._initializer = he_normal(math.prod(self.kernel_size) * self.in_channels)

    def build(self) -> None:
        """Creates the variables."""
        self.kernel = self.add_weight(
            name="kernel",
            shape=(*self.kernel_size, self.in_channels, self.filters),
            initializer=self._initializer,
        )
        self.bias = self.add_weight(
            name="bias", shape=(self.filters,), initializer="zeros"
        )

    def own_shared_variables(self) -> dict[str, keras.Variable]:
        """Returns kernel and bias."""
        return {"kernel": self.kernel, "bias": self.bias}

    def call(self, inputs: Inputs, *, domain: int) -> tf.Tensor:
        """Convolves (N, D, H, W, in_channels), or channel groups, with the kernel."""
        self.check_domain(domain)
        return ops.conv3d(inputs, self.kernel, self.bias, strides=self.strides)

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "in_channels": self.in_channels,
            "filters": self.filters,
            "num_domains": self.num_domains,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
        }
