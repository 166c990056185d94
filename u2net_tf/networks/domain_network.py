"""Base class of the networks of all architectures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from typing_extensions import Self

from u2net_tf.networks.arguments import check_positive_integers
from u2net_tf.networks.gradient_checkpointing import call_checkpointed
from u2net_tf.networks.layers import DomainLayer, DomainModule
from u2net_tf.networks.network_summary import format_summary


class DomainNetwork(DomainModule):
    """A network for several domains, composed of parts.

    A mixin for subclasses of `keras.Model`.

    Attributes:
      pools: Number of halvings along D, H and W.
      stem: The first layer.
      gradient_checkpointing: "none", or "blocks" to keep only the stem's inputs for the
        backward pass, not its intermediate results.
      built: See `keras.Model`.
      trainable_variables: See `keras.Model`.
    """

    pools: tuple[int, ...]
    stem: DomainLayer
    gradient_checkpointing: str
    built: bool
    trainable_variables: list[keras.Variable]

    @property
    def trunk_layers(self) -> tuple[DomainLayer, ...]:
        """The layers whose convolutions are shared, in no particular order."""
        raise NotImplementedError

    @property
    def stride_1_layers(self) -> tuple[DomainLayer, ...]:
        """The `trunk_layers` whose convolutions all have stride 1."""
        raise NotImplementedError

    def build(self) -> None:
        """Creates the variables of all domains without running the network.

        Under a `tf.distribute` strategy, call this (or the model) within its scope.
        No input shape is needed: layers get their numbers of channels when created.
        """
        if not self.built:
            super().build()

    def strides(self, level: int) -> tuple[int, ...]:
        """Returns the strides along D, H, W from a level to the next deeper one."""
        return tuple(2 if level < pools else 1 for pools in self.pools)

    def check_inputs(self, inputs: tf.Tensor) -> None:
        """Raises ValueError if a size of `inputs` is not divisible by 2**pools."""
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

    def run_stem(self, inputs: tf.Tensor, domain: int) -> tf.Tensor:
        """Applies the stem of a domain to the inputs."""

        def stem(inputs: tf.Tensor) -> tf.Tensor:
            return self.stem(inputs, domain=domain)

        if self.gradient_checkpointing == "none":
            return stem(inputs)
        return call_checkpointed(stem, self.stem.variables_used_by(domain), inputs)

    def domain_variables(self, domain: int) -> list[keras.Variable]:
        """Returns the trainable variables that only `domain` reads.

        Raises:
          ValueError: If there is no such domain or the model is not built.
        """
        if not self.built:
            raise ValueError(
                "Variables exist only after `build()`. Received: an unbuilt model"
            )
        variables = super().domain_variables(domain)
        return [variable for variable in variables if variable.trainable]

    def trunk_domain_variables(self, domain: int) -> list[keras.Variable]:
        """Returns the `domain_variables` of the trunk.

        They have the same shapes in every domain, unlike those of layers that read the
        domain's modalities or output its classes.
        """
        return [
            variable
            for layer in self.trunk_layers
            for variable in layer.domain_variables(domain)
        ]

    @property
    def shared_variables(self) -> list[keras.Variable]:
        """The trainable variables that every domain reads."""
        per_domain = {
            id(variable)
            for domain in range(self.num_domains)
            for variable in self.domain_variables(domain)
        }
        return [
            variable
            for variable in self.trainable_variables
            if id(variable) not in per_domain
        ]

    def summary(
        self,
        *,
        patch_size: Sequence[int] | None = None,
        domain: int = 0,
        print_fn: Callable[[str], None] = print,
    ) -> None:
        """Prints a table of the layers, with output shapes and numbers of parameters.

        Args:
          patch_size: D, H and W of the input; the smallest possible if None.
          domain: Index of the domain whose shapes and parameters are shown.
          print_fn: Receives the table.

        Raises:
          ValueError: If the patch size or the domain does not fit the network.
        """
        self.build()
        index = self.check_domain(domain)
        if patch_size is None:
            patch_size = [2**pools for pools in self.pools]
        print_fn(
            format_summary(
                self,
                patch_size=check_positive_integers("patch_size", patch_size),
                domain=index,
            )
        )

    @classmethod
    def from_config(
        cls, config: Mapping[str, Any], custom_objects: Mapping[str, Any] | None = None
    ) -> Self:
        """Creates a model from what `get_config` returned."""
        return cls(**{**config, "dtype": _dtype_policy(config.get("dtype"))})


def cast_logits(logits: tf.Tensor) -> tf.Tensor:
    """Casts logits to float32, except float64 logits.

    A softmax over half-precision logits would lose small gradients of the loss.
    """
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


def _dtype_policy(dtype: Any) -> Any:
    """Returns a dtype policy, deserialized if it is a Keras config."""
    if isinstance(dtype, dict):
        return keras.saving.deserialize_keras_object(dtype)
    return dtype
