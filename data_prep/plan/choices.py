"""Parses and checks the settings of a plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import cast

from data_prep.config import Normalization, PlanConfig, SplitConfig
from data_prep.plan import label_classes, pool_intensities, split_file
from data_prep.plan.draw_split import CaseSplit
from data_prep.plan.label_classes import Unions
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import AXES, Axis
from u2net_tf.plan.preprocessing import Preprocessing


@dataclasses.dataclass(frozen=True)
class Choices:
    """The settings of a plan, parsed.

    Attributes:
      preprocessing: the preprocessing settings that are not those of the survey.
      use_presets: whether to use published settings for the tasks that have them.
      max_patch_voxels: maximum number of voxels of a patch.
      normalization: see `pool_intensities.choose_statistics`.
      merges: label merges per domain; they replace those of a preset.
      regions: regions per domain, in addition to those of `dataset.json`.
      keep_components: number for every class, or None to derive it from the survey.
      keep_foreground_components: number for the foreground, or None to derive it.
      mirror_axes: axes for every domain, or None for "x", or no axis if two classes are
        a left-right pair.
      exclude_faulty: whether to leave out cases that cannot be used.
      max_memory_gb: memory limit of resampling a case; see `memory.require_memory`.
      split: settings of the random split, which is used unless cases are listed.
      splits: explicit lists per domain, or None.
      splits_file: file with these lists.
    """

    preprocessing: Preprocessing
    use_presets: bool
    max_patch_voxels: int
    normalization: Normalization
    merges: Unions
    regions: Unions
    keep_components: int | None
    keep_foreground_components: int | None
    mirror_axes: tuple[Axis, ...] | None
    exclude_faulty: bool
    max_memory_gb: float | None
    split: SplitConfig
    splits: Mapping[str, CaseSplit] | None
    splits_file: str


def read_choices(config: PlanConfig, names: Sequence[str]) -> Choices:
    """Parses and checks the settings.

    Args:
      config: the settings.
      names: the domains to plan.

    Raises:
      InputError: if a setting is invalid.
    """
    explicit_splits = None
    if config.splits_file is not None:
        explicit_splits = split_file.read_splits(
            config.splits_file, names, fold=config.fold
        )
    elif config.fold is not None:
        raise InputError(
            f"`fold`={config.fold}",
            expected="`splits_file` as well",
            received="none",
        )
    preprocessing = _read_preprocessing(config)
    changed = pool_intensities.changed_settings(preprocessing)
    if config.intensity_normalization == "dataset" and changed:
        raise InputError(
            "`intensity_normalization`",
            expected=f"scan or auto, since `{changed[0]}` is set",
            received="dataset",
        )
    return Choices(
        preprocessing=preprocessing,
        use_presets=config.preset == "auto",
        max_patch_voxels=config.max_patch_voxels,
        normalization=config.intensity_normalization,
        merges=label_classes.parse_unions("merge_labels", config.merge_labels),
        regions=label_classes.parse_unions("regions", config.regions),
        keep_components=_read_count("keep_components", config.keep_components),
        keep_foreground_components=_read_count(
            "keep_foreground_components", config.keep_foreground_components
        ),
        mirror_axes=_read_mirror_axes(list(config.mirror_axes)),
        exclude_faulty=config.exclude_faulty,
        max_memory_gb=config.max_memory_gb,
        split=config.split,
        splits=explicit_splits,
        splits_file=config.splits_file or "",
    )


def _read_preprocessing(config: PlanConfig) -> Preprocessing:
    fields = {field.name for field in dataclasses.fields(Preprocessing)}
    values = {k: v for k, v in config.flat().items() if k in fields}
    try:
        return Preprocessing(**values)
    except InputError as error:
        name = error.where.rpartition(" ")[2].partition("[")[0]
        raise InputError(
            f"`{name}`", expected=error.expected, received=error.received
        ) from None


def _read_count(name: str, text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise InputError(
            f"`{name}`",
            expected="auto or an integer of at least 0",
            received=repr(text),
        )
    return int(text)


def _read_mirror_axes(texts: Sequence[str]) -> tuple[Axis, ...] | None:
    if texts == ["auto"]:
        return None
    if texts in (["none"], []):
        return ()
    if not set(texts) <= set(AXES) or len(set(texts)) < len(texts):
        raise InputError(
            "`mirror_axes`",
            expected=f"auto, none or some of {','.join(AXES)}",
            received=",".join(texts),
        )
    return cast("tuple[Axis, ...]", tuple(texts))
