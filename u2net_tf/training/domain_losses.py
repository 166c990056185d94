"""Loss of one head: what it consists of in each domain."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import tensorflow as tf
from absl import logging

from u2net_tf.config.training import LossConfig, RunningConfig
from u2net_tf.errors import InputError
from u2net_tf.losses import region_loss, segmentation_loss
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.wording import first_few


@dataclasses.dataclass(frozen=True)
class DomainLoss:
    """The loss of a head in one domain.

    Attributes:
      ignore_index: label of voxels without annotation; None if there are none.
      regions: indices of the classes of each region that enters the loss.
      region_weight: weight of the loss of the regions, which is added to that of the
        classes.
    """

    ignore_index: int | None = None
    regions: tuple[tuple[int, ...], ...] = ()
    region_weight: float = 0.0

    def __call__(
        self, labels: tf.Tensor, logits: tf.Tensor, *, detach_factor: bool
    ) -> tf.Tensor:
        """Returns the loss, a scalar.

        Args:
          labels: (B, z, y, x).
          logits: (B, z, y, x, K).
          detach_factor: see `losses.focal`.
        """
        loss = segmentation_loss(
            labels,
            logits,
            detach_factor=detach_factor,
            ignore_index=self.ignore_index,
        )
        if self.regions:
            loss += self.region_weight * region_loss(
                labels,
                logits,
                self.regions,
                detach_factor=detach_factor,
                ignore_index=self.ignore_index,
            )
        return loss


def domain_losses(
    loss: LossConfig, spec: ModelSpec, trained: Sequence[Domain]
) -> tuple[DomainLoss, ...]:
    """Returns the loss of each domain of a network.

    Args:
      loss: settings of the loss.
      spec: specification of the network.
      trained: the domains to train.

    Raises:
      InputError: see `require_regions`.
    """
    require_regions(loss, trained)
    weight = loss.region_loss_weight
    if weight:
        names = [f"{d.name}/{region.name}" for d in trained for region in d.regions]
        text = "regions in the loss, with weight %g: %s"
        logging.info(text, weight, ", ".join(names))
    return tuple(
        DomainLoss(
            domain.ignore_index,
            tuple(domain.region_classes.values()) if weight else (),
            weight,
        )
        for domain in spec.plan.domains
    )


def require_regions(loss: LossConfig, trained: Sequence[Domain]) -> None:
    """Raises InputError if regions have a weight, but no trained domain has regions."""
    if loss.region_loss_weight and not any(domain.regions for domain in trained):
        raise InputError(
            "`region_loss_weight`",
            expected="0, as the plan has no regions for "
            + first_few([domain.name for domain in trained]),
            received=loss.region_loss_weight,
        )


def warn_of_changed_regions(
    config: RunningConfig, before: Plan | None, trained: Plan
) -> None:
    """Logs a warning if a resumed run has other regions in its loss than before.

    Their names and their order do not matter.

    Args:
      config: settings of the run.
      before: plan of the last checkpoint; None if there is no checkpoint.
      trained: plan of the trained domains now.
    """
    if before is None or not config.loss.region_loss_weight:
        return
    changed = [
        domain.name
        for domain in trained.domains
        if _sorted_regions(domain) != _sorted_regions(before.domain(domain.name))
    ]
    if changed:
        logging.warning(
            "%s: the regions of %s have changed since the last checkpoint, so the "
            "result will differ from that of an uninterrupted run",
            pathlib.Path(config.data.data_dir) / "plan.json",
            first_few(changed),
        )


def _sorted_regions(domain: Domain) -> list[tuple[int, ...]]:
    return sorted(domain.region_classes.values())
