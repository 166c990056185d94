"""From the settings of the command to what decides about a plan."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import cast

from data_prep.config import PlanConfig, SplitConfig
from data_prep.plan import label_classes, split_file
from data_prep.plan.draw_split import CaseSplit
from data_prep.plan.label_classes import Merges
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import AXES, Axis, Preprocessing


@dataclasses.dataclass(frozen=True)
class Choices:
    """The settings of a plan, parsed.

    Attributes:
      preprocessing: all of it but the source of the spacing, which is the survey's.
      use_presets: whether published settings are taken where a task has them.
      merges: label merges per domain; they replace those of a preset.
      keep_components: the same for every class, or None for what the survey suggests.
      mirror_axes: the same for every domain, or None: "x", or none where two classes
        are left and right of each other.
      exclude_faulty: leave out cases that cannot be used.
      max_memory_gb: what a case may take when it is resampled; see
        `memory.require_memory`.
      split: how cases are divided at random, unless they are listed.
      splits: explicit lists per domain, or None.
      splits_file: where those come from.
    """

    preprocessing: Preprocessing
    use_presets: bool
    merges: Merges
    keep_components: int | None
    mirror_axes: tuple[Axis, ...] | None
    exclude_faulty: bool
    max_memory_gb: float | None
    split: SplitConfig
    splits: Mapping[str, CaseSplit] | None
    splits_file: str


def read_choices(config: PlanConfig, names: Sequence[str]) -> Choices:
    """What the settings say, parsed and checked.

    Args:
      config: the settings.
      names: the domains to plan.

    Raises:
      InputError: names the setting.
    """
    listed = None
    if config.splits_file is not None:
        listed = split_file.read_splits(config.splits_file, names, fold=config.fold)
    elif config.fold is not None:
        raise InputError(
            f"`fold`={config.fold}",
            expected="`splits_file` beside it",
            received="none",
        )
    return Choices(
        preprocessing=_read_preprocessing(config),
        use_presets=config.preset == "auto",
        merges=label_classes.parse_merges(list(config.merge_labels)),
        keep_components=_read_keep_components(config.keep_components),
        mirror_axes=_read_mirror_axes(list(config.mirror_axes)),
        exclude_faulty=config.exclude_faulty,
        max_memory_gb=config.max_memory_gb,
        split=config.split,
        splits=listed,
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


def _read_keep_components(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise InputError(
            "`keep_components`",
            expected="auto or a whole number of at least 0",
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
