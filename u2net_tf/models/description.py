"""What a model is, for people and programs that have its folder only."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence


@dataclasses.dataclass(frozen=True)
class DomainDescription:
    """One domain of a model. Triples are in the order z, y, x.

    Attributes:
      name: its name.
      modalities: names of the input channels.
      classes: names of the classes without the background.
      spacing_mm: spacing that scans are resampled to.
      patch_size: patch cut from the resampled scan, voxels.
      parameters: number of parameters that only this domain reads.
      cases: split -> number of cases.
      plan_hash: hash of what determines the voxels of its preprocessed cases.
      is_trained: whether the run trained this domain; None for a model that was not
        trained here.
    """

    name: str
    modalities: tuple[str, ...]
    classes: tuple[str, ...]
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
      step: its step.
      epoch: its epoch; None if training.csv does not say.
      measure: "validation Dice" or "moving average of the loss".
      value: of the measure.
      dice: "DOMAIN/CLASS" -> Dice of its validation; empty if training.csv has none.
    """

    step: int
    epoch: int | None
    measure: str
    value: float
    dice: dict[str, float]


@dataclasses.dataclass(frozen=True)
class TrainingDescription:
    """The run that a checkpoint is of.

    Attributes:
      steps: number of steps done.
      epochs: number of epochs done.
      finished: whether the learning-rate schedule ended the run.
      learning_rate: of the next epoch.
      shared_variables: whether these were trained, too; None if not recorded.
      precision: what was computed in; None if not recorded.
      fold: fold that was validated on; None if none.
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
    data_fingerprint: str | None
    best: BestDescription | None


@dataclasses.dataclass(frozen=True)
class CheckpointDescription:
    """A checkpoint in a folder.

    Attributes:
      name: its name, "step-N".
      size_bytes: size of its files.
      written: time at which it was written, ISO 8601 with the offset from UTC.
      is_best: whether it is the best of the run.
      is_damaged: whether it was tried and is truncated or corrupt.
    """

    name: str
    size_bytes: int
    written: str
    is_best: bool
    is_damaged: bool


@dataclasses.dataclass(frozen=True)
class ModelDescription:
    """What a model is.

    Attributes:
      model_dir: its folder.
      checkpoint: name of the checkpoint that is described.
      written_by: program, version and commit that wrote it; None if it does not say.
      architecture: "u2net" or "unet_sharp".
      depth: levels of a UNet# below full resolution; None for another architecture.
      align_corners: whether its up-sampling keeps the outermost voxels in place.
      deep_supervision: whether it has heads beside the one that predicts.
      gates: which gates it has; "none" for another architecture.
      adapter: "separable", "series", "parallel" or "none".
      base_channels: channels at full resolution.
      pools: how often the network halves z, y, x.
      second_up_conv: "full", "pointwise" or None for the adapter's own.
      patch_size: patch that the patches of all domains are resized to; None if each
        keeps its own size.
      resize_method: how.
      parameters: number of all parameters.
      shared_parameters: number of those that every domain reads.
      domains: in the order of their indices.
      training: None for a model that was composed or ported, not trained here.
      checkpoints: all in the folder, oldest first.
      settings: flag -> value, of flags.txt; empty if there is no such file.
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
