"""Loss of the gates of a UNet#, and the seed of their dropout."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from u2net_tf.config.training import LossConfig
from u2net_tf.errors import InputError
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.sharp_grid import Place, gate_places

# With 1, the segmentation was learned much more slowly (docs/results.md, "Gates").
_DEFAULT_WEIGHT = 0.1


@dataclasses.dataclass(frozen=True)
class GateLoss:
    """Loss of the gates, which is added to that of the heads.

    Attributes:
      places: nodes of the trained gates; empty if the network has no gates or the
        weight is 0.
      weight: weight of the mean of their losses.
    """

    places: tuple[Place, ...] = ()
    weight: float = 0.0

    def __call__(
        self,
        labels: tf.Tensor,
        presence: Sequence[tf.Tensor],
        *,
        ignore_index: int | None,
    ) -> tf.Tensor:
        """Returns the weighted mean of the gates' losses.

        Args:
          labels: (B, z, y, x).
          presence: (B, K - 1) presence logits of each gate.
          ignore_index: see `presence_loss`.
        """
        losses = [
            presence_loss(labels, logits, ignore_index=ignore_index)
            for logits in presence
        ]
        return self.weight * tf.add_n(losses) / len(losses)

    def dropout_keys(self, seed: int, domains: Sequence[int]) -> dict[int, tf.Tensor]:
        """Returns domain index -> key for `dropout_seed`; empty without gates.

        Args:
          seed: seed of the run.
          domains: indices of the domains.
        """
        if not self.places:
            return {}
        return {domain: tf.constant([seed, domain], tf.int64) for domain in domains}


NO_GATES = GateLoss()


def presence_loss(
    labels: tf.Tensor, logits: tf.Tensor, *, ignore_index: int | None = None
) -> tf.Tensor:
    """Computes the mean binary cross-entropy of "is this class in this patch?".

    The mean is over patches and foreground classes, except where the answer is unknown:
    a patch that has voxels without annotation may contain any class.

    Args:
      labels: integer tensor of shape (N, D, H, W), values 0 to K - 1 or `ignore_index`.
      logits: tensor of shape (N, K - 1), one for each foreground class, before the
        sigmoid.
      ignore_index: label of voxels without annotation; None if there are none.

    Returns:
      A scalar, float32 (float64 for float64 logits); 0 if all answers are unknown.
    """
    if logits.dtype != tf.float64:
        logits = tf.cast(logits, tf.float32)
    labels = tf.reshape(tf.cast(labels, tf.int32), [tf.shape(labels)[0], -1])
    # Class by class: together they would need the memory of one label map per class.
    present = [
        tf.reduce_any(tf.equal(labels, index), axis=1)
        for index in range(1, logits.shape[-1] + 1)
    ]
    targets = tf.stack(present, axis=1)
    losses = tf.nn.sigmoid_cross_entropy_with_logits(
        labels=tf.cast(targets, logits.dtype), logits=logits
    )
    if ignore_index is None:
        return tf.reduce_mean(losses)
    complete = tf.reduce_all(tf.not_equal(labels, ignore_index), axis=1)
    known = tf.cast(targets | complete[:, tf.newaxis], losses.dtype)
    return tf.math.divide_no_nan(tf.reduce_sum(losses * known), tf.reduce_sum(known))


def gate_loss(loss: LossConfig, spec: ModelSpec) -> GateLoss:
    """Returns the loss of a network's gates.

    Args:
      loss: settings of the loss.
      spec: specification of the network.

    Raises:
      InputError: if a weight is set, but the network has no gates.
    """
    weight = loss.gate_loss_weight
    if spec.depth is None or spec.gates == "none":
        if weight is not None:
            raise InputError(
                "`gate_loss_weight`",
                expected="none, as the network has no gates",
                received=weight,
            )
        return NO_GATES
    weight = _DEFAULT_WEIGHT if weight is None else weight
    places = gate_places(spec.gates, spec.depth, spec.deep_supervision)
    return GateLoss(places if weight else (), weight)


def dropout_seed(key: tf.Tensor, num_steps: tf.Tensor) -> tf.Tensor:
    """Returns the seed of a step of a domain, different in each replica.

    Args:
      key: key of the domain; see `GateLoss.dropout_keys`.
      num_steps: int64, number of earlier steps of the domain.
    """
    replica = tf.distribute.get_replica_context().replica_id_in_sync_group
    seed = tf.random.fold_in(key, tf.cast(num_steps, key.dtype), alg="philox")
    return tf.random.fold_in(seed, tf.cast(replica, key.dtype), alg="philox")
