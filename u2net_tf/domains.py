"""Domains and the plan: what preprocessing and network need to know of each dataset.

As a file a plan is in `plan_files.py`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from u2net_tf.errors import InputError

AXES = ("z", "y", "x")
SPLITS = ("train", "validation", "test")
SPACING_SOURCES = ("pixdim", "affine")
UNKNOWN_LABELS = ("fail", "background")
STATISTICS_OVER = ("all", "positive")
SIZE_ROUNDINGS = ("nearest", "truncate")
# Fields of `Preprocessing` that plans, shards and models may be older than; without
# them they are what the defaults say.
LATER_PREPROCESSING = ("intensity_floor", "statistics_over", "size_rounding")


@dataclasses.dataclass(frozen=True)
class Label:
    """One class of a domain.

    Attributes:
      name: as in `dataset.json`, or the name that `--merge_labels` gave.
      values: the values in the raw label files that mean this class. Several when
        labels were merged. The first is the value that predictions are written with.
      keep_components: how many of the largest connected components a prediction
        keeps of this class; 0 keeps all.
    """

    name: str
    values: tuple[int, ...]
    keep_components: int = 0


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """How raw volumes of one domain become the network's input.

    The defaults are the paper's. The published code has the last three otherwise:
    -1024, "positive" and "truncate".

    Attributes:
      margin_voxels: margin around the box of the non-zero voxels, raw voxels.
      clip_percentiles: lower and upper percentile that intensities are clipped to.
      spacing_source: header field that spacing is read from when `pixdim` and the
        affine disagree: "pixdim" or "affine".
      unknown_labels: what to do with a value that no class lists: "fail" or
        "background".
      intensity_floor: resampled intensities below it are set to it, in every modality,
        before percentiles are taken; None for no such limit.
      statistics_over: voxels that mean and standard deviation are taken over: "all",
        or "positive", those above 0; voxels of exactly 0 then become 0.
      size_rounding: how the size of a resampled volume becomes a whole number:
        "nearest" or "truncate".
    """

    margin_voxels: int = 5
    clip_percentiles: tuple[float, float] = (2.0, 98.0)
    spacing_source: str = "pixdim"
    unknown_labels: str = "fail"
    intensity_floor: float | None = None
    statistics_over: str = "all"
    size_rounding: str = "nearest"


@dataclasses.dataclass(frozen=True)
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
      train: cases to train on.
      validation: cases watched during training; may be empty.
      test: cases for the final scores.
    """

    name: str
    raw_dir: str
    modalities: tuple[str, ...]
    labels: tuple[Label, ...]
    spacing_mm: tuple[float, float, float]
    median_shape: tuple[int, int, int]
    patch_size: tuple[int, int, int]
    pools: tuple[int, int, int]
    batch_size: int
    mirror_axes: tuple[str, ...] = ("x",)
    preprocessing: Preprocessing = Preprocessing()
    train: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()

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
    def watched_split(self) -> str:
        """The split that training scores: validation, or test where that is empty."""
        return "validation" if self.validation else "test"


@dataclasses.dataclass(frozen=True)
class Plan:
    """The domains of one network, in the order of their indices, and the split's seed.

    Attributes:
      domains: at least one, with distinct names.
      seed: seed of the train/test split.
    """

    domains: tuple[Domain, ...]
    seed: int = 0

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
                f"domain {name!r} is not in the plan; expected one of "
                f"{', '.join(self.names)}"
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
            raise InputError(f"--domains: expected each once, found {list(names)}")
        return dataclasses.replace(
            self, domains=tuple(self.domains[self.index(name)] for name in names)
        )
