"""Convolution units: what may stand in for a convolution of the trunk."""

import keras

from u2net_tf.networks import ops
from u2net_tf.networks.layers import (
    NEGATIVE_SLOPE,
    DepthwiseConv3D,
    DomainConv3D,
    DomainLayer,
    DomainNorm,
    SharedConv3D,
    check_positive_integers,
    joined,
)


class ConvUnit(DomainLayer):
    """What replaces a stride-1 convolution: convolution, adapter, norm, LeakyReLU.

    Subclasses say where the adapter sits. γ and β of the norm belong to each domain.
    `unit(inputs, residual, domain=…)` adds `residual`, a map like the outputs, before
    the activation. The inputs may be a list of maps that count as one, side by side.

    Args:
        in_channels: Input channels.
        filters: Output channels.
        num_domains: Number of domains.
        kernel_size: Three integers, along D, H, W.
        upsample: Three integers, along D, H, W: the factors of a nearest up-sampling
            of the inputs.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(
        self,
        in_channels,
        filters,
        num_domains,
        *,
        kernel_size=(3, 3, 3),
        upsample=(1, 1, 1),
        **kwargs,
    ):
        super().__init__(num_domains, **kwargs)
        (self.in_channels,) = check_positive_integers("in_channels", [in_channels])
        (self.filters,) = check_positive_integers("filters", [filters])
        self.kernel_size = check_positive_integers("kernel_size", kernel_size, length=3)
        self.upsample = check_positive_integers("upsample", upsample, length=3)
        self.norm = DomainNorm(
            (self.filters,) * self.num_domains,
            negative_slope=NEGATIVE_SLOPE,
            dtype=self.dtype_policy,
            name="norm",
        )

    def get_config(self):
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

    def __init__(self, in_channels, filters, num_domains, **kwargs):
        super().__init__(in_channels, filters, num_domains, **kwargs)
        self.conv = SharedConv3D(
            self.in_channels,
            self.filters,
            self.num_domains,
            kernel_size=self.kernel_size,
            dtype=self.dtype_policy,
            name="conv",
        )

    @property
    def parts(self):
        """The layers in the order of computation, by name."""
        return {"conv": self.conv, "norm": self.norm}

    def build(self, input_shape=None):
        """Builds the sublayers."""
        self.build_with_channels(self.conv, self.in_channels)
        self.build_with_channels(self.norm, self.filters)

    def call(self, inputs, residual=None, *, domain):
        """Maps (N, d, h, w, in_channels) to (N, D, H, W, filters), the up-sampled."""
        hidden = self.conv(
            ops.upsample_nearest(joined(inputs), self.upsample), domain=domain
        )
        return self.norm(hidden, residual, domain=domain)


@keras.saving.register_keras_serializable(package="u2net_tf")
class SeparableUnit(ConvUnit):
    """Depthwise of the domain · norm · LeakyReLU · shared pointwise · norm.

    Reference:
        3D U²-Net, section 2, the domain adapter of the paper.
    """

    def __init__(self, in_channels, filters, num_domains, **kwargs):
        super().__init__(in_channels, filters, num_domains, **kwargs)
        self.depthwise = DepthwiseConv3D(
            self.in_channels,
            self.num_domains,
            kernel_size=self.kernel_size,
            upsample=self.upsample,
            dtype=self.dtype_policy,
            name="depthwise",
        )
        self.depthwise_norm = DomainNorm(
            (self.in_channels,) * self.num_domains,
            negative_slope=NEGATIVE_SLOPE,
            dtype=self.dtype_policy,
            name="depthwise_norm",
        )
        self.pointwise = SharedConv3D(
            self.in_channels,
            self.filters,
            self.num_domains,
            kernel_size=(1, 1, 1),
            dtype=self.dtype_policy,
            name="pointwise",
        )

    @property
    def parts(self):
        """The layers in the order of computation, by name."""
        return {
            "depthwise": self.depthwise,
            "depthwise_norm": self.depthwise_norm,
            "pointwise": self.pointwise,
            "norm": self.norm,
        }

    def build(self, input_shape=None):
        """Builds the sublayers."""
        for layer in (self.depthwise, self.depthwise_norm, self.pointwise):
            self.build_with_channels(layer, self.in_channels)
        self.build_with_channels(self.norm, self.filters)

    def call(self, inputs, residual=None, *, domain):
        """Maps (N, d, h, w, in_channels) to (N, D, H, W, filters), the up-sampled."""
        hidden = self.depthwise(inputs, domain=domain)
        hidden = self.depthwise_norm(hidden, domain=domain)
        hidden = self.pointwise(hidden, domain=domain)
        return self.norm(hidden, residual, domain=domain)


@keras.saving.register_keras_serializable(package="u2net_tf")
class SeriesUnit(ConvUnit):
    """Shared convolution x · norm and pointwise of the domain, added to x · norm.

    Reference:
        Rebuffi et al., Efficient parametrization of multi-domain deep networks,
        CVPR 2018: series residual adapters.
    """

    def __init__(self, in_channels, filters, num_domains, **kwargs):
        super().__init__(in_channels, filters, num_domains, **kwargs)
        channels = (self.filters,) * self.num_domains
        self.conv = SharedConv3D(
            self.in_channels,
            self.filters,
            self.num_domains,
            kernel_size=self.kernel_size,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.adapter_norm = DomainNorm(
            channels, dtype=self.dtype_policy, name="adapter_norm"
        )
        self.adapter = DomainConv3D(
            channels,
            channels,
            kernel_size=(1, 1, 1),
            dtype=self.dtype_policy,
            name="adapter",
        )

    @property
    def parts(self):
        """The layers in the order of computation, by name."""
        return {
            "conv": self.conv,
            "adapter_norm": self.adapter_norm,
            "adapter": self.adapter,
            "norm": self.norm,
        }

    def build(self, input_shape=None):
        """Builds the sublayers."""
        self.build_with_channels(self.conv, self.in_channels)
        for layer in (self.adapter_norm, self.adapter, self.norm):
            self.build_with_channels(layer, self.filters)

    def call(self, inputs, residual=None, *, domain):
        """Maps (N, d, h, w, in_channels) to (N, D, H, W, filters), the up-sampled."""
        hidden = self.conv(
            ops.upsample_nearest(joined(inputs), self.upsample), domain=domain
        )
        correction = self.adapter(
            self.adapter_norm(hidden, domain=domain), domain=domain
        )
        return self.norm(correction + hidden, residual, domain=domain)


@keras.saving.register_keras_serializable(package="u2net_tf")
class ParallelUnit(ConvUnit):
    """Shared convolution and pointwise of the domain side by side, added · norm.

    Reference:
        Rebuffi et al., Efficient parametrization of multi-domain deep networks,
        CVPR 2018: parallel residual adapters.
    """

    def __init__(self, in_channels, filters, num_domains, **kwargs):
        super().__init__(in_channels, filters, num_domains, **kwargs)
        self.conv = SharedConv3D(
            self.in_channels,
            self.filters,
            self.num_domains,
            kernel_size=self.kernel_size,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.adapter = DomainConv3D(
            (self.in_channels,) * self.num_domains,
            (self.filters,) * self.num_domains,
            kernel_size=(1, 1, 1),
            dtype=self.dtype_policy,
            name="adapter",
        )

    @property
    def parts(self):
        """The layers in the order of computation, by name."""
        return {"conv": self.conv, "adapter": self.adapter, "norm": self.norm}

    def build(self, input_shape=None):
        """Builds the sublayers."""
        self.build_with_channels(self.conv, self.in_channels)
        self.build_with_channels(self.adapter, self.in_channels)
        self.build_with_channels(self.norm, self.filters)

    def call(self, inputs, residual=None, *, domain):
        """Maps (N, d, h, w, in_channels) to (N, D, H, W, filters), the up-sampled."""
        inputs = ops.upsample_nearest(joined(inputs), self.upsample)
        hidden = self.conv(inputs, domain=domain) + self.adapter(inputs, domain=domain)
        return self.norm(hidden, residual, domain=domain)


UNITS = {
    "none": PlainUnit,
    "separable": SeparableUnit,
    "series": SeriesUnit,
    "parallel": ParallelUnit,
}


def check_adapter(adapter):
    """Returns `adapter`, or raises ValueError if there is none of that name."""
    if adapter not in UNITS:
        raise ValueError(
            f"`adapter` must be one of {sorted(UNITS)}. Received: adapter={adapter!r}"
        )
    return adapter
