"""From settings to a run: reads the data's plan, builds the network, trains."""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from u2net_tf import files
from u2net_tf.command import InputError
from u2net_tf.domains import SPLITS, Plan
from u2net_tf.input.pipeline import InputSettings
from u2net_tf.manifest import Manifest, load_converted
from u2net_tf.models.model_spec import ModelSpec, build_network
from u2net_tf.training.loop import Run, RunSettings
from u2net_tf.training.schedule import PlateauRule
from u2net_tf.training.trainer import Trainer


def train(
    *,
    domains: Sequence[str],
    network: dict[str, Any],
    pools: tuple[int, int, int] | None,
    inputs: InputSettings,
    optimizer: dict[str, Any],
    rule: PlateauRule,
    settings: RunSettings,
    distribution: str,
    flags_text: str,
) -> Run:
    """Trains a network, or goes on where its last checkpoint stands.

    Args:
      domains: names, in the order of their indices; all of the plan if empty.
      network: `adapter`, `base_channels` and `second_up_conv` of the `ModelSpec`.
      pools: how often z, y, x are halved; the plan's, for a single domain, if None.
      inputs: input pipeline.
      optimizer: `weight_decay` and `detach_focal_factor` of the `Trainer`.
      rule: learning rate and end.
      settings: length of the run and what is kept.
      distribution: "auto", "none" or "mirrored".
      flags_text: written to `flags.txt`, a flagfile that repeats the run.

    Raises:
      InputError: if data, flags or an older checkpoint contradict each other.
      StoppedError: if the loss is not finite.
    """
    started = time.monotonic()
    # TensorFlow tells at every checkpoint how long it thought about sharding.
    logging.get_absl_logger().addFilter(
        lambda record: record.module != "functional_saver"
    )
    plan, manifests = load_converted(inputs.data_dir, domains)
    plan = _without_skipped(plan, manifests)
    spec = ModelSpec(
        plan=plan,
        pools=_pools(plan, pools),
        patch_size=inputs.patch_size,
        resize_method=inputs.resize_method,
        **network,
    )
    _check_patches(spec)
    strategy = _strategy(distribution)
    _check_batches(plan, inputs, strategy.num_replicas_in_sync)
    keras.utils.set_random_seed(inputs.seed)
    with strategy.scope():
        model = build_network(spec)
    trainer = Trainer(
        model, learning_rate=rule.learning_rate, strategy=strategy, **optimizer
    )
    parameters = sum(variable.shape.num_elements() for variable in model.variables)
    gpus = tf.config.list_logical_devices("GPU")
    logging.info(
        "%d domains, %s parameters, %d replicas, devices: %s",
        len(plan.domains),
        f"{parameters:,}",
        strategy.num_replicas_in_sync,
        ", ".join(device.name for device in gpus) or "CPU",
    )
    run = Run(trainer, spec, manifests, inputs, rule, settings)
    run.restore()
    folder = pathlib.Path(settings.model_dir)
    # Not before it is known that the folder is this model's.
    files.write_text(folder / "flags.txt", flags_text)
    run.train()
    minutes = (time.monotonic() - started) / 60
    reason = "the learning rate's end" if run.state.finished else "--max_epochs"
    print(
        f"{folder}: {run.step} steps in {run.state.epochs} epochs (ended by {reason}; "
        f"{minutes:.1f} min in this run). Checkpoints in {folder / 'checkpoints'}, "
        f"curves in {folder / 'training.csv'} and "
        f"tensorboard --logdir={folder / 'tensorboard'}"
    )
    return run


def _without_skipped(plan: Plan, manifests: Sequence[Manifest]) -> Plan:
    """The plan without the cases that `convert` skipped: nothing can score them."""
    chosen = []
    for domain, manifest in zip(plan.domains, manifests, strict=True):
        splits = {
            split: tuple(c for c in domain.cases(split) if c not in manifest.skipped)
            for split in SPLITS
        }
        chosen.append(dataclasses.replace(domain, **splits))
    return dataclasses.replace(plan, domains=tuple(chosen))


def _pools(plan: Plan, pools: tuple[int, int, int] | None) -> tuple[int, int, int]:
    if pools is not None:
        if max(pools) < 1:
            raise InputError(
                f"--pools: expected at least one axis to be halved, found {pools}"
            )
        return pools
    distinct = {domain.pools for domain in plan.domains}
    if len(distinct) > 1:
        raise InputError(
            "--pools: expected a value, since the plan's domains differ in theirs: "
            f"{sorted(distinct)}"
        )
    return distinct.pop()


def _check_patches(spec: ModelSpec) -> None:
    for index, domain in enumerate(spec.plan.domains):
        size = spec.network_patch_size(index)
        if any(n % 2**p for n, p in zip(size, spec.pools, strict=True)):
            raise InputError(
                f"--patch_size: expected sizes divisible by 2**pools, pools being "
                f"{spec.pools}; found {size} for {domain.name}"
            )


def _check_batches(plan: Plan, inputs: InputSettings, num_replicas: int) -> None:
    for domain in plan.domains:
        size = inputs.batch_size or domain.batch_size
        if size % num_replicas:
            raise InputError(
                f"--batch_size: expected a multiple of the {num_replicas} devices, "
                f"found {size} for {domain.name}"
            )


def _strategy(distribution: str) -> tf.distribute.Strategy:
    gpus = tf.config.list_logical_devices("GPU")
    if distribution == "mirrored" or (distribution == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()
