"""Finds, loads and saves models; a checkpoint is all that `load_network` needs."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import TypeVar

from absl import logging

from u2net_tf.errors import InputError
from u2net_tf.models.build import build_network, min_parameters
from u2net_tf.models.checkpoint_index import (
    DamagedCheckpointError,
    RemovedCheckpointError,
)
from u2net_tf.models.checkpoint_paths import (
    checkpoint_folder,
    checkpoint_name,
    has_model,
    inner_models,
    list_checkpoints,
    other_indices,
)
from u2net_tf.models.checkpoint_reading import (
    CheckpointReader,
    read_newest_intact,
)
from u2net_tf.models.checkpoints import Checkpoints, network_paths
from u2net_tf.models.pruning import prune, pruned_parts
from u2net_tf.models.run_state import RunState, SeenCases
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.wording import first_few

NEWEST, BEST = "newest", "best"
_Read = TypeVar("_Read")


def load_network(
    model_dir: str | os.PathLike,
    *,
    checkpoint: str = NEWEST,
    precision: str = "float32",
    prune_to: int | None = None,
) -> tuple[ModelSpec, DomainModel, str]:
    """Builds the network of a checkpoint and restores its variables.

    Args:
      model_dir: folder that training wrote.
      checkpoint: "newest" (the newest intact one), "best" or "step-N".
      precision: precision of the computation: "float32", "mixed_float16" or
        "mixed_bfloat16"; variables are always float32.
      prune_to: depth to which a UNet# is pruned; None to load the complete network.

    Returns:
      The specification, the network, and the checkpoint's path.

    Raises:
      InputError: if there is no such checkpoint, all are damaged, or the network
        cannot be pruned to this depth.
    """

    def load(path: str) -> tuple[ModelSpec, DomainModel, str]:
        reader = CheckpointReader(path)
        full_spec = reader.spec()
        spec = full_spec if prune_to is None else prune(full_spec, prune_to, path)
        reader.require_bytes(4 * min_parameters(spec))
        network = build_network(spec, dtype=precision)
        reader.restore(
            network_paths(network),
            within="network/",
            without=[f"network/{part}/" for part in pruned_parts(full_spec, spec)],
        )
        return spec, network, path

    return _read_checkpoint(model_dir, checkpoint, load)


def load_spec(model_dir: str | os.PathLike, checkpoint: str = NEWEST) -> ModelSpec:
    """Returns the specification of a model without building the network.

    Args:
      model_dir: folder that training wrote.
      checkpoint: see `load_network`; damaged checkpoints are skipped silently here.

    Raises:
      InputError: if there is no such checkpoint, or all are damaged.
    """
    return _read_checkpoint(
        model_dir, checkpoint, lambda path: CheckpointReader(path).spec(), quietly=True
    )


def load_spec_and_state(
    model_dir: str | os.PathLike, checkpoint: str = NEWEST
) -> tuple[ModelSpec, RunState]:
    """Returns the specification of a model and the state of its run.

    Args:
      model_dir: see `load_spec`.
      checkpoint: see `load_spec`.

    Raises:
      InputError: see `load_spec`.
    """

    def read(path: str) -> tuple[ModelSpec, RunState]:
        reader = CheckpointReader(path)
        return reader.spec(), reader.state()

    return _read_checkpoint(model_dir, checkpoint, read, quietly=True)


def _read_checkpoint(
    model_dir: str | os.PathLike,
    checkpoint: str,
    read: Callable[[str], _Read],
    *,
    quietly: bool = False,
) -> _Read:
    """Calls `read_newest_intact`, and retries if training removes a checkpoint."""
    while True:
        try:
            paths = checkpoints_to_try(model_dir, checkpoint)
            return read_newest_intact(paths, read, quietly=quietly)
        except RemovedCheckpointError:
            # Either there is a newer checkpoint or the requested one is gone.
            continue


def save_model(
    model_dir: str | os.PathLike,
    spec: ModelSpec,
    network: DomainModel,
    *,
    initial_cases: tuple[SeenCases, ...] = (),
) -> str:
    """Writes a composed model: a network without optimizers.

    Args:
      model_dir: folder to create.
      spec: specification of the network.
      network: the network, with its weights.
      initial_cases: cases that the weights were trained on, in addition to the training
        cases of the specification.

    Returns:
      Path of the checkpoint, whose step is 0.

    Raises:
      InputError: if the folder or a subfolder already has a model.
      OSError: if the model cannot be written.
    """
    require_no_model(model_dir)
    require_no_inner_models(model_dir)
    state = RunState(initial_cases=initial_cases)
    return Checkpoints(model_dir, spec, network, {}, keep=1).save(state)


def is_saved_model(model_dir: str | os.PathLike) -> bool:
    """Returns whether the only checkpoint in a folder is one of `save_model`."""
    names = [
        pathlib.Path(path).name
        for path in list_checkpoints(checkpoint_folder(model_dir))
    ]
    return names == [checkpoint_name(RunState().step)]


def require_no_model(model_dir: str | os.PathLike) -> None:
    """Checks that a folder has no model.

    Raises:
      InputError: if it has one.
    """
    if has_model(model_dir):
        raise InputError(
            model_dir,
            expected="a folder without a model",
            received=checkpoints_to_try(model_dir)[0],
        )


def require_no_inner_models(model_dir: str | os.PathLike) -> None:
    """Checks that a new model in a folder would not hide models in its subfolders.

    Raises:
      InputError: if the folder has no model, but subfolders have.
    """
    inner = inner_models(model_dir)
    if inner and not has_model(model_dir):
        raise InputError(
            model_dir,
            expected="a folder without models in its subfolders",
            received=first_few(inner),
            hint="A model in the folder itself would be used instead of them",
        )


def models_by_domain(
    model_dir: str | os.PathLike, *, skip_damaged: bool = True
) -> dict[str, pathlib.Path]:
    """Returns the folder of each domain's model.

    Args:
      model_dir: folder of one model, or of independent models.
      skip_damaged: whether to skip damaged ones of several models with a warning.

    Returns:
      Domain -> `model_dir` itself, or the folder of the domain's model in it.

    Raises:
      InputError: if there is no checkpoint, or a domain has two models.
    """
    folders = [pathlib.Path(model_dir)]
    if not has_model(model_dir):
        folders = inner_models(model_dir) or folders
    found: dict[str, pathlib.Path] = {}
    for folder in folders:
        try:
            names = load_spec(folder).plan.names
        except DamagedCheckpointError as error:
            if len(folders) == 1 or not skip_damaged:
                raise
            logging.warning("%s; its domains are skipped", error)
            continue
        for name in names:
            if name in found:
                raise InputError(
                    model_dir,
                    expected=f"one model for {name}",
                    received=f"{found[name]} and {folder}",
                    hint="Give the folder of one of them",
                )
            found[name] = folder
    return found


def checkpoints_to_try(
    model_dir: str | os.PathLike, checkpoint: str = NEWEST
) -> list[str]:
    """Returns the paths of checkpoints in the order in which to try them.

    Args:
      model_dir: folder that training wrote.
      checkpoint: "newest" for all checkpoints, newest first, since some may be damaged;
        "best" or "step-N" for a single one.

    Raises:
      InputError: if there is none.
    """
    folder = checkpoint_folder(model_dir)
    paths = list_checkpoints(folder)[::-1]
    if not paths:
        inner = inner_models(model_dir)
        found = f", but models in {first_few(inner)}" if inner else ""
        if others := other_indices(folder):
            found += f", but {first_few(others)} (not named as checkpoints)"
        raise InputError(
            model_dir,
            expected="a model written by `python -m u2net_tf.train`",
            received=f"no checkpoint in {folder}{found}",
        )
    if checkpoint == NEWEST:
        return paths
    name = _name_of_best(paths) if checkpoint == BEST else checkpoint
    if str(folder / name) not in paths:
        names = ", ".join(pathlib.Path(path).name for path in reversed(paths))
        raise InputError(
            "`checkpoint`",
            expected=f"newest, best or one of {names} in {folder}",
            received=f"{checkpoint}{f' ({name})' if name != checkpoint else ''}",
        )
    return [str(folder / name)]


def _name_of_best(paths: list[str]) -> str:
    """Returns the name of the best checkpoint, as recorded in the newest intact one."""
    best = read_newest_intact(paths, lambda path: CheckpointReader(path).state()).best
    if best is None:
        raise InputError(
            "`checkpoint`",
            expected=f"newest or step-N, since {paths[0]} records no best checkpoint",
            received=BEST,
        )
    return checkpoint_name(best.step)
