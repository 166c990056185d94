"""Trains one network, or one per domain: from settings to a finished run."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from u2net_tf.config.compute import ComputeConfig
from u2net_tf.config.training import LossConfig, RunningConfig, TrainConfig
from u2net_tf.models.build import build_network
from u2net_tf.models.checkpoint_paths import checkpoint_folder, has_model
from u2net_tf.models.initial_weights import (
    copy_initial_weights,
    require_initial_weights,
    source_of_weights,
)
from u2net_tf.models.loading import require_no_inner_models, require_no_model
from u2net_tf.models.spec import ModelSpec, common_pools
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.progress import Progress, silent
from u2net_tf.shards.manifest import load_converted
from u2net_tf.training import schedule
from u2net_tf.training.domain_losses import domain_losses, require_regions
from u2net_tf.training.flags_file import write_flags
from u2net_tf.training.gate_loss import gate_loss
from u2net_tf.training.head_weights import head_weights
from u2net_tf.training.loop import Run
from u2net_tf.training.step import Trainer
from u2net_tf.training.stop_requests import StopRequests
from u2net_tf.training.strategy import (
    compiles_steps,
    make_strategy,
    module_implementation,
)
from u2net_tf.training.training_data import (
    check_sizes,
    load_training_data,
    run_in_progress,
)
from u2net_tf.wording import quantity


def train(
    config: TrainConfig,
    *,
    progress: Progress = silent,
    stop: StopRequests | None = None,
) -> Run:
    """Trains a network, or resumes from its last checkpoint.

    Args:
      config: settings of the run.
      progress: see `Run`.
      stop: requests to stop early; if None, only `max_minutes`.

    Raises:
      InputError: if data, settings or an older checkpoint are inconsistent, the folder
        has no model but subfolders have, or another process writes to the folder or
        converts the data.
      StoppedEarlyError: if the run was asked to stop.
      StoppedError: if the loss is not finite or another worker has ended.
    """
    with run_in_progress(config, config.domains):
        return _train(config, progress, stop or StopRequests(config.run.max_minutes))


def _train(config: TrainConfig, progress: Progress, stop: StopRequests) -> Run:
    started = time.monotonic()
    require_no_inner_models(config.run.model_dir)
    strategy = make_strategy(config.compute.distribution)
    data = config.data
    plan, manifests = load_training_data(data, config.domains)
    spec = _make_spec(config, plan)
    losses = loss_options(config.loss, spec, plan.domains)
    check_sizes(spec, plan.domains, data, strategy)
    arguments = trainer_options(config, strategy)
    keras.utils.set_random_seed(data.seed)
    with strategy.scope():
        model = build_network(spec, **network_options(config.compute))
    trainer = Trainer(model, **losses, **arguments)
    invariants = {"init_from": "a model" if config.init_from else "not given"}
    run = Run(
        trainer, spec, manifests, config, invariants, progress=progress, stop=stop
    )
    if not run.restore() and config.init_from:
        source = source_of_weights(config.init_from, plan.names)
        run.initial_cases = copy_initial_weights(source, spec, model)
    finish(run, config, started=started)
    return run


def _make_spec(config: TrainConfig, plan: Plan) -> ModelSpec:
    options = config.network.options()
    return ModelSpec(
        plan=plan,
        pools=common_pools(plan, config.network.pools, depth=options["depth"]),
        patch_size=config.data.patch_size,
        resize_method=config.data.resize_method,
        **options,
    )


def network_options(compute: ComputeConfig) -> dict[str, Any]:
    """Returns the arguments of `build_network` that `compute` determines."""
    return {
        "dtype": compute.precision,
        "gradient_checkpointing": compute.gradient_checkpointing,
    }


def loss_options(
    loss: LossConfig, spec: ModelSpec, trained: Sequence[Domain]
) -> dict[str, Any]:
    """Returns the arguments of `Trainer` that the loss of a network determines.

    Args:
      loss: settings of the loss.
      spec: specification of the network.
      trained: the trained domains.

    Raises:
      InputError: see `head_weights`, `gate_loss` and `domain_losses`.
    """
    return {
        "head_weights": head_weights(loss, spec),
        "gate_loss": gate_loss(loss, spec),
        "domain_losses": domain_losses(loss, spec, trained),
    }


def trainer_options(
    config: RunningConfig, strategy: tf.distribute.Strategy
) -> dict[str, Any]:
    """Returns the arguments of `Trainer` that loss, optimizer and devices determine.

    Raises:
      InputError: see `module_implementation`.
    """
    compute = config.compute
    jit_compile = compiles_steps(compute.jit_compile)
    return {
        "strategy": strategy,
        "jit_compile": jit_compile,
        "implementation": module_implementation(
            compute.triton_kernels, jit_compile=jit_compile
        ),
        "learning_rate": config.optimizer.learning_rate,
        "weight_decay": config.optimizer.weight_decay,
        "weight_ema_decay": config.optimizer.weight_ema_decay,
        "detach_focal_factor": config.loss.detach_focal_factor,
        "seed": config.data.seed,
    }


def train_independently(
    config: TrainConfig,
    *,
    progress: Progress = silent,
    stop: StopRequests | None = None,
    on_finished: Callable[[Run], None] | None = None,
) -> None:
    """Trains a separate model for each domain, one after the other.

    Each is the model that `train` would train on that domain alone, in the folder
    MODEL_DIR/DOMAIN.

    Args:
      config: see `train`; `model_dir` is the parent of the models' folders.
      progress: see `Run`.
      stop: see `train`; `max_minutes` limits the time of all models together.
      on_finished: called with each finished run.

    Raises:
      InputError: see `train`; also if the folder itself contains a model. Sizes, names
        and initial weights are checked for all domains before the first is trained.
      StoppedEarlyError: see `train`.
      StoppedError: see `train`.
    """
    stop = stop or StopRequests(config.run.max_minutes)
    with run_in_progress(config, config.domains):
        _train_independently(config, progress, on_finished, stop)


def _train_independently(
    config: TrainConfig,
    progress: Progress,
    on_finished: Callable[[Run], None] | None,
    stop: StopRequests,
) -> None:
    strategy = make_strategy(config.compute.distribution)
    plan, _ = load_converted(config.data.data_dir, config.domains)
    plan = plan.with_fold(config.data.fold)
    root = pathlib.Path(config.run.model_dir)
    require_regions(config.loss, plan.domains)
    # A model there would otherwise be taken for the model of all domains.
    require_no_model(root)
    for domain in plan.domains:
        spec = _make_spec(config, dataclasses.replace(plan, domains=(domain,)))
        check_sizes(spec, spec.plan.domains, config.data, strategy)
        checkpoint_folder(root / domain.name)
        # A run that is resumed does not need its initial weights any more.
        if config.init_from and not has_model(root / domain.name):
            require_initial_weights(config.init_from, spec)
    for number, domain in enumerate(plan.domains, start=1):
        logging.info("model %d of %d: %s", number, len(plan.domains), domain.name)
        weight = config.loss.region_loss_weight if domain.regions else 0.0
        run = train(
            config.with_changes(
                independent=False,
                domains=(domain.name,),
                model_dir=str(root / domain.name),
                region_loss_weight=weight,
            ),
            progress=progress,
            stop=stop,
        )
        if on_finished is not None:
            on_finished(run)
        # Otherwise networks and steps of earlier models would stay in memory.
        del run
        keras.backend.clear_session()


def finish(run: Run, config: RunningConfig, *, started: float) -> None:
    """Trains a run to its end.

    Args:
      run: the restored run; sets its `minutes`.
      config: settings of the run, written to `flags.txt`, a flagfile to repeat it.
      started: `time.monotonic()` at the start.
    """
    run.log_devices()
    run.open_input()
    # Written only once it is certain that the folder belongs to this model.
    if run.workers.is_chief:
        write_flags(run, config)
    if not run.has_ended:
        schedule.warn_of_unused_settings(config.schedule)
    run.train()
    run.minutes = (time.monotonic() - started) / 60


def summary(run: Run) -> str:
    """Returns one line on how a run ended and what it wrote."""
    folder = run.model_dir
    if not run.workers.is_chief:
        own, chief = (run.workers.cluster.name(k) for k in (run.workers.index, 0))
        return f"{own}: finished; {chief} has written {folder}"
    # A polynomial is 0 after `max_epochs`.
    by_plateaus = run.state.finished and run.state.learning_rate > 0
    reason = "`min_learning_rate`" if by_plateaus else "`max_epochs`"
    return (
        f"{folder}: {quantity(run.step, 'step')} in "
        f"{quantity(run.state.epochs, 'epoch')} (ended by {reason}; "
        f"{run.minutes:.1f} min in this run). Checkpoints in {folder / 'checkpoints'}, "
        f"curves in {folder / 'training.csv'} and "
        f"tensorboard --logdir={folder / 'tensorboard'}"
    )
