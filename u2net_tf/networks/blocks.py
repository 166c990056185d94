"""The blocks of encoder and decoder, made of convolution units."""

import keras

from u2net_tf.networks.conv_units import UNITS, PlainUnit, check_adapter
from u2net_tf.networks.gradient_checkpointing import check_recompute, recomputed
from u2net_tf.networks.layers import (
    NEGATIVE_SLOPE,
    DomainConv3D,
    DomainLayer,
    DomainNorm,
    SharedConv3D,
    check_positive_integers,
)

SECOND_UP_CONVS = ("full", "pointwise")


def published_second_up_conv(adapter):
    """The `second_up_conv` that the published code has with an adapter."""
    return "full" if adapter == "separable" else "pointwise"


@keras.saving.register_keras_serializable(package="u2net_tf")
class DomainConvBlock(DomainLayer):
    """Convolution of the domain · norm · LeakyReLU: stem and deep supervision.

    Args:
        in_channels: Input channels of each domain.
        filters: Output channels of each domain.
        kernel_size: Three integers, along D, H, W.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(self, in_channels, filters, *, kernel_size=(3, 3, 3), **kwargs):
        super().__init__(num_domains=len(tuple(filters)), **kwargs)
        self.conv = DomainConv3D(
            in_channels,
            filters,
            kernel_size=kernel_size,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.norm = DomainNorm(
            filters, negative_slope=NEGATIVE_SLOPE, dtype=self.dtype_policy, name="norm"
        )

    @property
    def parts(self):
        """The layers in the order of computation, by name."""
        return {"conv": self.conv, "norm": self.norm}

    def build(self, input_shape=None):
        """Builds the sublayers; both know their channels in each domain."""
        self.build_with_channels(self.conv, None)
        self.build_with_channels(self.norm, None)

    def call(self, inputs, *, domain):
        """Maps (N, D, H, W, in_channels) of `domain` to its filters."""
        return self.norm(self.conv(inputs, domain=domain), domain=domain)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "in_channels": self.conv.in_channels,
            "filters": self.conv.filters,
            "kernel_size": self.conv.kernel_size,
        }


class _UnitsBlock(DomainLayer):
    """A block of convolution units, which may be recomputed one by one."""

    def __init__(self, num_domains, recompute, **kwargs):
        super().__init__(num_domains, **kwargs)
        self.recompute = check_recompute(recompute)

    def _run(self, unit, *inputs, domain, as_parts=False):
        """Calls a unit; the inputs are one map, side by side, if they are parts."""

        def run(*tensors):
            tensors = [list(tensors)] if as_parts else tensors
            return unit(*tensors, domain=domain)

        if self.recompute == "none":
            return run(*inputs)
        return recomputed(run, unit.read_variables(domain), *inputs)


@keras.saving.register_keras_serializable(package="u2net_tf")
class EncoderBlock(_UnitsBlock):
    """Two convolution units with the block's input added before the last LeakyReLU.

    Args:
        channels: Input and output channels.
        num_domains: Number of domains.
        adapter: "separable", "series", "parallel" or "none".
        recompute: "none", or "blocks" to keep only the inputs of the units for the
            backward pass.
        **kwargs: Of `keras.layers.Layer`.

    Raises:
        ValueError: If `adapter` or `recompute` is none of these.
    """

    def __init__(
        self,
        channels,
        num_domains,
        *,
        adapter="separable",
        recompute="none",
        **kwargs,
    ):
        super().__init__(num_domains, recompute, **kwargs)
        (self.channels,) = check_positive_integers("channels", [channels])
        self.adapter = check_adapter(adapter)
        self.unit_1, self.unit_2 = (
            UNITS[adapter](
                channels,
                channels,
                num_domains,
                dtype=self.dtype_policy,
                name=name,
            )
            for name in ("unit_1", "unit_2")
        )

    @property
    def parts(self):
        """The layers in the order of computation, by name."""
        return {"unit_1": self.unit_1, "unit_2": self.unit_2}

    def build(self, input_shape=None):
        """Builds the sublayers."""
        for unit in self.sublayers:
            self.build_with_channels(unit, self.channels)

    def call(self, inputs, *, domain):
        """Maps (N, D, H, W, channels) to the same shape."""
        hidden = self._run(self.unit_1, inputs, domain=domain)
        return self._run(self.unit_2, hidden, inputs, domain=domain)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "channels": self.channels,
            "num_domains": self.num_domains,
            "adapter": self.adapter,
            "recompute": self.recompute,
        }


@keras.saving.register_keras_serializable(package="u2net_tf")
class DownSample(DomainLayer):
    """Shared 3×3×3 convolution with strides · norm · LeakyReLU.

    Args:
        in_channels: Input channels.
        filters: Output channels.
        num_domains: Number of domains.
        strides: Three integers, along D, H, W.
        **kwargs: Of `keras.layers.Layer`.
    """

    def __init__(self, in_channels, filters, num_domains, *, strides, **kwargs):
        super().__init__(num_domains, **kwargs)
        (self.in_channels,) = check_positive_integers("in_channels", [in_channels])
        (self.filters,) = check_positive_integers("filters", [filters])
        self.strides = check_positive_integers("strides", strides, length=3)
        self.conv = SharedConv3D(
            self.in_channels,
            self.filters,
            self.num_domains,
            strides=self.strides,
            dtype=self.dtype_policy,
            name="conv",
        )
        self.norm = DomainNorm(
            (self.filters,) * self.num_domains,
            negative_slope=NEGATIVE_SLOPE,
            dtype=self.dtype_policy,
            name="norm",
        )

    @property
    def parts(self):
        """The layers in the order of computation, by name."""
        return {"conv": self.conv, "norm": self.norm}

    def build(self, input_shape=None):
        """Builds the sublayers."""
        self.build_with_channels(self.conv, self.in_channels)
        self.build_with_channels(self.norm, self.filters)

    def call(self, inputs, *, domain):
        """Maps (N, D, H, W, in_channels) to (N, D/sd, H/sh, W/sw, filters)."""
        return self.norm(self.conv(inputs, domain=domain), domain=domain)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "in_channels": self.in_channels,
            "filters": self.filters,
            "num_domains": self.num_domains,
            "strides": self.strides,
        }


@keras.saving.register_keras_serializable(package="u2net_tf")
class DecoderBlock(_UnitsBlock):
    """Up-sampling, a unit, the skip beside it, two units.

    Args:
        filters: Channels of the skip and of the output; the input has twice as many.
        num_domains: Number of domains.
        strides: Three integers, the factors of the up-sampling along D, H, W.
        adapter: "separable", "series", "parallel" or "none".
        second_up_conv: The block's last unit: "full" 3×3×3, or "pointwise" 1×1×1 (a
            separable unit is then its shared pointwise half, without a depthwise one).
        recompute: As of `EncoderBlock`.
        **kwargs: Of `keras.layers.Layer`.

    Raises:
        ValueError: If `adapter`, `second_up_conv` or `recompute` is none of these.
    """

    def __init__(
        self,
        filters,
        num_domains,
        *,
        strides,
        adapter="separable",
        second_up_conv="full",
        recompute="none",
        **kwargs,
    ):
        super().__init__(num_domains, recompute, **kwargs)
        (self.filters,) = check_positive_integers("filters", [filters])
        self.strides = check_positive_integers("strides", strides, length=3)
        self.adapter = check_adapter(adapter)
        if second_up_conv not in SECOND_UP_CONVS:
            raise ValueError(
                f"`second_up_conv` must be one of {SECOND_UP_CONVS}. "
                f"Received: second_up_conv={second_up_conv!r}"
            )
        self.second_up_conv = second_up_conv
        unit, options = UNITS[adapter], {"dtype": self.dtype_policy}
        self.up_unit = unit(
            2 * filters,
            filters,
            num_domains,
            upsample=self.strides,
            name="up_unit",
            **options,
        )
        self.unit_1 = unit(2 * filters, filters, num_domains, name="unit_1", **options)
        if second_up_conv == "pointwise":
            unit = PlainUnit if adapter == "separable" else unit
            options["kernel_size"] = (1, 1, 1)
        self.unit_2 = unit(filters, filters, num_domains, name="unit_2", **options)

    @property
    def parts(self):
        """The layers in the order of computation, by name."""
        return {"up_unit": self.up_unit, "unit_1": self.unit_1, "unit_2": self.unit_2}

    def build(self, inputs_shape=None, skip_shape=None):
        """Builds the sublayers."""
        self.build_with_channels(self.up_unit, 2 * self.filters)
        self.build_with_channels(self.unit_1, 2 * self.filters)
        self.build_with_channels(self.unit_2, self.filters)

    def call(self, inputs, skip, *, domain):
        """Maps (N, d, h, w, 2 filters) and the skip to (N, D, H, W, filters)."""
        hidden = self._run(self.up_unit, inputs, domain=domain)
        hidden = self._run(self.unit_1, hidden, skip, domain=domain, as_parts=True)
        return self._run(self.unit_2, hidden, domain=domain)

    def get_config(self):
        """Returns the arguments of the constructor."""
        return {
            **super().get_config(),
            "filters": self.filters,
            "num_domains": self.num_domains,
            "strides": self.strides,
            "adapter": self.adapter,
            "second_up_conv": self.second_up_conv,
            "recompute": self.recompute,
        }
