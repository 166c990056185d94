"""3D U²-Net: one U-Net for many domains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf

from u2net_tf.networks import ops
from u2net_tf.networks.arguments import (
    check_num_classes,
    check_pools,
    check_positive_integer,
    check_positive_integers,
)
from u2net_tf.networks.blocks import (
    DecoderBlock,
    DomainConvBlock,
    DownSample,
    EncoderBlock,
    published_second_up_conv,
)
from u2net_tf.networks.conv_units import check_adapter
from u2net_tf.networks.domain_network import DomainNetwork, cast_logits
from u2net_tf.networks.gradient_checkpointing import (
    check_gradient_checkpointing,
)
from u2net_tf.networks.layers import DomainConv3D, DomainLayer

DEEP_SUPERVISION_LEVELS = (2, 1)


@keras.saving.register_keras_serializable(package="u2net_tf")
class U2Net(DomainNetwork, keras.Model):
    """3D U²-Net, universal or plain.

    With `adapter="none"` the convolutions of the trunk are plain and shared: this is
    the shared mode or, with a single domain, the independent one. Every mode has norms,
    stem, head and deep supervision per domain.

    Args:
      num_modalities: Input channels of each domain.
      num_classes: Classes of each domain, including the background, at least 2 each.
      pools: Number of halvings along D, H and W.
      base_channels: Channels at full resolution; each level has twice as many.
      adapter: "separable" (the paper's), "series", "parallel" or "none".
      second_up_conv: The last convolution of each decoder block: "full" 3×3×3 or
        "pointwise" 1×1×1; None for the choice of the published code: full with
        separable adapters and pointwise otherwise.
      gradient_checkpointing: "none", or "blocks" to recompute the intermediate results
        of stem, encoder and decoder blocks in the backward pass instead of keeping
        them. Affects memory and time, not results.
      **kwargs: `name`, `dtype` and `trainable` of `keras.Model`.

    Raises:
      ValueError: If an argument is out of range or the first two differ in length.

    Reference:
      3D U²-Net, section 2 and figure 2. Deep supervision reads decoder levels 2
      and 1, as published; a network too shallow to have level 2 (pools of 2 at
      most) uses level 1 only; one with a single pooling step has none.
    """

    def __init__(
        self,
        num_modalities: Sequence[int],
        num_classes: Sequence[int],
        *,
        pools: Sequence[int] = (5, 5, 5),
        base_channels: int = 16,
        adapter: str = "separable",
        second_up_conv: str | None = None,
        gradient_checkpointing: str = "none",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self.num_modalities = check_positive_integers("num_modalities", num_modalities)
        self.num_classes = check_num_classes(num_classes, self.num_modalities)
        self.num_domains = len(self.num_modalities)
        self.pools = check_pools(pools)
        self.base_channels = check_positive_integer("base_channels", base_channels)
        self.adapter = check_adapter(adapter)
        if second_up_conv is None:
            second_up_conv = published_second_up_conv(adapter)
        self.second_up_conv = second_up_conv
        self.gradient_checkpointing = check_gradient_checkpointing(
            gradient_checkpointing
        )
        num_levels = max(self.pools)
        self._channels = [self.base_channels * 2**n for n in range(num_levels + 1)]
        self.supervised_levels = tuple(
            level for level in DEEP_SUPERVISION_LEVELS if level < num_levels
        )
        # This order determines the seeds of the initial weights.
        self._add_stem()
        self._add_trunk()
        self._add_outputs()

    def _add_stem(self) -> None:
        self.stem = self.add_part(
            DomainConvBlock(
                self.num_modalities,
                (self.base_channels,) * self.num_domains,
                name="stem",
                dtype=self.dtype_policy,
            )
        )

    def _add_trunk(self) -> None:
        common = {"num_domains": self.num_domains, "dtype": self.dtype_policy}
        blocks = {
            "adapter": self.adapter,
            "gradient_checkpointing": self.gradient_checkpointing,
            **common,
        }
        levels = range(max(self.pools))
        self.encoder = [
            self.add_part(EncoderBlock(width, name=f"encoder_{level}", **blocks))
            for level, width in enumerate(self._channels)
        ]
        self.down_samples = [
            self.add_part(
                DownSample(
                    self._channels[level],
                    self._channels[level + 1],
                    strides=self.strides(level),
                    name=f"down_sample_{level}",
                    **common,
                )
            )
            for level in levels
        ]
        # Indexed by level like the encoder, though computed from the deepest up.
        self.decoder = [
            self.add_part(
                DecoderBlock(
                    self._channels[level],
                    strides=self.strides(level),
                    second_up_conv=self.second_up_conv,
                    name=f"decoder_{level}",
                    **blocks,
                )
            )
            for level in levels
        ]

    def _add_outputs(self) -> None:
        # Checkpoints number these from 0, regardless of their levels.
        self.deep_supervision = [
            self.add_part(
                DomainConvBlock(
                    (self._channels[level],) * self.num_domains,
                    self.num_classes,
                    kernel_size=(1, 1, 1),
                    name=f"deep_supervision_level_{level}",
                    dtype=self.dtype_policy,
                ),
                name=f"deep_supervision_{index}",
            )
            for index, level in enumerate(self.supervised_levels)
        ]
        self.head = self.add_part(
            DomainConv3D(
                (self.base_channels,) * self.num_domains,
                self.num_classes,
                kernel_size=(1, 1, 1),
                name="head",
                dtype=self.dtype_policy,
            )
        )

    @property
    def trunk_layers(self) -> tuple[DomainLayer, ...]:
        """The layers whose convolutions are shared, in no particular order."""
        return (*self.encoder, *self.down_samples, *self.decoder)

    @property
    def stride_1_layers(self) -> tuple[DomainLayer, ...]:
        """The `trunk_layers` whose convolutions all have stride 1."""
        return (*self.encoder, *self.decoder)

    def call(
        self, inputs: tf.Tensor, *, domain: int, training: bool | None = None
    ) -> tf.Tensor:
        """Computes the logits of one domain.

        Args:
          inputs: Tensor of shape (N, D, H, W, M), with the M modalities of `domain`;
            D, H and W must be divisible by 2**pools.
          domain: Python integer, the index of the domain.
          training: Has no effect: instance statistics are always those of the
            input. Keras passes it to every model.

        Returns:
          Logits of shape (N, D, H, W, K), with the K classes of `domain`; float32,
          or float64 for a float64 model.

        Raises:
          ValueError: If a known size of `inputs`, or `domain`, is invalid.
        """
        self.check_inputs(inputs)
        hidden = self.run_stem(inputs, domain)
        skips = []
        for level, block in enumerate(self.encoder):
            if level > 0:
                hidden = self.down_samples[level - 1](hidden, domain=domain)
            hidden = block(hidden, domain=domain)
            skips.append(hidden)
        deep = None
        for level in reversed(range(len(self.decoder))):
            hidden = self.decoder[level](hidden, skips[level], domain=domain)
            deep = self._supervise(hidden, deep, level, domain)
        logits = self.head(hidden, domain=domain)
        if deep is not None:
            logits = logits + deep
        return cast_logits(logits)

    def _supervise(
        self, hidden: tf.Tensor, deep: tf.Tensor | None, level: int, domain: int
    ) -> tf.Tensor | None:
        """Up-samples the deep-supervision logits and adds those of this level."""
        if deep is not None:
            deep = ops.upsample_nearest(deep, self.strides(level))
        if level not in self.supervised_levels:
            return deep
        index = self.supervised_levels.index(level)
        logits = self.deep_supervision[index](hidden, domain=domain)
        return logits if deep is None else logits + deep

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments of the constructor."""
        return {
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.saving.serialize_keras_object(self.dtype_policy),
            "num_modalities": self.num_modalities,
            "num_classes": self.num_classes,
            "pools": self.pools,
            "base_channels": self.base_channels,
            "adapter": self.adapter,
            "second_up_conv": self.second_up_conv,
            "gradient_checkpointing": self.gradient_checkpointing,
        }
