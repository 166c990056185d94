"""3D U²-Net: one U-Net for many domains."""

import functools

import keras
import tensorflow as tf

from u2net_tf.networks import ops
from u2net_tf.networks.blocks import (
    DecoderBlock,
    DomainConvBlock,
    DownSample,
    EncoderBlock,
    published_second_up_conv,
)
from u2net_tf.networks.conv_units import check_adapter
from u2net_tf.networks.gradient_checkpointing import check_recompute, recomputed
from u2net_tf.networks.layers import (
    DomainConv3D,
    check_positive_integers,
    name_each,
    variables_of_parts,
)

DEEP_SUPERVISION_LEVELS = (2, 1)


@keras.saving.register_keras_serializable(package="u2net_tf")
class U2Net(keras.Model):
    """3D U²-Net, universal or plain.

    With `adapter="none"` the convolutions of the trunk are plain and shared: the
    shared mode, or with a single domain the independent one. Norms, stem, head and
    deep supervision belong to each domain in every mode.

    Args:
        num_modalities: Input channels of each domain.
        num_classes: Classes of each domain with background, at least 2 each.
        pools: How often D, H and W are halved.
        base_channels: Channels at full resolution; each level has twice as many.
        adapter: "separable" (the paper's), "series", "parallel" or "none".
        second_up_conv: The last convolution of each decoder block: "full" 3×3×3 or
            "pointwise" 1×1×1; None for what the published code does, full where
            separable and pointwise elsewhere.
        recompute: "none", or "blocks": the backward pass computes what lies inside
            stem, encoder and decoder blocks again rather than keep it. Changes memory
            and time, not results.
        **kwargs: `name`, `dtype` and `trainable` of `keras.Model`.

    Raises:
        ValueError: If an argument is out of range or the first two do not have one
            entry per domain each.

    Reference:
        3D U²-Net, section 2 and figure 2. Deep supervision reads decoder levels 2
        and 1, as published; a network too shallow to have level 2 (pools of 2 at
        most) uses level 1 alone, one with a single pooling step has none.
    """

    def __init__(
        self,
        num_modalities,
        num_classes,
        *,
        pools=(5, 5, 5),
        base_channels=16,
        adapter="separable",
        second_up_conv=None,
        recompute="none",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.num_modalities = check_positive_integers("num_modalities", num_modalities)
        self.num_classes = _check_classes(num_classes, self.num_modalities)
        self.pools = _check_pools(pools)
        (self.base_channels,) = check_positive_integers(
            "base_channels", [base_channels]
        )
        self.adapter = check_adapter(adapter)
        if second_up_conv is None:
            second_up_conv = published_second_up_conv(adapter)
        self.second_up_conv = second_up_conv
        self.recompute = check_recompute(recompute)
        self._make_layers()

    def _make_layers(self):
        num_domains, num_levels = self.num_domains, max(self.pools)
        strides = [self._strides(level) for level in range(num_levels)]
        channels = [self.base_channels * 2**level for level in range(num_levels + 1)]
        common = {"num_domains": num_domains, "dtype": self.dtype_policy}
        same = {"dtype": self.dtype_policy}
        blocks = {"adapter": self.adapter, "recompute": self.recompute, **common}
        self.stem = DomainConvBlock(
            self.num_modalities,
            (self.base_channels,) * num_domains,
            name="stem",
            **same,
        )
        self.encoder = [
            EncoderBlock(width, name=f"encoder_{level}", **blocks)
            for level, width in enumerate(channels)
        ]
        self.down_samples = [
            DownSample(
                channels[level],
                channels[level + 1],
                strides=strides[level],
                name=f"down_sample_{level}",
                **common,
            )
            for level in range(num_levels)
        ]
        # Indexed by level like the encoder, though computed from the deepest up.
        self.decoder = [
            DecoderBlock(
                channels[level],
                strides=strides[level],
                second_up_conv=self.second_up_conv,
                name=f"decoder_{level}",
                **blocks,
            )
            for level in range(num_levels)
        ]
        self.supervised_levels = tuple(
            level for level in DEEP_SUPERVISION_LEVELS if level < num_levels
        )
        self.deep_supervision = [
            DomainConvBlock(
                (channels[level],) * num_domains,
                self.num_classes,
                kernel_size=(1, 1, 1),
                name=f"deep_supervision_level_{level}",
                **same,
            )
            for level in self.supervised_levels
        ]
        self.head = DomainConv3D(
            (self.base_channels,) * num_domains,
            self.num_classes,
            kernel_size=(1, 1, 1),
            name="head",
            **same,
        )
        name_each(self, "encoder", self.encoder)
        name_each(self, "down_sample", self.down_samples)
        name_each(self, "decoder", self.decoder)
        name_each(self, "deep_supervision", self.deep_supervision)

    @property
    def num_domains(self):
        """Number of domains."""
        return len(self.num_modalities)

    @property
    def trunk_layers(self):
        """The layers whose convolutions are shared, in no particular order."""
        return (*self.encoder, *self.down_samples, *self.decoder)

    @property
    def parts(self):
        """All layers of the network, by the names that they have in checkpoints."""
        lists = {
            "encoder": self.encoder,
            "down_sample": self.down_samples,
            "decoder": self.decoder,
            "deep_supervision": self.deep_supervision,
        }
        numbered = {
            f"{name}_{index}": layer
            for name, layers in lists.items()
            for index, layer in enumerate(layers)
        }
        return {"stem": self.stem, **numbered, "head": self.head}

    @property
    def domain_layers(self):
        """All layers of the network, in no particular order."""
        return tuple(self.parts.values())

    def variables_by_path(self):
        """Returns path -> variable; checkpoints hold variables under these paths."""
        return variables_of_parts(self.parts)

    def _strides(self, level):
        return tuple(2 if level < pools else 1 for pools in self.pools)

    def build(self, input_shape=None):
        """Creates the variables of all domains; computes nothing.

        Under a `tf.distribute` strategy, call this (or the model) within its scope.

        Args:
            input_shape: Not needed, every layer knows its channels.
        """
        if self.built:
            return
        for layer in self.domain_layers:
            layer.build()
        self.built = True

    def call(self, inputs, *, domain, training=None):
        """Computes the logits of one domain.

        Args:
            inputs: Tensor of shape (N, D, H, W, M), M the modalities of `domain`; D,
                H and W divisible by 2**pools.
            domain: Python integer, the index of the domain.
            training: Changes nothing here: instance statistics are always those of
                the input. Keras passes it to every model.

        Returns:
            Logits of shape (N, D, H, W, K), K the classes of `domain`; float32, or
            float64 for a float64 model.

        Raises:
            ValueError: If a known size of `inputs` or `domain` does not fit.
        """
        self._check_inputs(inputs)
        hidden = self._run_stem(inputs, domain)
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
        # A softmax over half-precision logits would lose the loss's small gradients.
        return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)

    def _run_stem(self, inputs, domain):
        stem = functools.partial(self.stem, domain=domain)
        if self.recompute == "none":
            return stem(inputs)
        return recomputed(stem, self.stem.read_variables(domain), inputs)

    def _supervise(self, hidden, deep, level, domain):
        """Brings the deep-supervision map to `level` and adds the level's own."""
        if deep is not None:
            deep = ops.upsample_nearest(deep, self._strides(level))
        if level not in self.supervised_levels:
            return deep
        index = self.supervised_levels.index(level)
        own = self.deep_supervision[index](hidden, domain=domain)
        return own if deep is None else own + deep

    def _check_inputs(self, inputs):
        if inputs.shape.rank != 5:
            raise ValueError(
                "`inputs` must have the axes (N, D, H, W, M). "
                f"Received: inputs.shape={inputs.shape}"
            )
        for axis, size, pools in zip("DHW", inputs.shape[1:4], self.pools, strict=True):
            if size is not None and size % 2**pools:
                raise ValueError(
                    f"Axis {axis} is halved {pools} times and must be divisible by "
                    f"{2**pools}. Received: {axis}={size}, inputs.shape={inputs.shape}"
                )

    def domain_variables(self, domain):
        """Returns the trainable variables that only `domain` reads.

        Raises:
            ValueError: If there is no such domain or the model is not built yet.
        """
        if not self.built:
            raise ValueError(
                "Variables exist only after `build()`. Received: an unbuilt model"
            )
        return [
            variable
            for layer in self.domain_layers
            for variable in layer.domain_variables(domain)
            if variable.trainable
        ]

    def trunk_domain_variables(self, domain):
        """Returns those of `domain_variables` that lie in the trunk.

        They have the same shapes in every domain; stem, head and deep supervision
        depend on the domain's modalities and classes.
        """
        return [
            variable
            for layer in self.trunk_layers
            for variable in layer.domain_variables(domain)
        ]

    @property
    def shared_variables(self):
        """The trainable variables that every domain reads."""
        own = {
            id(variable)
            for domain in range(self.num_domains)
            for variable in self.domain_variables(domain)
        }
        return [
            variable for variable in self.trainable_variables if id(variable) not in own
        ]

    def get_config(self):
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
            "recompute": self.recompute,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        """Returns the model that `get_config` described."""
        return cls(**{**config, "dtype": _policy(config.get("dtype"))})


def _policy(dtype):
    """Returns a dtype policy from what JSON makes of it."""
    if isinstance(dtype, dict):
        return keras.saving.deserialize_keras_object(dtype)
    return dtype


def _check_classes(num_classes, num_modalities):
    num_classes = check_positive_integers("num_classes", num_classes)
    if len(num_classes) != len(num_modalities):
        raise ValueError(
            "`num_modalities` and `num_classes` must have one entry per domain each. "
            f"Received: num_modalities={num_modalities}, num_classes={num_classes}"
        )
    if min(num_classes) < 2:
        raise ValueError(
            "`num_classes` counts the background and must be at least 2 each. "
            f"Received: num_classes={num_classes}"
        )
    return num_classes


def _check_pools(pools):
    pools = tuple(pools)
    if (
        len(pools) != 3
        or any(int(value) != value or value < 0 for value in pools)
        or max(pools) < 1
    ):
        raise ValueError(
            "`pools` must be three integers of at least 0, not all 0. "
            f"Received: pools={pools}"
        )
    return tuple(int(value) for value in pools)
