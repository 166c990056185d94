"""Describes a model from its checkpoints and other files, without TensorFlow."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import datetime
import json
import math
import os
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping

from absl import logging

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.models import checkpoint_paths, object_graph
from u2net_tf.models.best import Best
from u2net_tf.models.checkpoint_index import (
    CheckpointIndex,
    DamagedCheckpointError,
    RemovedCheckpointError,
    require_not_removed,
    text_names,
)
from u2net_tf.models.description import (
    BestDescription,
    CheckpointDescription,
    DomainDescription,
    ModelDescription,
    TrainingDescription,
)
from u2net_tf.models.model_file_format import SUFFIX
from u2net_tf.models.run_flags import read_flags
from u2net_tf.models.run_state import RunState, state_from_json
from u2net_tf.models.spec import ModelSpec, spec_from_json
from u2net_tf.models.trained import trained_models
from u2net_tf.plan.domains import SPLITS, Domain
from u2net_tf.plan.plan_hash import plan_hash

_NETWORK = "network/"
# The paths of a domain's variables end in the index of the domain.
_DOMAIN_SUFFIX = re.compile(r"_(\d+)$")


@dataclasses.dataclass(frozen=True)
class _Contents:
    """Contents of a checkpoint."""

    path: pathlib.Path
    spec: ModelSpec
    state: RunState
    written_by: str | None
    # Index of a domain, or None for the shared parameters -> number of parameters.
    parameters: Mapping[int | None, int]


def describe_models(path: str | os.PathLike) -> tuple[ModelDescription, ...]:
    """Describes a model, or the independent models in a folder.

    Args:
      path: folder of a model, whose newest intact checkpoint is described; a
        checkpoint; or a folder of model folders.

    Raises:
      InputError: if there is no model, or all its checkpoints are damaged.
      OSError: if a file cannot be read.
    """
    path = pathlib.Path(path)
    if checkpoint := _find_checkpoint(path):
        return (_describe(checkpoint.parent.parent, [checkpoint]),)
    folders = [path]
    if not checkpoint_paths.has_model(path):
        folders = checkpoint_paths.inner_models(path)
    if not folders:
        raise _no_model(path)
    return tuple(map(_describe_newest, folders))


def _find_checkpoint(path: pathlib.Path) -> pathlib.Path | None:
    """Returns the checkpoint at a path, which may be that of one of its files."""
    name = re.sub(r"\.(index|data-\d+-of-\d+)$", "", path.name)
    found = path.with_name(name) if name else path
    return found if pathlib.Path(f"{found}.index").is_file() else None


def _no_model(path: pathlib.Path) -> InputError:
    return InputError(
        path,
        expected="a model written by `python -m u2net_tf.train`, one of its "
        f"checkpoints, a model file (*{SUFFIX}), or the name of a model that comes "
        f"with the package ({', '.join(trained_models())})",
        received=_describe_other(path),
    )


def _describe_other(path: pathlib.Path) -> str:
    if not path.exists():
        return "no such file or folder"
    return (
        "a folder without a checkpoint" if path.is_dir() else "a different kind of file"
    )


def _paths(model_dir: pathlib.Path) -> list[str]:
    folder = checkpoint_paths.checkpoint_folder(model_dir)
    return checkpoint_paths.list_checkpoints(folder)


def _describe_newest(model_dir: pathlib.Path) -> ModelDescription:
    """Describes the newest intact checkpoint, even while training removes others."""
    while paths := _paths(model_dir):
        with contextlib.suppress(RemovedCheckpointError):
            return _describe(model_dir, [pathlib.Path(p) for p in reversed(paths)])
    raise _no_model(model_dir)


def _describe(
    model_dir: pathlib.Path, checkpoints: list[pathlib.Path]
) -> ModelDescription:
    """Describes the first of these checkpoints that is intact."""
    damaged: dict[str, DamagedCheckpointError] = {}
    for path in checkpoints:
        try:
            contents = _read(path)
            break
        except FileNotFoundError:
            require_not_removed(path)
            raise
        except DamagedCheckpointError as error:
            require_not_removed(path)
            damaged[path.name] = error
            logging.warning("%s", error)
    else:
        raise next(iter(damaged.values()))
    spec, counts = contents.spec, contents.parameters
    return ModelDescription(
        model_dir=str(model_dir),
        checkpoint=contents.path.name,
        written_by=contents.written_by,
        architecture=spec.architecture,
        depth=spec.depth,
        align_corners=spec.align_corners,
        deep_supervision=spec.deep_supervision,
        gates=spec.gates,
        adapter=spec.adapter,
        base_channels=spec.base_channels,
        pools=spec.pools,
        second_up_conv=spec.second_up_conv,
        patch_size=spec.patch_size,
        resize_method=spec.resize_method,
        parameters=sum(counts.values()),
        shared_parameters=counts.get(None, 0),
        domains=tuple(
            _describe_domain(index, domain, contents)
            for index, domain in enumerate(spec.plan.domains)
        ),
        training=_describe_training(contents, model_dir),
        checkpoints=tuple(
            _describe_checkpoints(contents.path.parent, contents.state.best, damaged)
        ),
        settings=read_flags(model_dir),
    )


def _read(path: pathlib.Path) -> _Contents:
    index = CheckpointIndex(path)
    texts = []
    for key in text_names(index.entries, path):
        try:
            texts.append(index.text(key).decode())
        except UnicodeDecodeError:
            raise InputError(
                path, expected=f"the text {key!r} in UTF-8", received="other bytes"
            ) from None
    spec, state = texts
    return _Contents(
        path=path,
        spec=spec_from_json(spec, path),
        state=state_from_json(state, path),
        written_by=json.loads(state).get("written_by"),
        parameters=_count_parameters(index),
    )


def _count_parameters(index: CheckpointIndex) -> dict[int | None, int]:
    keys = {name: name for name in index.entries}
    if object_graph.has_object_graph(keys):
        keys = object_graph.checkpoint_keys(index.text)
    counts: dict[int | None, int] = {}
    for path, key in keys.items():
        if path.startswith(_NETWORK):
            number = _DOMAIN_SUFFIX.search(path)
            domain = int(number[1]) if number else None
            size = math.prod(index.entries[key].shape)
            counts[domain] = counts.get(domain, 0) + size
    return counts


def _describe_domain(
    index: int, domain: Domain, contents: _Contents
) -> DomainDescription:
    trained = contents.state.invariants.get("trained domains")
    counts = contents.spec.count_cases(index)
    is_trained = None
    if contents.state.schedule is not None:
        is_trained = not isinstance(trained, list) or domain.name in trained
    return DomainDescription(
        name=domain.name,
        modalities=domain.modalities,
        classes=tuple(label.name for label in domain.labels[1:]),
        regions={region.name: region.classes for region in domain.regions},
        ignore_label=domain.ignore_label,
        spacing_mm=domain.spacing_mm,
        patch_size=domain.patch_size,
        parameters=contents.parameters.get(index, 0),
        cases={split: getattr(counts, split) for split in SPLITS},
        plan_hash=plan_hash(domain),
        is_trained=is_trained,
    )


def _describe_training(
    contents: _Contents, model_dir: pathlib.Path
) -> TrainingDescription | None:
    state = contents.state
    if state.schedule is None:
        return None
    known = state.known_invariants
    return TrainingDescription(
        steps=state.step,
        epochs=state.schedule.epochs,
        finished=state.schedule.finished,
        learning_rate=state.schedule.learning_rate,
        shared_variables=known.get("shared variables"),
        precision=known.get("precision"),
        fold=known.get("fold"),
        weight_ema_decay=known["weight_ema_decay"],
        data_fingerprint=state.records,
        best=None if state.best is None else _describe_best(state.best, model_dir),
    )


def _describe_best(best: Best, model_dir: pathlib.Path) -> BestDescription:
    epoch, dice = None, {}
    for row in _training_rows(model_dir):
        if row.get("step") == str(best.step):
            epoch = int(row["epoch"]) if (row.get("epoch") or "").isdecimal() else None
            dice = dict(_dice(row))
    return BestDescription(best.step, epoch, best.measure, best.value, dice)


def _training_rows(model_dir: pathlib.Path) -> Iterator[dict[str, str]]:
    path = model_dir / "training.csv"
    if path.is_file():
        text, _ = files.read_text(path)
        try:
            yield from csv.DictReader(text.splitlines())
        except csv.Error:
            return


def _dice(row: Mapping[str, str]) -> Iterator[tuple[str, float]]:
    """Yields DOMAIN/CLASS and Dice."""
    for column, cell in row.items():
        if column and column.startswith("dice/") and cell:
            with contextlib.suppress(ValueError):
                yield column.removeprefix("dice/"), float(cell)


def _describe_checkpoints(
    folder: pathlib.Path, best: Best | None, damaged: Collection[str]
) -> Iterator[CheckpointDescription]:
    for path in checkpoint_paths.list_checkpoints(folder):
        # A training run may have removed it after it was listed.
        with contextlib.suppress(FileNotFoundError):
            yield _describe_checkpoint(pathlib.Path(path), best, damaged)


def _describe_checkpoint(
    path: pathlib.Path, best: Best | None, damaged: Collection[str]
) -> CheckpointDescription:
    parts = [pathlib.Path(f"{path}.index"), *path.parent.glob(f"{path.name}.data-*")]
    stats = [part.stat() for part in parts]
    written = max(stat.st_mtime for stat in stats)
    time = datetime.datetime.fromtimestamp(written).astimezone()
    return CheckpointDescription(
        name=path.name,
        size_bytes=sum(stat.st_size for stat in stats),
        written=time.isoformat(timespec="seconds"),
        is_best=best is not None
        and path.name == checkpoint_paths.checkpoint_name(best.step),
        is_damaged=path.name in damaged,
    )
