"""The plan and the manifests that a run trains on, and checks of them."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Iterator, Sequence

import tensorflow as tf
from absl import logging

from u2net_tf import locks
from u2net_tf.config.data import DataConfig
from u2net_tf.config.training import RunningConfig
from u2net_tf.errors import InputError
from u2net_tf.models.run_state import RunState
from u2net_tf.models.spec import ModelSpec, check_patches
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.plan_file import load_plan
from u2net_tf.shards.manifest import Manifest, load_converted
from u2net_tf.training.strategy import workers_before_strategy
from u2net_tf.wording import quantity


@contextlib.contextmanager
def run_in_progress(config: RunningConfig, names: Sequence[str]) -> Iterator[None]:
    """Locks the folder of a run, and keeps its shards from being converted.

    With several workers, the chief locks the folder of the run for all of them. Any
    part of a run may exchange values with them, even the creation of variables, so
    this also reports that one of them has ended.

    Args:
      config: settings of the run.
      names: names of the domains; all if empty.

    Raises:
      InputError: if there is no plan, a conversion is running or another process writes
        to the folder.
      StoppedError: see `Workers.reporting_lost`.
    """
    folder = pathlib.Path(config.data.data_dir)
    with contextlib.ExitStack() as stack:
        workers = workers_before_strategy(config.compute.distribution)
        if workers.is_chief:
            stack.enter_context(locks.locked(config.run.model_dir))
        for name in load_plan(folder / "plan.json").select(names).names:
            stack.enter_context(locks.shared(folder / name))
        stack.enter_context(workers.reporting_lost())
        yield


def load_training_data(
    data: DataConfig, names: Sequence[str]
) -> tuple[Plan, list[Manifest]]:
    """Loads the plan and the manifests of the domains to train.

    Args:
      data: settings with the folder of the shards and the fold.
      names: names of the domains; all if empty.

    Returns:
      The plan of these domains, with the splits of the fold and without the cases that
      `convert` skipped, and their manifests.

    Raises:
      InputError: see `load_converted`, `Plan.with_fold` and `without_skipped`.
    """
    plan, manifests = load_converted(data.data_dir, tuple(names))
    return without_skipped(plan.with_fold(data.fold), manifests), manifests


def without_skipped(plan: Plan, manifests: Sequence[Manifest]) -> Plan:
    """Returns the plan without the cases that `convert` skipped.

    Raises:
      InputError: if all validation cases of a domain were skipped.
    """
    chosen = []
    for domain, manifest in zip(plan.domains, manifests, strict=True):
        kept = dataclasses.replace(
            domain,
            train=_converted(domain.train, manifest),
            validation=_converted(domain.validation, manifest),
            test=_converted(domain.test, manifest),
        )
        if domain.validation and not kept.validation:
            raise InputError(
                f"{domain.name}: validation cases",
                expected="at least one that was converted",
                received=f"{', '.join(domain.validation)}, which were skipped",
            )
        chosen.append(kept)
    return dataclasses.replace(plan, domains=tuple(chosen))


def _converted(cases: Sequence[str], manifest: Manifest) -> tuple[str, ...]:
    return tuple(case for case in cases if case not in manifest.skipped)


def check_sizes(
    spec: ModelSpec,
    domains: Sequence[Domain],
    data: DataConfig,
    strategy: tf.distribute.Strategy,
) -> None:
    """Checks patch sizes against the network and batch sizes against the devices.

    Args:
      spec: specification of the network.
      domains: the domains of its plan that are trained.
      data: settings with the batch size.
      strategy: distribution strategy.

    Raises:
      InputError: if a size is not divisible as required.
    """
    check_patches(spec, [domain.name for domain in domains])
    num_replicas = strategy.num_replicas_in_sync
    for domain in domains:
        size = data.batch_size or domain.batch_size
        if size % num_replicas:
            raise InputError(
                "`batch_size`",
                expected=f"a multiple of the {num_replicas} devices",
                received=f"{size} for {domain.name}",
                hint="`distribution`=none trains on one device",
            )


def hash_records(plan: Plan, manifests: Sequence[Manifest]) -> str:
    """Returns a hash of the training records and of their order on disk.

    Args:
      plan: plan of the trained domains.
      manifests: manifests of their shards.
    """
    rows = [
        [domain.name, entry.shard, entry.case, entry.checksum]
        for domain, manifest in zip(plan.domains, manifests, strict=True)
        for entry in manifest.entries(domain.train)
    ]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def warn_if_changed(
    saved: RunState, records: str, num_replicas: int, *, data_dir: str
) -> None:
    """Logs a warning if a resumed run cannot give the result of an uninterrupted one.

    Args:
      saved: state of the run at the last checkpoint.
      records: result of `hash_records` now.
      num_replicas: number of devices now.
      data_dir: folder of the shards.
    """
    changes = []
    if saved.records not in (None, records):
        changes.append(f"{data_dir}: the shards have changed since the last checkpoint")
    if saved.num_replicas not in (None, num_replicas):
        changes.append(
            f"resuming on {quantity(num_replicas, 'device')}, but the last checkpoint "
            f"was trained on {saved.num_replicas}"
        )
    for change in changes:
        logging.warning(
            "%s, so the result will differ from that of an uninterrupted run", change
        )
