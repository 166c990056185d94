"""From settings to a run: reads the data's plan, builds the network, trains."""

from __future__ import annotations

import dataclasses
import functools
import pathlib
import time
from collections.abc import Sequence
from typing import Any

import keras
import tensorflow as tf
from absl import logging

from u2net_tf import files
from u2net_tf.command import InputError
from u2net_tf.domains import SPLITS, Domain, Plan
from u2net_tf.input.pipeline import InputSettings
from u2net_tf.manifest import Manifest, load_converted
from u2net_tf.models.checkpoints import check_free, checkpoint_folder
from u2net_tf.models.model_spec import (
    ModelSpec,
    build_network,
    check_patches,
    common_pools,
)
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
    computing: dict[str, Any],
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
      computing: `dtype`, a policy as "mixed_bfloat16", and `recompute` of the `U2Net`.
      distribution: "auto", "none" or "mirrored".
      flags_text: written to `flags.txt`, a flagfile that repeats the run.

    Raises:
      InputError: if data, flags or an older checkpoint contradict each other.
      StoppedError: if the loss is not finite.
    """
    started = time.monotonic()
    plan, manifests = load_converted(inputs.data_dir, domains)
    plan = without_skipped(plan, manifests)
    spec = ModelSpec(
        plan=plan,
        pools=common_pools(plan, pools),
        patch_size=inputs.patch_size,
        resize_method=inputs.resize_method,
        **network,
    )
    strategy = make_strategy(distribution)
    check_sizes(spec, plan.domains, inputs, strategy)
    keras.utils.set_random_seed(inputs.seed)
    with strategy.scope():
        model = build_network(spec, **computing)
    trainer = Trainer(
        model, learning_rate=rule.learning_rate, strategy=strategy, **optimizer
    )
    run = Run(trainer, spec, manifests, inputs, rule, settings)
    run.restore()
    finish(run, settings.model_dir, flags_text, started=started)
    return run


def train_independently(
    *,
    domains: Sequence[str],
    settings: RunSettings,
    inputs: InputSettings,
    flags_text: str,
    **options: Any,
) -> None:
    """Trains a model of its own for each domain, one after the other.

    Each is what `train` makes of that domain alone, in the folder MODEL_DIR/DOMAIN.

    Args:
      domains: names; all of the plan if empty.
      settings: as for `train`; `model_dir` is the folder of the models' folders.
      inputs: as for `train`.
      flags_text: as for `train`.
      **options: the others of `train`.

    Raises:
      InputError: as for `train`, or if the folder itself holds a model. Sizes and
        names that do not fit any domain are found before the first is trained.
      StoppedError: as for `train`.
    """
    plan, _ = load_converted(inputs.data_dir, domains)
    root = pathlib.Path(settings.model_dir)
    # It would be taken for the model of all of them.
    check_free(root)
    strategy = make_strategy(options["distribution"])
    for domain in plan.domains:
        alone = dataclasses.replace(plan, domains=(domain,))
        spec = ModelSpec(
            plan=alone,
            pools=common_pools(alone, options["pools"]),
            patch_size=inputs.patch_size,
        )
        check_sizes(spec, alone.domains, inputs, strategy)
        checkpoint_folder(root / domain.name)
    for number, domain in enumerate(plan.domains, start=1):
        logging.info("model %d of %d: %s", number, len(plan.domains), domain.name)
        folder = root / domain.name
        lines = ["--noindependent", f"--domains={domain.name}", f"--model_dir={folder}"]
        train(
            domains=[domain.name],
            settings=dataclasses.replace(settings, model_dir=str(folder)),
            inputs=inputs,
            # Of a flag that stands twice the last counts.
            flags_text=flags_text + "".join(f"{line}\n" for line in lines),
            **options,
        )
        # Networks and steps of the models before would stay in memory.
        keras.backend.clear_session()


def finish(run: Run, model_dir: str, flags_text: str, *, started: float) -> None:
    """Trains to the end and says so.

    Args:
      run: restored.
      model_dir: its folder.
      flags_text: see `train`.
      started: `time.monotonic()` at the start.
    """
    run.log_devices()
    run.open_input()
    folder = pathlib.Path(model_dir)
    path = folder / "flags.txt"
    if run.step and path.is_file():
        before, problem = files.read_text(path)
        if problem:
            logging.warning(
                "%s: %s; it is now %s, and whether the flags are other ones than "
                "before is not known",
                path,
                problem,
                files.set_aside(path),
            )
        elif changes := changed_flags(before, flags_text):
            logging.warning(
                "going on after step %d with other flags than before; the new ones "
                "count from here on, but the learning rate is the checkpoint's, %.2g: "
                "%s",
                run.step,
                run.state.learning_rate,
                "; ".join(changes),
            )
    # Not before it is known that the folder is this model's.
    files.write_text(path, flags_text)
    run.train()
    minutes = (time.monotonic() - started) / 60
    reason = "the learning rate's end" if run.state.finished else "--max_epochs"
    print(
        f"{folder}: {run.step} steps in {run.state.epochs} epochs (ended by {reason}; "
        f"{minutes:.1f} min in this run). Checkpoints in {folder / 'checkpoints'}, "
        f"curves in {folder / 'training.csv'} and "
        f"tensorboard --logdir={folder / 'tensorboard'}",
        flush=True,
    )


def changed_flags(before: str, now: str) -> list[str]:
    """Says of each flag that differs what it was and what it is.

    Both texts hold all flags of their version; one that the other does not know is new
    or gone, and no change.

    Args:
      before: text of a flagfile.
      now: text of another.
    """
    old, new = (_flags_by_name(text) for text in (before, now))
    return [
        f"was {old[name]}, now {new[name]}"
        for name in sorted(old.keys() & new.keys())
        if old[name] != new[name]
    ]


def _flags_by_name(text: str) -> dict[str, str]:
    """Name -> line; of a flag that stands twice the last counts."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    named = {}
    for line in lines:
        name, equals, _ = line.removeprefix("--").partition("=")
        # --name and --noname are of one flag.
        named[name if equals else name.removeprefix("no")] = line
    return named


def without_skipped(plan: Plan, manifests: Sequence[Manifest]) -> Plan:
    """The plan without the cases that `convert` skipped: nothing can score them."""
    chosen = []
    for domain, manifest in zip(plan.domains, manifests, strict=True):
        splits = {
            split: tuple(c for c in domain.cases(split) if c not in manifest.skipped)
            for split in SPLITS
        }
        chosen.append(dataclasses.replace(domain, **splits))
    return dataclasses.replace(plan, domains=tuple(chosen))


def check_sizes(
    spec: ModelSpec,
    domains: Sequence[Domain],
    inputs: InputSettings,
    strategy: tf.distribute.Strategy,
) -> None:
    """Checks patches against pools and batches against devices.

    Args:
      spec: gives pools and patches.
      domains: those of its plan to train.
      inputs: gives the batch size.
      strategy: gives the number of devices.

    Raises:
      InputError: if a size is not divisible as it must be.
    """
    check_patches(spec, [domain.name for domain in domains])
    num_replicas = strategy.num_replicas_in_sync
    for domain in domains:
        size = inputs.batch_size or domain.batch_size
        if size % num_replicas:
            raise InputError(
                f"--batch_size: expected a multiple of the {num_replicas} devices, "
                f"found {size} for {domain.name}"
            )


@functools.cache
def make_strategy(distribution: str) -> tf.distribute.Strategy:
    """The strategy of --distribution: "auto", "none" or "mirrored".

    Made once: two of them in one process would count their collective operations alike.
    """
    gpus = tf.config.list_logical_devices("GPU")
    if distribution == "mirrored" or (distribution == "auto" and len(gpus) > 1):
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()
