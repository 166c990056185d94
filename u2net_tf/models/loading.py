"""Finds, loads and saves models: `load_network` needs nothing beside a checkpoint."""

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
    list_checkpoints,
    other_indices,
)
from u2net_tf.models.checkpoint_reading import (
    CheckpointReader,
    read_newest_intact,
)
from u2net_tf.models.checkpoints import Checkpoints, network_paths
from u2net_tf.models.pruning import prune, pruned_parts
from u2net_tf.models.run_state import RunState
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
      precision: "float32", "mixed_float16" or "mixed_bfloat16", to compute in; the
        variables are float32 in each.
      prune_to: the depth to which a UNet# is pruned; the whole network if None.

    Returns:
      The specification, the network, and the checkpoint's path.

    Raises:
      InputError: if there is no such checkpoint, all are damaged, or the network
        cannot be pruned so.
    """

    def load(path: str) -> tuple[ModelSpec, DomainModel, str]:
        reader = CheckpointReader(path)
        whole = reader.spec()
        spec = whole if prune_to is None else prune(whole, prune_to)
        reader.require_bytes(4 * min_parameters(spec))
        network = build_network(spec, dtype=precision)
        reader.restore(
            network_paths(network),
            within="network/",
            without=[f"network/{part}/" for part in pruned_parts(whole, spec)],
        )
        return spec, network, path

    return _read_checkpoint(model_dir, checkpoint, load)


def load_spec(model_dir: str | os.PathLike, checkpoint: str = NEWEST) -> ModelSpec:
    """Returns the specification of a model, without building it.

    Args:
      model_dir: folder that training wrote.
      checkpoint: see `load_network`, which reports those that are damaged.

    Raises:
      InputError: if there is no such checkpoint, or all are damaged.
    """
    return _read_checkpoint(
        model_dir, checkpoint, lambda path: CheckpointReader(path).spec(), quietly=True
    )


def _read_checkpoint(
    model_dir: str | os.PathLike,
    checkpoint: str,
    read: Callable[[str], _Read],
    *,
    quietly: bool = False,
) -> _Read:
    """`read_newest_intact`, also while a training adds and removes checkpoints."""
    while True:
        try:
            paths = checkpoints_to_try(model_dir, checkpoint)
            return read_newest_intact(paths, read, quietly=quietly)
        except RemovedCheckpointError:
            # There is a newer one, or none that `checkpoint` names: look again.
            continue


def save_model(
    model_dir: str | os.PathLike, spec: ModelSpec, network: DomainModel
) -> str:
    """Writes a model that was composed, not trained: a network without optimizers.

    Args:
      model_dir: folder to create.
      spec: specification of the network.
      network: the network, with its weights.

    Returns:
      Path of the checkpoint, of step 0.

    Raises:
      InputError: if the folder already holds a model.
      OSError: if it cannot be written.
    """
    require_no_model(model_dir)
    return Checkpoints(model_dir, spec, network, {}, keep=1).save(RunState())


def is_saved_model(model_dir: str | os.PathLike) -> bool:
    """Whether a folder holds a model as `save_model` writes it, and no other."""
    names = [
        pathlib.Path(path).name
        for path in list_checkpoints(checkpoint_folder(model_dir))
    ]
    return names == [checkpoint_name(RunState().step)]


def require_no_model(model_dir: str | os.PathLike) -> None:
    """Checks that a folder holds no model.

    Raises:
      InputError: if it holds one.
    """
    if has_model(model_dir):
        raise InputError(
            model_dir,
            expected="a folder without a model",
            received=checkpoints_to_try(model_dir)[0],
        )


def models_by_domain(
    model_dir: str | os.PathLike, *, skip_damaged: bool = True
) -> dict[str, pathlib.Path]:
    """Returns the folder of the model of each domain.

    Args:
      model_dir: folder that training wrote, of one model or of independent ones.
      skip_damaged: whether to pass over a damaged one of several, with a warning.

    Returns:
      Domain -> `model_dir` itself, or the folder in it that holds the domain's model.

    Raises:
      InputError: if there is no checkpoint in any, or a domain has two models.
    """
    folders = [pathlib.Path(model_dir)]
    if not has_model(model_dir):
        inner = sorted(path.parent for path in folders[0].glob("*/checkpoints"))
        folders = [path for path in inner if has_model(path)] or folders
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
                    hint="Name one of them",
                )
            found[name] = folder
    return found


def checkpoints_to_try(
    model_dir: str | os.PathLike, checkpoint: str = NEWEST
) -> list[str]:
    """Returns paths of checkpoints, in the order in which to try them.

    Args:
      model_dir: folder that training wrote.
      checkpoint: "newest": that one, then the ones before it, should it be damaged;
        "best" or "step-N": that one only.

    Raises:
      InputError: if there is none.
    """
    folder = checkpoint_folder(model_dir)
    paths = list_checkpoints(folder)[::-1]
    if not paths:
        inner = sorted(p.parent for p in pathlib.Path(model_dir).glob("*/checkpoints"))
        found = f", but models in {first_few(inner)}" if inner else ""
        if others := other_indices(folder):
            found += f", but {first_few(others)}, no name of a checkpoint"
        raise InputError(
            model_dir,
            expected="a model as `python -m u2net_tf.train` writes it",
            received=f"no checkpoint in {folder}{found}",
        )
    if checkpoint == NEWEST:
        return paths
    name = _name_of_best(paths) if checkpoint == BEST else checkpoint
    if str(folder / name) not in paths:
        there = ", ".join(pathlib.Path(path).name for path in reversed(paths))
        raise InputError(
            "`checkpoint`",
            expected=f"newest, best or one of {there} in {folder}",
            received=f"{checkpoint}{f' ({name})' if name != checkpoint else ''}",
        )
    return [str(folder / name)]


def _name_of_best(paths: list[str]) -> str:
    """Name of the best checkpoint according to the newest intact one."""
    best = read_newest_intact(paths, lambda path: CheckpointReader(path).state()).best
    if best is None:
        raise InputError(
            "`checkpoint`",
            expected=f"newest or step-N, since no best one is recorded in {paths[0]}",
            received=BEST,
        )
    return checkpoint_name(best.step)
