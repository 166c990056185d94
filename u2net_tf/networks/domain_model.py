"""The interface of a network to `models`, `training` and `inference`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Protocol

from u2net_tf.plan.sharp_grid import Place

if TYPE_CHECKING:
    import keras
    import tensorflow as tf


class DomainModel(Protocol):
    """A `keras.Model` of several domains, each with variables of its own.

    What other packages use of a network, whatever its architecture. `domain` is the
    index of a domain, a Python integer from 0 to `num_domains` - 1.
    """

    @property
    def num_domains(self) -> int:
        """Number of domains."""

    @property
    def num_modalities(self) -> tuple[int, ...]:
        """Input channels of each domain."""

    @property
    def num_classes(self) -> tuple[int, ...]:
        """Classes of each domain, background included."""

    @property
    def dtype_policy(self) -> keras.DTypePolicy:
        """As of `keras.Model`; its name is the precision."""

    @property
    def compute_dtype(self) -> str:
        """As of `keras.Model`; float16 needs the loss to be scaled."""

    @property
    def trainable_variables(self) -> Sequence[keras.Variable]:
        """The variables of all domains, shared ones included."""

    @property
    def shared_variables(self) -> Sequence[keras.Variable]:
        """The trainable variables that every domain reads."""

    def domain_variables(self, domain: int) -> Sequence[keras.Variable]:
        """Returns the trainable variables that only `domain` reads."""

    def trunk_domain_variables(self, domain: int) -> Sequence[keras.Variable]:
        """Returns the `domain_variables` whose shapes are the same in every domain.

        In the same order, so that a new domain can start from another one's values.
        """

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns path -> variable; checkpoints hold variables under these paths."""

    def build(self) -> None:
        """Creates the variables of all domains; computes nothing."""

    def __call__(
        self, inputs: tf.Tensor, *, domain: int, training: bool | None = None
    ) -> tf.Tensor:
        """Computes the logits of one domain.

        Args:
          inputs: tensor of shape (N, D, H, W, M), M the modalities of `domain`.
          domain: index of the domain.
          training: whether the logits are for a training step.

        Returns:
          Logits of shape (N, D, H, W, K), K the classes of `domain`; float32, or
          float64 for a float64 model.
        """


class MultiHeadModel(DomainModel, Protocol):
    """A `DomainModel` with several heads, of which the loss is made, and gates."""

    def head_and_gate_logits(
        self,
        inputs: tf.Tensor,
        *,
        domain: int,
        heads: Sequence[Place],
        gates: Sequence[Place] = (),
        dropout_seed: tf.Tensor | None = None,
    ) -> tuple[Mapping[Place, tf.Tensor], Mapping[Place, tf.Tensor]]:
        """Computes the logits of several heads of one domain, at full size, and gates.

        Args:
          inputs: as of `__call__`.
          domain: index of the domain.
          heads: level and column of the node that each head reads.
          gates: level and column of the node that each gate reads.
          dropout_seed: (2,) integers for the dropout of the gates; None for none.

        Returns:
          Place of a head -> its logits, as `__call__` returns them; place of a gate ->
          (N, K - 1), logits of the presence of each foreground class in a patch.
        """

    def gated_logits(
        self, inputs: tf.Tensor, *, domain: int, threshold: float
    ) -> tf.Tensor:
        """As `__call__`; a class that a gate does not find in a patch cannot win.

        Args:
          inputs: as of `__call__`.
          domain: index of the domain.
          threshold: the probability of presence from which on a class passes a gate.
        """
