"""Domains and the plan: preprocessing and network settings of each dataset.

`plan_file.py` reads and writes plans.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Annotated, Literal, get_args

from pydantic import Field

from u2net_tf import schema
from u2net_tf.errors import InputError
from u2net_tf.plan import limits
from u2net_tf.plan.labels import (
    Label,
    LabelValue,
    Region,
    check_labels,
    check_regions,
)
from u2net_tf.plan.preprocessing import Preprocessing
from u2net_tf.plan.scan_ranges import ScanRanges
from u2net_tf.schema import Count, Extent, Text

Axis = Literal["z", "y", "x"]
Split = Literal["train", "validation", "test"]
AXES = get_args(Axis)
SPLITS = get_args(Split)


def require_folder_name(name: str) -> None:
    """Raises InputError if a domain, and thus its folder, cannot have this name."""
    if name in ("", ".", "..") or set("/\\") & set(name) or not name.isprintable():
        expected = "a folder name, not a path"
        raise InputError("name", expected=expected, received=repr(name))


@schema.model
class Domain:
    """One dataset and its task. Triples are in the order z, y, x.

    Attributes:
      name: folder name, for example "Task04_Hippocampus".
      raw_dir: folder of `dataset.json` when the plan was made.
      modalities: names of the input channels.
      labels: the classes; index 0 is the background.
      ignore_label: value, in raw label maps, of voxels without annotation; None if all
        voxels are annotated.
      regions: unions of classes that are scored and may enter the loss, in addition to
        the classes.
      spacing_mm: target spacing, mm.
      median_shape: median shape of the resampled volumes, voxels.
      patch_size: size of the patches cropped from the volume, voxels.
      pools: number of times that the domain's independent network halves each axis.
      batch_size: patches per batch of the domain's independent network.
      mirror_axes: axes along which training may mirror a patch: "z", "y", "x"; empty if
        left and right are different classes.
      preprocessing: see `Preprocessing`.
      keep_foreground_components: number of largest connected components of the
        foreground (all classes together) to keep in predictions, before those of each
        class; 0 keeps all.
      train: training cases; empty if there are folds.
      validation: cases for validation during training; always empty if there are folds.
      test: cases for the final evaluation.
      folds: groups of training cases, one of which may be held out for validation; see
        `with_fold`.
      scans: spacings, extents and intensities of the scans; None if not recorded.

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
    ignore_label: LabelValue | None = None
    regions: tuple[Region, ...] = ()
    mirror_axes: tuple[Axis, ...] = ("x",)
    preprocessing: Preprocessing = Preprocessing()
    keep_foreground_components: Count = 0
    train: tuple[Text, ...] = ()
    validation: tuple[Text, ...] = ()
    test: tuple[Text, ...] = ()
    folds: tuple[Annotated[tuple[Text, ...], Field(min_length=1)], ...] = ()
    scans: ScanRanges | None = None

    def __post_init__(self) -> None:
        require_folder_name(self.name)
        schema.require_distinct("modalities", self.modalities, "distinct names")
        schema.require_distinct("mirror_axes", self.mirror_axes, "each axis once")
        statistics = self.preprocessing.intensity_statistics
        if statistics is not None and len(statistics) != self.num_modalities:
            raise InputError(
                "preprocessing.intensity_statistics",
                expected=f"one entry per modality, {self.num_modalities}",
                received=len(statistics),
            )
        check_labels(self.labels, self.ignore_label)
        check_regions(self.regions, self.labels)
        self._check_groups()
        for size, pools in zip(self.patch_size, self.pools, strict=True):
            if size % 2**pools:
                raise InputError(
                    "patch_size",
                    expected=f"sizes divisible by 2**pools, with pools {self.pools}",
                    received=self.patch_size,
                )

    def _check_groups(self) -> None:
        if self.folds and (self.train or self.validation):
            raise InputError(
                "folds",
                expected="no folds in addition to training or validation cases",
                received=f"{len(self.folds)} folds, {len(self.train)} cases in train "
                f"and {len(self.validation)} in validation",
            )
        if len(self.folds) == 1:
            raise InputError("folds", expected="at least two folds", received="one")
        places = [f"folds[{index}]" for index in range(len(self.folds))] or SPLITS[:2]
        seen: dict[str, str] = {}
        for place, cases in zip((*places, "test"), self.groups.values(), strict=True):
            for case in cases:
                if case in seen:
                    raise InputError(
                        place,
                        expected=f"only cases that are not already in {seen[case]!r}",
                        received=case,
                    )
                seen[case] = place

    @property
    def num_modalities(self) -> int:
        """Number of input channels."""
        return len(self.modalities)

    @property
    def num_classes(self) -> int:
        """Number of classes, including the background."""
        return len(self.labels)

    @property
    def num_label_indices(self) -> int:
        """Number of classes, and 1 more if `ignore_index` is not None."""
        return self.num_classes + (self.ignore_index is not None)

    @property
    def region_classes(self) -> dict[str, tuple[int, ...]]:
        """Name of a region -> indices of its classes, ascending."""
        return {
            region.name: region.class_indices(self.labels) for region in self.regions
        }

    @property
    def scored_names(self) -> list[str]:
        """Names of the foreground classes, followed by those of the regions."""
        return [*(label.name for label in self.labels[1:]), *self.region_classes]

    @property
    def ignore_index(self) -> int | None:
        """Index, in place of a class, of voxels without annotation.

        It follows those of the classes; None if all voxels are annotated.
        """
        return None if self.ignore_label is None else self.num_classes

    def cases(self, split: str) -> tuple[str, ...]:
        """Returns the cases of one of `SPLITS`."""
        if split not in SPLITS:
            raise ValueError(f"split: expected one of {SPLITS}. Received: {split!r}")
        return getattr(self, split)

    @property
    def groups(self) -> dict[str, tuple[str, ...]]:
        """Group (fold or split) -> cases. A shard contains cases of a single group."""
        if self.folds:
            folds = {f"fold{index}": cases for index, cases in enumerate(self.folds)}
            return {**folds, "test": self.test}
        return {split: self.cases(split) for split in SPLITS}

    def with_fold(self, fold: int | None) -> Domain:
        """Returns the domain with its folds turned into training and validation cases.

        Args:
          fold: index of the validation fold; None to train on all folds.

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
        kept = [cases for index, cases in enumerate(self.folds) if index != fold]
        return dataclasses.replace(
            self,
            folds=(),
            train=tuple(sorted(itertools.chain(*kept))),
            validation=() if fold is None else self.folds[fold],
        )

    @property
    def monitored_split(self) -> str:
        """Split that training scores: validation, or test if validation is empty."""
        return "validation" if self.validation else "test"


@schema.model
class Plan:
    """The domains of a network and the seed of their split.

    Attributes:
      domains: domains in the order of their indices; at least one, with distinct names.
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
        """Returns the index of the domain with this name.

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

    def domain(self, name: str) -> Domain:
        """Returns the domain with this name; raises InputError like `index`."""
        return self.domains[self.index(name)]

    def select(self, names: Sequence[str]) -> Plan:
        """Returns a plan of these domains only, in this order; of all if empty.

        Raises:
          InputError: if the plan lacks one of them, or one is listed twice.
        """
        if not names:
            return self
        if len(set(names)) < len(names):
            raise InputError(
                "`domains`", expected="distinct values", received=", ".join(names)
            )
        return dataclasses.replace(self, domains=tuple(map(self.domain, names)))

    def with_fold(self, fold: int | None) -> Plan:
        """Returns the plan with `Domain.with_fold` applied to every domain."""
        return dataclasses.replace(
            self, domains=tuple(domain.with_fold(fold) for domain in self.domains)
        )
