"""Interface of networks for `models`, `training` and `inference`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from u2net_tf.plan.sharp_grid import Place

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class DomainModel(Protocol):
    """A `keras.Model` for several domains, each with its own variables.

    The interface that other packages use, the same for every architecture. `domain` is
    the index of a domain, a Python integer from 0 to `num_domains` - 1.
    """

    @property
    def num_domains(self) -> int:
        """Number of domains."""

    @property
    def num_modalities(self) -> tuple[int, ...]:
        """Number of input channels of each domain."""

    @property
    def num_classes(self) -> tuple[int, ...]:
        """Number of classes of each domain, including the background."""

    @property
    def dtype_policy(self) -> keras.DTypePolicy:
        """Dtype policy of the `keras.Model`; its name is the precision."""

    @property
    def compute_dtype(self) -> str:
        """Dtype of the computation; float16 needs loss scaling."""

    @property
    def gradient_checkpointing(self) -> str:
        """Activations that are recomputed in the backward pass: "none" or "blocks"."""

    @property
    def trainable_variables(self) -> Sequence[keras.Variable]:
        """The trainable variables of all domains, including shared ones."""

    @property
    def shared_variables(self) -> Sequence[keras.Variable]:
        """The trainable variables that every domain reads."""

    def domain_variables(self, domain: int) -> Sequence[keras.Variable]:
        """Returns the trainable variables that only `domain` reads."""

    def trunk_domain_variables(self, domain: int) -> Sequence[keras.Variable]:
        """Returns the `domain_variables` whose shapes are the same in every domain.

        They are in the same order, so that a domain can be initialized from another.
        """

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns path -> variable; checkpoints store variables under these paths."""

    def build(self) -> None:
        """Creates the variables of all domains without running the network."""

    def __call__(
        self, inputs: tf.Tensor, *, domain: int, training: bool | None = None
    ) -> tf.Tensor:
        """Computes the logits of one domain.

        Args:
          inputs: Tensor of shape (N, D, H, W, M), with the M modalities of `domain`.
          domain: Index of the domain.
          training: Whether the logits are for a training step.

        Returns:
          Logits of shape (N, D, H, W, K), with the K classes of `domain`; float32,
          or float64 for a float64 model.
        """


class MultiHeadModel(DomainModel, Protocol):
    """A `DomainModel` with several heads and gates, all of which may enter the loss."""

    def head_and_gate_logits(
        self,
        inputs: tf.Tensor,
        *,
        domain: int,
        heads: Sequence[Place],
        gates: Sequence[Place] = (),
        dropout_seed: tf.Tensor | None = None,
    ) -> tuple[Mapping[Place, tf.Tensor], Mapping[Place, tf.Tensor]]:
        """Computes the full-resolution logits of heads, and the logits of gates.

        Args:
          inputs: See `__call__`.
          domain: Index of the domain.
          heads: Level and column of the node that each head reads.
          gates: Level and column of the node that each gate reads.
          dropout_seed: (2,) integers, seed of the gates' dropout; None for no dropout.

        Returns:
          Place of each head -> its logits, as `__call__` returns them; place of each
          gate -> (N, K - 1) logits of the presence of each foreground class in a
          patch.
        """

    def gated_logits(
        self, inputs: tf.Tensor, *, domain: int, threshold: float
    ) -> tf.Tensor:
        """Computes the logits, suppressing classes that a gate finds absent.

        Args:
          inputs: See `__call__`.
          domain: Index of the domain.
          threshold: Minimum probability of presence for a class to pass a gate.
        """
