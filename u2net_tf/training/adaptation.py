"""Adds a domain to a trained network; the old domains stay bit-identical.

The shared variables are frozen; only the new domain's stem, head, deep supervision,
adapters and norms are added and trained.
"""

from __future__ import annotations

import pathlib
import time
from typing import NamedTuple

import keras
from absl import logging

from u2net_tf.config.training import AdaptConfig
from u2net_tf.errors import InputError
from u2net_tf.models import checksums, composition
from u2net_tf.models.checkpoint_reading import CheckpointReader
from u2net_tf.models.loading import load_network, require_no_inner_models
from u2net_tf.models.seen_cases import seen_domains
from u2net_tf.models.variables import identical
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.progress import Progress, silent
from u2net_tf.training import runs
from u2net_tf.training.loop import Run
from u2net_tf.training.step import Trainer
from u2net_tf.training.stop_requests import StopRequests
from u2net_tf.training.strategy import make_strategy
from u2net_tf.training.training_data import (
    check_sizes,
    load_training_data,
    run_in_progress,
)
from u2net_tf.wording import quantity


class AdaptResult(NamedTuple):
    """Result of `adapt`.

    Attributes:
      run: the training run of the new domain.
      checksums: table of the checksums of each old domain, in the parent and in the
        saved model; they are equal. Empty on workers that did not write the model.
    """

    run: Run
    checksums: str


def adapt(
    config: AdaptConfig,
    *,
    progress: Progress = silent,
    stop: StopRequests | None = None,
) -> AdaptResult:
    """Adds a domain to a model and trains only the domain's variables.

    Patch size and resizing of patches are those of the parent model.

    Args:
      config: settings of the run.
      progress: see `Run`.
      stop: requests to stop early; if None, only `max_minutes`.

    Raises:
      InputError: if model, data and settings are inconsistent, the folder has no model
        but subfolders have, or another process writes to the folder or converts the
        data.
      StoppedEarlyError: if the run was asked to stop.
      StoppedError: if the loss is not finite, an old domain has changed or another
        worker has ended.

    Reference: 3D U²-Net, section 3, "Adapting to a new domain".
    """
    _require_outside(config.from_, config.run.model_dir)
    with run_in_progress(config, [config.domain]):
        return _adapt(config, progress, stop or StopRequests(config.run.max_minutes))


def _adapt(config: AdaptConfig, progress: Progress, stop: StopRequests) -> AdaptResult:
    started = time.monotonic()
    require_no_inner_models(config.run.model_dir)
    strategy = make_strategy(config.compute.distribution)
    parent_spec, parent, checkpoint = load_network(config.from_)
    parent_state = CheckpointReader(checkpoint).state()
    plan, manifests = load_training_data(config.data, [config.domain])
    (new,) = plan.domains
    config = config.with_changes(
        patch_size=parent_spec.patch_size, resize_method=parent_spec.resize_method
    )
    spec = composition.with_domain(parent_spec, new)
    losses = runs.loss_options(config.loss, spec, [new])
    check_sizes(spec, [new], config.data, strategy)
    keras.utils.set_random_seed(config.data.seed)
    options = runs.network_options(config.compute)
    trainer_options = runs.trainer_options(config, strategy)
    with strategy.scope():
        spec, network = composition.extend(
            parent_spec, parent, new, init=config.init, **options
        )
    before = checksums.of_domains(parent_spec, parent)
    old = quantity(len(before), "domain")
    logging.info("added %s to the %s of %s", new.name, old, checkpoint)
    trainer = Trainer(
        network,
        domains=[len(before)],
        train_shared=False,
        **losses,
        **trainer_options,
    )
    invariants = {"init": config.init}
    run = Run(
        trainer, spec, manifests, config, invariants, progress=progress, stop=stop
    )
    if run.restore():
        _require_parent(run, parent, network, checkpoint)
    else:
        # The parent may have been initialized with a model that had the domain.
        of_new = [s for s in parent_state.initial_cases if s.domain == new.name]
        others = seen_domains([(parent_spec, parent_state)], spec)
        run.initial_cases = (*of_new, *others)
    runs.finish(run, config, started=started)
    if not run.workers.is_chief:
        return AdaptResult(run, "")
    saved_spec, saved, _ = load_network(run.model_dir)
    after = checksums.of_domains(saved_spec, saved)
    return AdaptResult(run, checksums.compare(before, after))


def _require_outside(parent_dir: str, model_dir: str) -> None:
    parent = pathlib.Path(parent_dir).resolve()
    if pathlib.Path(model_dir).resolve().is_relative_to(parent):
        raise InputError(
            "`model_dir`",
            expected="a folder outside the `from` folder",
            received=model_dir,
        )


def _require_parent(
    run: Run, parent: DomainModel, network: DomainModel, checkpoint: str
) -> None:
    """Checks that a restored network has the variables of its parent."""
    pairs = [(parent.shared_variables, network.shared_variables)]
    for index in range(parent.num_domains):
        pairs.append((parent.domain_variables(index), network.domain_variables(index)))
    if not all(identical(one, other) for one, other in pairs):
        raise InputError(
            "`from`",
            expected=f"the parent of the model in {run.model_dir}",
            received=f"a different model, {checkpoint}",
        )
