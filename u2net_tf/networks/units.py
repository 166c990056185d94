"""Convolution units: what may stand in for a convolution of the trunk."""

import keras

from u2net_tf.networks.layers import (
    NEGATIVE_SLOPE,
    DepthwiseConv3D,
    DomainConv3D,
    DomainLayer,
    DomainNorm,
    check_positive_integers,
    shared_conv,
)


class ConvUnit(DomainLayer):
    """What replaces a stride-1 convolution: convolution, adapter, norm.

    Subclasses say where the adapter sits. γ and β of the norm belong to each domain.

    Args:
        in_channels: Input channels.
        filters: Output channels.
        num_domains: Number of domains.
        kernel_size: Three integers, along D, H, W.
        activate: Whether a LeakyReLU follows the norm.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(
        self,
        in_channels,
        filters,
        num_domains,
        *,
        kernel_size=(3, 3, 3),
        activate=True,
        **kwargs,
    ):
        super().__init__(num_domains, **kwargs)
        (self.in_channels,) = check_positive_integers("in_channels", [in_channels])
        (self.filters,) = check_positive_integers("filters", [filters])
        self.kernel_size = check_positive_integers("kernel_size", kernel_size, length=3)
        self.activate = activate
        self.norm = DomainNorm(
            (self.filters,) * self.num_domains,
            negative_slope=NEGATIVE_SLOPE if activate else None,
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
            "activate": self.activate,
        }


@keras.saving.register_keras_serializable(package="u2net_tf")
class PlainUnit(ConvUnit):
    """Shared convolution · norm: the unit of the shared and independent modes."""

    def __init__(self, in_channels, filters, num_domains, **kwargs):
        super().__init__(in_channels, filters, num_domains, **kwargs)
        self.conv = shared_conv(
            self.in_channels,
            self.filters,
            self.kernel_size,
            dtype=self.dtype_policy,
            name="conv",
        )

    @property
    def sublayers(self):
        """The layers in the order of computation."""
        return (self.conv, self.norm)

    def build(self, input_shape=None):
        """Builds the sublayers."""
        self.build_with_channels(self.conv, self.in_channels)
        self.build_with_channels(self.norm, self.filters)

    def call(self, inputs, *, domain):
        """Maps (N, D, H, W, in_channels) to (N, D, H, W, filters)."""
        return self.norm(self.conv(inputs), domain=domain)


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
            dtype=self.dtype_policy,
            name="depthwise",
        )
        self.depthwise_norm = DomainNorm(
            (self.in_channels,) * self.num_domains,
            negative_slope=NEGATIVE_SLOPE,
            dtype=self.dtype_policy,
            name="depthwise_norm",
        )
        self.pointwise = shared_conv(
            self.in_channels,
            self.filters,
            (1, 1, 1),
            dtype=self.dtype_policy,
            name="pointwise",
        )

    @property
    def sublayers(self):
        """The layers in the order of computation."""
        return (self.depthwise, self.depthwise_norm, self.pointwise, self.norm)

    def build(self, input_shape=None):
        """Builds the sublayers."""
        for layer in (self.depthwise, self.depthwise_norm, self.pointwise):
            self.build_with_channels(layer, self.in_channels)
        self.build_with_channels(self.norm, self.filters)

    def call(self, inputs, *, domain):
        """Maps (N, D, H, W, in_channels) to (N, D, H, W, filters)."""
        hidden = self.depthwise(inputs, domain=domain)
        hidden = self.depthwise_norm(hidden, domain=domain)
        return self.norm(self.pointwise(hidden), domain=domain)


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
        self.conv = shared_conv(
            self.in_channels,
            self.filters,
            self.kernel_size,
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
    def sublayers(self):
        """The layers in the order of computation."""
        return (self.conv, self.adapter_norm, self.adapter, self.norm)

    def build(self, input_shape=None):
        """Builds the sublayers."""
        self.build_with_channels(self.conv, self.in_channels)
        for layer in (self.adapter_norm, self.adapter, self.norm):
            self.build_with_channels(layer, self.filters)

    def call(self, inputs, *, domain):
        """Maps (N, D, H, W, in_channels) to (N, D, H, W, filters)."""
        hidden = self.conv(inputs)
        correction = self.adapter(
            self.adapter_norm(hidden, domain=domain), domain=domain
        )
        return self.norm(correction + hidden, domain=domain)


@keras.saving.register_keras_serializable(package="u2net_tf")
class ParallelUnit(ConvUnit):
    """Shared convolution and pointwise of the domain side by side, added · norm.

    Reference:
        Rebuffi et al., Efficient parametrization of multi-domain deep networks,
        CVPR 2018: parallel residual adapters.
    """

    def __init__(self, in_channels, filters, num_domains, **kwargs):
        super().__init__(in_channels, filters, num_domains, **kwargs)
        self.conv = shared_conv(
            self.in_channels,
            self.filters,
            self.kernel_size,
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
    def sublayers(self):
        """The layers in the order of computation."""
        return (self.conv, self.adapter, self.norm)

    def build(self, input_shape=None):
        """Builds the sublayers."""
        self.build_with_channels(self.conv, self.in_channels)
        self.build_with_channels(self.adapter, self.in_channels)
        self.build_with_channels(self.norm, self.filters)

    def call(self, inputs, *, domain):
        """Maps (N, D, H, W, in_channels) to (N, D, H, W, filters)."""
        hidden = self.conv(inputs) + self.adapter(inputs, domain=domain)
        return self.norm(hidden, domain=domain)


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
