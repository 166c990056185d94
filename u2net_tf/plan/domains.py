"""Domains and the plan: what preprocessing and network need to know of each dataset.

As a file a plan is in `plan_file.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field

from u2net_tf import schema
from u2net_tf.errors import InputError
from u2net_tf.plan import limits
from u2net_tf.plan.scan_ranges import ScanRanges
from u2net_tf.schema import Count, Extent, Margin, Text

Axis = Literal["z", "y", "x"]
SpacingSource = Literal["pixdim", "affine"]
UnknownLabels = Literal["fail", "background"]
StatisticsOver = Literal["all", "positive"]
SizeRounding = Literal["nearest", "truncate"]
Split = Literal["train", "validation", "test"]
AXES = get_args(Axis)
SPLITS = get_args(Split)
SPACING_SOURCES = get_args(SpacingSource)
# Larger whole numbers are not exact in every program that reads them, as from JSON.
MIN_LABEL, MAX_LABEL = -(2**53) + 1, 2**53 - 1
LabelValue = Annotated[int, Field(ge=MIN_LABEL, le=MAX_LABEL)]
Percentile = Annotated[float, Field(ge=0, le=100)]


def require_folder_name(name: str) -> None:
    """Raises InputError if a folder, and so a domain, cannot have this name."""
    if name in ("", ".", "..") or set("/\\") & set(name) or not name.isprintable():
        expected = "the name of a folder, not a path"
        raise InputError("name", expected=expected, received=repr(name))


def require_classes(names: Sequence[str]) -> None:
    """Raises InputError if a network cannot have classes of these names."""
    if not 2 <= len(names) <= limits.MAX_CLASSES:
        raise InputError(
            "labels",
            expected=f"2 to {limits.MAX_CLASSES} classes, the background included",
            received=len(names),
        )
    schema.require_distinct("labels", names, "distinct names")


@schema.model
class Label:
    """One class of a domain.

    Attributes:
      name: as in `dataset.json`, or the name that `--merge_labels` gave.
      values: the values in the raw label files that mean this class. Several when
        labels were merged. The first is the value that predictions are written with.
      keep_components: how many of the largest connected components a prediction
        keeps of this class; 0 keeps all.
    """

    name: Text
    values: Annotated[tuple[LabelValue, ...], Field(min_length=1)]
    keep_components: Count = 0


@schema.model
class Preprocessing:
    """How raw volumes of one domain become the network's input.

    The defaults are the paper's. The published code has the last three otherwise:
    -1024, "positive" and "truncate".

    Attributes:
      margin_voxels: margin around the box of the non-zero voxels, raw voxels.
      clip_percentiles: lower and upper percentile that intensities are clipped to.
      spacing_source: header field that spacing is read from when `pixdim` and the
        affine disagree: "pixdim" or "affine".
      unknown_labels: "fail" or "background", for values that no class lists.
      intensity_floor: resampled intensities below it are set to it, in every modality,
        before percentiles are taken; None for no such limit.
      statistics_over: voxels that mean and standard deviation are taken over: "all",
        or "positive", those above 0; voxels of exactly 0 then become 0.
      size_rounding: how the size of a resampled volume becomes a whole number:
        "nearest" or "truncate".
      round_labels: whether values of label maps that are nearly whole are rounded.
      resample_modalities: whether modalities on other grids than the first are
        resampled to it.
    """

    margin_voxels: Margin = 5
    clip_percentiles: tuple[Percentile, Percentile] = (2.0, 98.0)
    spacing_source: SpacingSource = "pixdim"
    unknown_labels: UnknownLabels = "fail"
    intensity_floor: float | None = None
    statistics_over: StatisticsOver = "all"
    size_rounding: SizeRounding = "nearest"
    round_labels: bool = False
    resample_modalities: bool = False

    def __post_init__(self) -> None:
        lower, upper = self.clip_percentiles
        if lower >= upper:
            raise InputError(
                "clip_percentiles",
                expected="two numbers, 0 <= lower < upper <= 100",
                received=f"{lower:g}, {upper:g}",
            )


@schema.model
class Domain:
    """One dataset and its task. Triples are in the order z, y, x.

    Attributes:
      name: folder name, for example "Task04_Hippocampus".
      raw_dir: folder that held `dataset.json` when the plan was made.
      modalities: names of the input channels.
      labels: the classes; index 0 is the background.
      spacing_mm: target spacing, mm.
      median_shape: median shape of the resampled volumes, voxels.
      patch_size: patch cut from the volume, voxels.
      pools: how often the domain's independent network halves each axis.
      batch_size: patches per batch of the domain's independent network.
      mirror_axes: axes along which training may mirror a patch: "z", "y", "x". None
        where left and right are different classes.
      preprocessing: see `Preprocessing`.
      train: cases to train on; none where there are folds.
      validation: cases to validate on during training; may be empty, and is where
        there are folds.
      test: cases for the final scores.
      folds: cases to train on, in groups of which training may leave one out to
        validate on; see `with_fold`.
      scans: what the scans were like; None in plans that do not say so.

    Raises:
      ValueError: if a field is out of range or two contradict each other.
    """

    name: Text
    raw_dir: Text
    modalities: limits.Modalities
    labels: tuple[Label, ...]
    spacing_mm: limits.SpacingMm
    median_shape: tuple[Extent, Extent, Extent]
    patch_size: limits.PatchSize
    pools: limits.PoolsByAxis
    batch_size: Extent
    mirror_axes: tuple[Axis, ...] = ("x",)
    preprocessing: Preprocessing = Preprocessing()
    train: tuple[Text, ...] = ()
    validation: tuple[Text, ...] = ()
    test: tuple[Text, ...] = ()
    folds: tuple[Annotated[tuple[Text, ...], Field(min_length=1)], ...] = ()
    scans: ScanRanges | None = None

    def __post_init__(self) -> None:
        require_folder_name(self.name)
        schema.require_distinct("modalities", self.modalities, "distinct names")
        schema.require_distinct("mirror_axes", self.mirror_axes, "each axis once")
        require_classes([label.name for label in self.labels])
        values = [value for label in self.labels for value in label.values]
        schema.require_distinct("labels", values, "each value in one class only")
        if 0 not in self.labels[0].values:
            raise InputError(
                "labels",
                expected="the class of value 0, the background, first",
                received=values,
            )
        self._check_groups()
        for size, pools in zip(self.patch_size, self.pools, strict=True):
            if size % 2**pools:
                raise InputError(
                    "patch_size",
                    expected=f"sizes divisible by 2**pools, pools being {self.pools}",
                    received=self.patch_size,
                )

    def _check_groups(self) -> None:
        if self.folds and (self.train or self.validation):
            raise InputError(
                "folds",
                expected="none beside lists of cases to train or validate on",
                received=f"{len(self.folds)} folds, {len(self.train)} cases in train "
                f"and {len(self.validation)} in validation",
            )
        if len(self.folds) == 1:
            raise InputError("folds", expected="at least two", received="one")
        places = [f"folds[{index}]" for index in range(len(self.folds))] or SPLITS[:2]
        seen: dict[str, str] = {}
        for place, cases in zip((*places, "test"), self.groups.values(), strict=True):
            for case in cases:
                if case in seen:
                    raise InputError(
                        place,
                        expected=f"no case that is in {seen[case]!r} already",
                        received=case,
                    )
                seen[case] = place

    @property
    def num_modalities(self) -> int:
        """Number of input channels."""
        return len(self.modalities)

    @property
    def num_classes(self) -> int:
        """Number of classes with the background."""
        return len(self.labels)

    def cases(self, split: str) -> tuple[str, ...]:
        """Cases of one of `SPLITS`."""
        if split not in SPLITS:
            raise ValueError(f"split: expected one of {SPLITS}. Received: {split!r}")
        return getattr(self, split)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group -> cases. A shard holds cases of one group: a fold or a split."""
        if self.folds:
            folds = {f"fold{index}": cases for index, cases in enumerate(self.folds)}
            return {**folds, "test": self.test}
        return {split: self.cases(split) for split in SPLITS}

    def with_fold(self, fold: int | None) -> Domain:
        """The domain with its folds made cases to train and to validate on.

        Args:
          fold: index of the fold to validate on; None to train on all folds.

        Raises:
          InputError: if there is no such fold.
        """
        if not self.folds and fold is None:
            return self
        if fold is not None and not 0 <= fold < len(self.folds):
            expected = (
                f"a fold of {self.name} from 0 to {len(self.folds) - 1}"
                if self.folds
                else f"no value, since the plan of {self.name} has no folds"
            )
            raise InputError("`fold`", expected=expected, received=fold)
        train = tuple(
            case
            for index, cases in enumerate(self.folds)
            for case in cases
            if index != fold
        )
        return dataclasses.replace(
            self,
            folds=(),
            train=tuple(sorted(train)),
            validation=() if fold is None else self.folds[fold],
        )

    @property
    def monitored_split(self) -> str:
        """The split that training scores: validation, or test where that is empty."""
        return "validation" if self.validation else "test"


@schema.model
class Plan:
    """The domains of one network, in the order of their indices, and the split's seed.

    Attributes:
      domains: at least one, with distinct names.
      seed: seed of the train/test split.
    """

    domains: Annotated[tuple[Domain, ...], limits.NUM_DOMAINS]
    seed: Count = 0

    def __post_init__(self) -> None:
        schema.require_distinct("domains", self.names, "distinct names")

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the domains, in the order of their indices."""
        return tuple(domain.name for domain in self.domains)

    def index(self, name: str) -> int:
        """Index of the domain of this name.

        Raises:
          InputError: if the plan has no such domain.
        """
        if name not in self.names:
            raise InputError(
                f"domain {name!r}",
                expected=f"one of {', '.join(self.names)}",
                received="a name that is not in the plan",
            )
        return self.names.index(name)

    def select(self, names: Sequence[str]) -> Plan:
        """The plan of these domains only, in the order given; all where none is.

        Raises:
          InputError: if the plan lacks one, or one is named twice.
        """
        if not names:
            return self
        if len(set(names)) < len(names):
            raise InputError(
                "`domains`", expected="each once", received=", ".join(names)
            )
        return dataclasses.replace(
            self, domains=tuple(self.domains[self.index(name)] for name in names)
        )

    def with_fold(self, fold: int | None) -> Plan:
        """The plan with every domain's folds made splits: see `Domain.with_fold`."""
        return dataclasses.replace(
            self, domains=tuple(domain.with_fold(fold) for domain in self.domains)
        )
