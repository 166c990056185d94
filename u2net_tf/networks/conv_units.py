"""Stride-1 convolution units: plain, separable, series and parallel adapters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from u2net_tf.networks import ops
from u2net_tf.networks.arguments import (
    check_positive_integer,
    check_positive_integers,
)
from u2net_tf.networks.layers import (
    DepthwiseConv3D,
    DomainConv3D,
    DomainLayer,
    DomainNorm,
    SharedConv3D,
)
from u2net_tf.networks.layers.channel_groups import Inputs, concat_channels
from u2net_tf.networks.layers.normalization import NEGATIVE_SLOPE


class ConvUnit(DomainLayer):
    """Base class of stride-1 units: convolution, adapter, norm and LeakyReLU.

    Subclasses define the position of the adapter. The norm has γ and β per domain.
    `unit(inputs, residual, domain=…)` adds `residual`, of the shape of the outputs,
    before the activation. The inputs may be a list of channel groups.

    Args:
      in_channels: Input channels.
      filters: Output channels.
      num_domains: Number of domains.
      kernel_size: Three integers, along D, H, W.
      upsample: Three integers, the factors of nearest-neighbour up-sampling of the
        inputs along D, H, W.
      **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(
        self,
        in_channels: int,
        filters: int,
        num_domains: int,
        *,
        kernel_size: Sequence[int] = (3, 3, 3),
        upsample: Sequence[int] = (1, 1, 1),
        **kwargs: Any,
    ):
        super().__init__(num_domains, **kwargs)
        self.in_channels = check_positive_integer("in_channels", in_channels)
        self.filters = check_positive_integer("filters", filters)
        self.kernel_size = check_positive_integers("kernel_size", kernel_size, length=3)
        self.upsample = check_positive_integers("upsample", upsample, length=3)

    def _make_conv(self) -> SharedConv3D:
        return SharedConv3D(
            self.in_channels,
            self.filters,
            self.num_domains,
            kernel_size=self.kernel_size,
            dtype=self.dtype_policy,
            name="conv",
        )

    def _make_norm(self) -> DomainNorm:
        return DomainNorm(
            (self.filters,) * self.num_domains,
            negative_slope=NEGATIVE_SLOPE,
            dtype=self.dtype_policy,
            name="norm",
        )

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "in_channels": self.in_channels,
            "filters": self.filters,
            "num_domains": self.num_domains,
            "kernel_size": self.kernel_size,
            "upsample": self.upsample,
        }


@keras.saving.register_keras_serializable(package="u2net_tf")
class PlainUnit(ConvUnit):
    """Shared convolution · norm: the unit of the shared and independent modes."""

    def __init__(self, in_channels: int, filters: int, num_domains: int, **kwargs: Any):
        super().__init__(in_channels, filters, num_domains, **kwargs)
        self.conv = self.add_part(self._make_conv())
        self.norm = self.add_part(self._make_norm())

    def call(
        self, inputs: Inputs, residual: tf.Tensor | None = None, *, domain: int
    ) -> tf.Tensor:
        """Maps (N, d, h, w, in_channels) to (N, D, H, W, filters), up-sampled."""
        upsampled = ops.upsample_nearest(concat_channels(inputs), self.upsample)
        hidden = self.conv(upsampled, domain=domain)
        return self.after_conv(hidden, residual, domain=domain)

    def after_conv(
        self, hidden: tf.Tensor, residual: tf.Tensor | None = None, *, domain: int
    ) -> tf.Tensor:
        """Computes the unit's outputs from those of its convolution."""
        return self.norm(hidden, residual, domain=domain)


@keras.saving.register_keras_serializable(package="u2net_tf")
class SeparableUnit(ConvUnit):
    """Per-domain depthwise · norm · LeakyReLU · shared pointwise · norm.

    Reference:
      3D U²-Net, section 2, the domain adapter of the paper.
    """

    def __init__(self, in_channels: int, filters: int, num_domains: int, **kwargs: Any):
        super().__init__(in_channels, filters, num_domains, **kwargs)
        self.depthwise = self.add_part(
            DepthwiseConv3D(
                self.in_channels,
                self.num_domains,
                kernel_size=self.kernel_size,
                upsample=self.upsample,
                dtype=self.dtype_policy,
                name="depthwise",
            )
        )
        self.depthwise_norm = self.add_part(
            DomainNorm(
                (self.in_channels,) * self.num_domains,
                negative_slope=NEGATIVE_SLOPE,
                dtype=self.dtype_policy,
                name="depthwise_norm",
            )
        )
        self.pointwise = self.add_part(
            SharedConv3D(
                self.in_channels,
                self.filters,
                self.num_domains,
                kernel_size=(1, 1, 1),
                dtype=self.dtype_policy,
                name="pointwise",
            )
        )
        self.norm = self.add_part(self._make_norm())

    def call(
        self, inputs: Inputs, residual: tf.Tensor | None = None, *, domain: int
    ) -> tf.Tensor:
        """Maps (N, d, h, w, in_channels) to (N, D, H, W, filters), up-sampled."""
        hidden = self.depthwise(inputs, domain=domain)
        hidden = self.depthwise_norm(hidden, domain=domain)
        hidden = self.pointwise(hidden, domain=domain)
        return self.norm(hidden, residual, domain=domain)


@keras.saving.register_keras_serializable(package="u2net_tf")
class SeriesUnit(ConvUnit):
    """Shared convolution · residual per-domain norm and pointwise · norm.

    Reference:
      Rebuffi et al., Efficient parametrization of multi-domain deep networks,
      CVPR 2018: series residual adapters.
    """

    def __init__(self, in_channels: int, filters: int, num_domains: int, **kwargs: Any):
        super().__init__(in_channels, filters, num_domains, **kwargs)
        filters_per_domain = (self.filters,) * self.num_domains
        self.conv = self.add_part(self._make_conv())
        self.adapter_norm = self.add_part(
            DomainNorm(filters_per_domain, dtype=self.dtype_policy, name="adapter_norm")
        )
        self.adapter = self.add_part(
            DomainConv3D(
                filters_per_domain,
                filters_per_domain,
                kernel_size=(1, 1, 1),
                dtype=self.dtype_policy,
                name="adapter",
            )
        )
        self.norm = self.add_part(self._make_norm())

    def call(
        self, inputs: Inputs, residual: tf.Tensor | None = None, *, domain: int
    ) -> tf.Tensor:
        """Maps (N, d, h, w, in_channels) to (N, D, H, W, filters), up-sampled."""
        upsampled = ops.upsample_nearest(concat_channels(inputs), self.upsample)
        hidden = self.conv(upsampled, domain=domain)
        return self.after_conv(hidden, residual, domain=domain)

    def after_conv(
        self, hidden: tf.Tensor, residual: tf.Tensor | None = None, *, domain: int
    ) -> tf.Tensor:
        """Computes the unit's outputs from those of its convolution."""
        correction = self.adapter(
            self.adapter_norm(hidden, domain=domain), domain=domain
        )
        return self.norm(correction + hidden, residual, domain=domain)


@keras.saving.register_keras_serializable(package="u2net_tf")
class ParallelUnit(ConvUnit):
    """Sum of shared convolution and parallel per-domain pointwise · norm.

    Reference:
      Rebuffi et al., Efficient parametrization of multi-domain deep networks,
      CVPR 2018: parallel residual adapters.
    """

    def __init__(self, in_channels: int, filters: int, num_domains: int, **kwargs: Any):
        super().__init__(in_channels, filters, num_domains, **kwargs)
        self.conv = self.add_part(self._make_conv())
        self.adapter = self.add_part(
            DomainConv3D(
                (self.in_channels,) * self.num_domains,
                (self.filters,) * self.num_domains,
                kernel_size=(1, 1, 1),
                dtype=self.dtype_policy,
                name="adapter",
            )
        )
        self.norm = self.add_part(self._make_norm())

    def call(
        self, inputs: Inputs, residual: tf.Tensor | None = None, *, domain: int
    ) -> tf.Tensor:
        """Maps (N, d, h, w, in_channels) to (N, D, H, W, filters), up-sampled."""
        upsampled = ops.upsample_nearest(concat_channels(inputs), self.upsample)
        hidden = self.conv(upsampled, domain=domain)
        hidden = hidden + self.adapter(upsampled, domain=domain)
        return self.norm(hidden, residual, domain=domain)


UNITS: dict[str, type[ConvUnit]] = {
    "none": PlainUnit,
    "separable": SeparableUnit,
    "series": SeriesUnit,
    "parallel": ParallelUnit,
}


def check_adapter(adapter: str) -> str:
    """Returns `adapter`, or raises ValueError if it is unknown."""
    if adapter not in UNITS:
        raise ValueError(
            f"`adapter` must be one of {sorted(UNITS)}. Received: adapter={adapter!r}"
        )
    return adapter
