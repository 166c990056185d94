"""Settings of the data preparation commands."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from u2net_tf.config.base import Config
from u2net_tf.config.log import LogConfig
from u2net_tf.config.memory import MaxMemory
from u2net_tf.config.modalities import ResampleModalities
from u2net_tf.plan.domains import (
    Preprocessing,
    SizeRounding,
    SpacingSource,
    StatisticsOver,
    UnknownLabels,
)
from u2net_tf.shards.manifest import Compression, ImageDtype

# Defaults of a plan's preprocessing: the paper's.
_PAPER = Preprocessing()


class SurveyConfig(Config):
    """Settings of `data_prep.survey`."""

    raw_dir: str = Field(description="Folder of domain folders, or a single one.")
    domains: tuple[str, ...] = Field(
        (), description="Folders below raw_dir to read; all if empty."
    )
    output_dir: str = Field(description="Folder to write into.")
    spacing_source: SpacingSource = Field(
        "pixdim",
        description="Where the voxel size is read from when a header contradicts "
        "itself.",
    )
    round_labels: bool = Field(
        False,
        description="Round label values that are nearly whole, as a scale factor "
        "leaves them, here and wherever the plan is used.",
    )
    resample_modalities: ResampleModalities = False
    pictures: str | None = Field(
        None,
        description="Folder for contact sheets of each domain: a slice of every case "
        "with its labels, the most unusual cases first; none if not given.",
    )
    max_memory_gb: MaxMemory = None
    num_workers: int | None = Field(
        None,
        ge=1,
        description="Processes, one case in each; the number of cores if not given.",
    )
    log: LogConfig = LogConfig()


class ConversionConfig(Config):
    """How scans become shards."""

    data_dir: str = Field(description="Folder for the shards.")
    raw_dir: str | None = Field(
        None,
        description="Folder with a folder per domain, if the scans have moved since "
        "the survey.",
    )
    domains: tuple[str, ...] = Field(
        (), description="Domains to convert; all if empty."
    )
    num_workers: int | None = Field(
        None, ge=1, description="Processes; the number of cores if not given."
    )
    max_memory_gb: MaxMemory = None
    shard_size_mb: float = Field(
        100.0,
        gt=0,
        description="A shard is closed once it is this large, before compression.",
    )
    compression: Compression = Field("none", description="Compression of the shards.")
    image_dtype: ImageDtype = Field(
        "float16", description="Type that images are stored in."
    )
    on_bad_case: Literal["fail", "skip"] = Field(
        "fail", description="Stop at an unusable case, or list it and continue."
    )
    resample_modalities: ResampleModalities = False
    overwrite: bool = Field(
        False,
        description="Replace shards that were made with another plan, other flags or "
        "other raw files.",
    )


class ConvertConfig(Config):
    """Settings of `data_prep.convert`."""

    plan: str = Field(description="Plan, as data_prep.plan writes it.")
    conversion: ConversionConfig
    log: LogConfig = LogConfig()


class VerifyConfig(Config):
    """Settings of `data_prep.verify`."""

    data_dir: str = Field(description="Folder that convert wrote.")
    domains: tuple[str, ...] = Field(
        (), description="Domains to verify; all that are there if empty."
    )
    log: LogConfig = LogConfig()


class SplitConfig(Config):
    """How cases are divided at random."""

    test_fraction: float = Field(
        0.2, ge=0, lt=1, description="Fraction of the cases to test on."
    )
    validation_fraction: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Fraction of training cases to hold out for validation.",
    )
    num_folds: int = Field(
        0,
        ge=0,
        description="Number of folds of the training cases, of which training may "
        "leave one out to validate on it; 0 for none.",
    )
    seed: int = Field(0, ge=0, description="Seed of the split.")
    split_by: str = Field(
        "",
        description="Regular expression whose group keeps cases together, for example "
        r"(patient\d+)_",
    )


class PlanConfig(Config):
    """Settings of `data_prep.plan`."""

    survey: str = Field(description="survey.json of data_prep.survey, or its folder.")
    output: str = Field(description="The plan to write, a .json file.")
    domains: tuple[str, ...] = Field(
        (),
        description="Domains of the survey, in the order of their indices; all if "
        "empty.",
    )
    overwrite: bool = Field(False, description="Overwrite an existing, different plan.")
    preset: Literal["auto", "rule"] = Field(
        "auto",
        description="auto: published settings and label merges for the tasks that have "
        "them; rule: the rule for all.",
    )
    merge_labels: tuple[str, ...] = Field(
        (),
        description="Classes that merge labels, for example Task03_Liver:liver=1+2. "
        "Replaces the merges of that domain's preset.",
        json_schema_extra={"repeated": True},
    )
    keep_components: str = Field(
        "auto",
        description="Largest components that a prediction keeps of each class; 0 keeps "
        "all; auto: 1 or 2 where these hold 99 % of the class in the survey, else all.",
    )
    mirror_axes: tuple[str, ...] = Field(
        ("auto",),
        description="Axes that training may mirror: z, y, x; none; auto: x, or none "
        "where the names of two classes differ only in their side.",
    )
    split: SplitConfig = SplitConfig()
    splits_file: str | None = Field(
        None, description="JSON with lists of cases, or nnU-Net's splits_final.json."
    )
    fold: str | None = Field(
        None,
        description="Fold of splits_file where it has folds, whose validation cases "
        "become test cases; fold0 if not given. all: its folds become the plan's, and "
        "there are no test cases. In nnU-Net's splits_final.json a number, whose "
        "validation cases are validated on; all if not given.",
    )
    exclude_faulty: bool = Field(
        False, description="Leave out the cases that the survey found unusable."
    )
    max_memory_gb: MaxMemory = None
    unknown_labels: UnknownLabels = Field(
        _PAPER.unknown_labels,
        description="How to treat label values that dataset.json does not list.",
    )
    margin_voxels: int = Field(
        _PAPER.margin_voxels,
        ge=0,
        description="Margin around the box of non-zero voxels.",
    )
    clip_percentiles: tuple[float, float] = Field(
        _PAPER.clip_percentiles,
        description="Percentiles that intensities are clipped to.",
    )
    intensity_floor: float | None = Field(
        _PAPER.intensity_floor,
        description="Set lower intensities to this one before percentiles are taken; "
        "no limit if not given.",
    )
    statistics_over: StatisticsOver = Field(
        _PAPER.statistics_over,
        description="Voxels that mean and standard deviation are taken over: all, or "
        "those above 0; voxels of exactly 0 then become 0.",
    )
    size_rounding: SizeRounding = Field(
        _PAPER.size_rounding,
        description="How the size of a resampled volume becomes a whole number.",
    )
