"""Descriptions of models that are read from a model's folder alone."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class DomainDescription:
    """One domain of a model. Triples are in the order z, y, x.

    Attributes:
      name: name of the domain.
      modalities: names of the input channels.
      classes: names of the foreground classes.
      regions: name of a region -> names of its classes.
      ignore_label: value of voxels without annotation; None if there are none.
      spacing_mm: spacing that scans are resampled to.
      patch_size: size of the patches cropped from the resampled scan, voxels.
      parameters: number of parameters used by this domain only.
      cases: split -> number of cases.
      plan_hash: see `plan.plan_hash`.
      is_trained: whether the run trained this domain; None for a composed or ported
        model.
    """

    name: str
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
    regions: dict[str, tuple[str, ...]]
    ignore_label: int | None
    spacing_mm: tuple[float, float, float]
    patch_size: tuple[int, int, int]
    parameters: int
    cases: dict[str, int]
    plan_hash: str
    is_trained: bool | None


@dataclasses.dataclass(frozen=True)
class BestDescription:
    """The best checkpoint of a run.

    Attributes:
      step: step of the checkpoint.
      epoch: epoch of the checkpoint; None if it is not in training.csv.
      measure: "validation Dice" or "moving average of the loss".
      value: value of the measure.
      dice: "DOMAIN/CLASS" or "DOMAIN/REGION" -> validation Dice; empty if training.csv
        has none.
    """

    step: int
    epoch: int | None
    measure: str
    value: float
    dice: dict[str, float]


@dataclasses.dataclass(frozen=True)
class TrainingDescription:
    """The training run that wrote a checkpoint.

    Attributes:
      steps: number of steps taken.
      epochs: number of completed epochs.
      finished: whether the learning-rate schedule ended the run.
      learning_rate: learning rate of the next epoch.
      shared_variables: whether the shared variables were trained; None if not recorded.
      precision: precision of the computation; None if not recorded.
      fold: validation fold; None if there was none.
      weight_ema_decay: decay of the moving averages that are the weights of the model;
        0 if they are not averages.
      data_fingerprint: hash of the training cases and their shards; None if not
        recorded.
      best: the best checkpoint; None if there is none.
    """

    steps: int
    epochs: int
    finished: bool
    learning_rate: float
    shared_variables: bool | None
    precision: str | None
    fold: int | None
    weight_ema_decay: float
    data_fingerprint: str | None
    best: BestDescription | None


@dataclasses.dataclass(frozen=True)
class CheckpointDescription:
    """A checkpoint in a folder.

    Attributes:
      name: name of the checkpoint, "step-N".
      size_bytes: total size of its files.
      written: time of writing, ISO 8601 with the offset from UTC.
      is_best: whether it is the best of the run.
      is_damaged: whether it was found to be truncated or corrupt.
    """

    name: str
    size_bytes: int
    written: str
    is_best: bool
    is_damaged: bool


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """Description of a model.

    Attributes:
      model_dir: folder of the model.
      checkpoint: name of the described checkpoint.
      written_by: program, version and commit that wrote it; None if not recorded.
      architecture: "u2net" or "unet_sharp".
      depth: levels of a UNet# below full resolution; None for other architectures.
      align_corners: whether up-sampling aligns the outermost voxels.
      deep_supervision: whether it has heads in addition to the one that predicts.
      gates: gates of a UNet#; "none" for other architectures.
      adapter: "separable", "series", "parallel" or "none".
      base_channels: channels at full resolution.
      pools: number of times that the network halves z, y, x.
      second_up_conv: "full", "pointwise", or None for the default of the adapter.
      patch_size: size that the patches of all domains are resized to; None if each
        domain keeps its own.
      resize_method: interpolation that resizes patches.
      parameters: total number of parameters.
      shared_parameters: number of parameters that all domains share.
      domains: the domains, in the order of their indices.
      training: the training run; None for a composed or ported model.
      checkpoints: all checkpoints in the folder, oldest first.
      settings: flag -> value, from flags.txt; empty if there is no such file.
    """

    model_dir: str
    checkpoint: str
    written_by: str | None
    architecture: str
    depth: int | None
    align_corners: bool
    deep_supervision: bool
    gates: str
    adapter: str
    base_channels: int
    pools: tuple[int, int, int]
    second_up_conv: str | None
    patch_size: tuple[int, int, int] | None
    resize_method: str
    parameters: int
    shared_parameters: int
    domains: tuple[DomainDescription, ...]
    training: TrainingDescription | None
    checkpoints: tuple[CheckpointDescription, ...]
    settings: dict[str, str]


def to_json(models: Sequence[ModelDescription]) -> str:
    """Returns the descriptions as JSON."""
    content = {"models": [dataclasses.asdict(model) for model in models]}
    return json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
