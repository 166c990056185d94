"""From settings to a run: reads the data's plan, builds the network, trains."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from u2net_tf import files
from u2net_tf.config import flagfile
from u2net_tf.config.compute import ComputeConfig
from u2net_tf.config.data import DataConfig
from u2net_tf.config.training import RunningConfig, TrainConfig
from u2net_tf.errors import InputError
from u2net_tf.models.checkpoints import check_free, checkpoint_folder
from u2net_tf.models.spec import ModelSpec, build_network, check_patches, common_pools
from u2net_tf.plan.domains import SPLITS, Domain, Plan
from u2net_tf.progress import Progress, silent
from u2net_tf.shards.manifest import Manifest, load_converted
from u2net_tf.training.loop import Run
from u2net_tf.training.step import Trainer
from u2net_tf.wording import quantity


def train(config: TrainConfig, *, progress: Progress = silent) -> Run:
    """Trains a network, or goes on where its last checkpoint stands.

    Args:
      config: what to train and how.
      progress: as for `Run`.

    Raises:
      InputError: if data, settings or an older checkpoint contradict each other.
      StoppedError: if the loss is not finite.
    """
    started = time.monotonic()
    data = config.data
    plan, manifests = load_training_data(data, config.domains)
    spec = ModelSpec(
        plan=plan,
        pools=common_pools(plan, config.network.pools),
        patch_size=data.patch_size,
        resize_method=data.resize_method,
        **config.network.options(),
    )
    strategy = make_strategy(config.compute.distribution)
    check_sizes(spec, plan.domains, data, strategy)
    keras.utils.set_random_seed(data.seed)
    with strategy.scope():
        model = build_network(spec, **network_options(config.compute))
    trainer = Trainer(model, strategy=strategy, **trainer_options(config))
    run = Run(trainer, spec, manifests, config, progress=progress)
    run.restore()
    finish(run, config, started=started)
    return run


def network_options(compute: ComputeConfig) -> dict[str, Any]:
    """Arguments of `build_network` about how it is computed."""
    return {
        "dtype": compute.precision,
        "gradient_checkpointing": compute.gradient_checkpointing,
    }


def trainer_options(config: RunningConfig) -> dict[str, Any]:
    """Arguments of the `Trainer` about loss and optimizer."""
    return {
        "learning_rate": config.optimizer.learning_rate,
        "weight_decay": config.optimizer.weight_decay,
        "detach_focal_factor": config.loss.detach_focal_factor,
    }


def train_independently(
    config: TrainConfig,
    *,
    progress: Progress = silent,
    on_finished: Callable[[Run], None] | None = None,
) -> None:
    """Trains a model of its own for each domain, one after the other.

    Each is what `train` makes of that domain alone, in the folder MODEL_DIR/DOMAIN.

    Args:
      config: as for `train`; `model_dir` is the folder of the models' folders.
      progress: as for `Run`.
      on_finished: called with the run of each domain when it is finished.

    Raises:
      InputError: as for `train`, or if the folder itself holds a model. Sizes and
        names that do not fit any domain are found before the first is trained.
      StoppedError: as for `train`.
    """
    plan, _ = load_converted(config.data.data_dir, config.domains)
    plan = plan.with_fold(config.data.fold)
    root = pathlib.Path(config.run.model_dir)
    # It would be taken for the model of all of them.
    check_free(root)
    strategy = make_strategy(config.compute.distribution)
    for domain in plan.domains:
        alone = dataclasses.replace(plan, domains=(domain,))
        spec = ModelSpec(
            plan=alone,
            pools=common_pools(alone, config.network.pools),
            patch_size=config.data.patch_size,
        )
        check_sizes(spec, alone.domains, config.data, strategy)
        checkpoint_folder(root / domain.name)
    for number, domain in enumerate(plan.domains, start=1):
        logging.info("model %d of %d: %s", number, len(plan.domains), domain.name)
        run = train(
            config.with_changes(
                independent=False,
                domains=(domain.name,),
                model_dir=str(root / domain.name),
            ),
            progress=progress,
        )
        if on_finished is not None:
            on_finished(run)
        # Its network would stay in memory, too.
        del run
        # Networks and steps of the models before would stay in memory.
        keras.backend.clear_session()


def finish(run: Run, config: RunningConfig, *, started: float) -> None:
    """Trains to the end.

    Args:
      run: restored; `run.minutes` is set.
      config: settings of the run; written to `flags.txt`, a flagfile that repeats it.
      started: `time.monotonic()` at the start.
    """
    run.log_devices()
    run.open_input()
    folder = pathlib.Path(config.run.model_dir)
    flags_text = flagfile.to_text(config)
    path = folder / "flags.txt"
    if run.step and path.is_file():
        before, problem = files.read_text(path)
        if problem:
            logging.warning(
                "%s: %s. It is now %s, and whether the flags are other ones than "
                "before is not known",
                path,
                problem,
                files.rename_as_damaged(path),
            )
        elif changes := flagfile.changes(before, flags_text):
            logging.warning(
                "resuming from step %d with changed flags; the new values apply "
                "from here, but the learning rate is the checkpoint's, %.2g: "
                "%s",
                run.step,
                run.state.learning_rate,
                "; ".join(changes),
            )
    # Not before it is known that the folder is this model's.
    files.write_text(path, flags_text)
    run.train()
    run.minutes = (time.monotonic() - started) / 60


def summary(run: Run) -> str:
    """Says in one line how a run ended and what it wrote."""
    folder = run.model_dir
    reason = "the learning rate's end" if run.state.finished else "`max_epochs`"
    return (
        f"{folder}: {quantity(run.step, 'step')} in "
        f"{quantity(run.state.epochs, 'epoch')} (ended by {reason}; "
        f"{run.minutes:.1f} min in this run). Checkpoints in {folder / 'checkpoints'}, "
        f"curves in {folder / 'training.csv'} and "
        f"tensorboard --logdir={folder / 'tensorboard'}"
    )


def load_training_data(
    data: DataConfig, names: Sequence[str]
) -> tuple[Plan, list[Manifest]]:
    """The plan and manifests of what is trained on.

    Args:
      data: gives the folder of the shards, and the fold.
      names: the domains wanted; all if empty.

    Returns:
      The plan of these domains, with its folds made splits and without the cases that
      `convert` skipped, and their manifests.

    Raises:
      InputError: as of `load_converted`, `Plan.with_fold` and `without_skipped`.
    """
    plan, manifests = load_converted(data.data_dir, tuple(names))
    return without_skipped(plan.with_fold(data.fold), manifests), manifests


def without_skipped(plan: Plan, manifests: Sequence[Manifest]) -> Plan:
    """The plan without the cases that `convert` skipped: nothing can score them.

    Raises:
      InputError: if all cases were skipped that a domain is validated on.
    """
    chosen = []
    for domain, manifest in zip(plan.domains, manifests, strict=True):
        splits = {
            split: tuple(c for c in domain.cases(split) if c not in manifest.skipped)
            for split in SPLITS
        }
        if domain.validation and not splits["validation"]:
            raise InputError(
                f"{domain.name}: cases to validate on",
                expected="at least one that was converted",
                received=f"{', '.join(domain.validation)}, which were skipped",
            )
        chosen.append(dataclasses.replace(domain, **splits))
    return dataclasses.replace(plan, domains=tuple(chosen))


def check_sizes(
    spec: ModelSpec,
    domains: Sequence[Domain],
    data: DataConfig,
    strategy: tf.distribute.Strategy,
) -> None:
    """Checks patches against pools and batches against devices.

    Args:
      spec: gives pools and patches.
      domains: those of its plan to train.
      data: gives the batch size.
      strategy: gives the number of devices.

    Raises:
      InputError: if a size is not divisible as it must be.
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
            )


@functools.cache
def make_strategy(distribution: str) -> tf.distribute.Strategy:
    """The strategy of `distribution`: "auto", "none" or "mirrored".

    Made once: two of them in one process would count their collective operations alike.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if distribution == "mirrored" or (distribution == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()
