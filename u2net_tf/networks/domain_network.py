"""What the networks of all architectures have in common."""

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
    """A network of several domains, made of parts.

    To be inherited from beside `keras.Model`.

    Attributes:
      pools: How often D, H and W are halved.
      stem: The first layer.
      gradient_checkpointing: "none", or "blocks" to keep only the stem's inputs for the
        backward pass, and not what lies inside.
      built: As of `keras.Model`.
      trainable_variables: As of `keras.Model`.
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
        """Those of `trunk_layers` all of whose convolutions have stride 1."""
        raise NotImplementedError

    def build(self) -> None:
        """Creates the variables of all domains; computes nothing.

        Under a `tf.distribute` strategy, call this (or the model) within its scope.
        There is no input shape: every layer knows its channels.
        """
        if not self.built:
            super().build()

    def strides(self, level: int) -> tuple[int, ...]:
        """Returns by how much D, H, W are divided below a level."""
        return tuple(2 if level < pools else 1 for pools in self.pools)

    def check_inputs(self, inputs: tf.Tensor) -> None:
        """Raises ValueError unless `inputs` can be halved as often as `pools` says."""
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
        """Returns what the stem of a domain makes of the inputs."""

        def stem(inputs: tf.Tensor) -> tf.Tensor:
            return self.stem(inputs, domain=domain)

        if self.gradient_checkpointing == "none":
            return stem(inputs)
        return call_checkpointed(stem, self.stem.variables_used_by(domain), inputs)

    def domain_variables(self, domain: int) -> list[keras.Variable]:
        """Returns the trainable variables that only `domain` reads.

        Raises:
          ValueError: If there is no such domain or the model is not built yet.
        """
        if not self.built:
            raise ValueError(
                "Variables exist only after `build()`. Received: an unbuilt model"
            )
        own = super().domain_variables(domain)
        return [variable for variable in own if variable.trainable]

    def trunk_domain_variables(self, domain: int) -> list[keras.Variable]:
        """Returns those of `domain_variables` that lie in the trunk.

        They have the same shapes in every domain; what reads the domain's modalities
        or gives its classes does not.
        """
        return [
            variable
            for layer in self.trunk_layers
            for variable in layer.domain_variables(domain)
        ]

    @property
    def shared_variables(self) -> list[keras.Variable]:
        """The trainable variables that every domain reads."""
        own = {
            id(variable)
            for domain in range(self.num_domains)
            for variable in self.domain_variables(domain)
        }
        return [
            variable for variable in self.trainable_variables if id(variable) not in own
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
        """Returns the model that `get_config` described."""
        return cls(**{**config, "dtype": _policy(config.get("dtype"))})


def logits_of_loss(logits: tf.Tensor) -> tf.Tensor:
    """Returns logits in float32, or as they are in float64.

    A softmax over half-precision logits would lose the loss's small gradients.
    """
    return logits if logits.dtype == tf.float64 else tf.cast(logits, tf.float32)


def _policy(dtype: Any) -> Any:
    """Returns a dtype policy from what JSON makes of it."""
    if isinstance(dtype, dict):
        return keras.saving.deserialize_keras_object(dtype)
    return dtype
