"""The shards that a run reads for training and validation."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from u2net_tf.config.training import RunningConfig
from u2net_tf.plan.domains import Plan
from u2net_tf.shards.manifest import Manifest
from u2net_tf.shards.reading import CaseShards


class RunShards:
    """The shards that a run reads; all are opened on first access.

    Args:
      plan: plan of the trained domains.
      manifests: manifests of their shards.
      config: settings of the run.

    Attributes:
      manifests: manifests of the shards.

    Raises:
      InputError: see `CaseShards`, when the shards are opened.
    """

    def __init__(
        self, plan: Plan, manifests: Sequence[Manifest], config: RunningConfig
    ):
        self.manifests = manifests
        self._domains = list(zip(plan.domains, manifests, strict=True))
        self._config = config

    @property
    def trained(self) -> list[CaseShards]:
        """Shards of the training cases of each domain."""
        return self._opened[0]

    @property
    def monitored(self) -> list[CaseShards]:
        """Shards of the cases for validation; empty without validation."""
        return self._opened[1]

    def check_unchanged(self) -> None:
        """Checks that the shards have not changed since the run started.

        Raises:
          InputError: if a shard has changed; names it, and the case whose record has
            changed.
        """
        for shards in (*self.trained, *self.monitored):
            shards.check_unchanged()

    @functools.cached_property
    def _opened(self) -> tuple[list[CaseShards], list[CaseShards]]:
        data_dir = self._config.data.data_dir
        trained, monitored = [], []
        for domain, manifest in self._domains:
            trained.append(CaseShards(data_dir, domain, manifest, domain.train))
            if self._config.run.validate_every_epochs:
                cases = domain.cases(domain.monitored_split)
                monitored.append(CaseShards(data_dir, domain, manifest, cases))
        return trained, monitored
