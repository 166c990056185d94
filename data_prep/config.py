"""Settings of the data preparation commands."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from u2net_tf.config.base import Config
from u2net_tf.config.log import LogConfig
from u2net_tf.config.memory import MaxMemory, MaxWorkerMemory
from u2net_tf.config.modalities import ResampleModalities
from u2net_tf.plan.preprocessing import (
    Preprocessing,
    SizeRounding,
    SpacingSource,
    StatisticsOver,
    UnknownLabels,
)
from u2net_tf.shards.manifest import Compression, ImageDtype

# Default preprocessing, which is the paper's.
_PAPER = Preprocessing()
Normalization = Literal["auto", "scan", "dataset"]
# Default limit of a patch, which is the paper's.
MAX_PATCH_VOXELS = 128**3


class SurveyConfig(Config):
    """Settings of `data_prep.survey`."""

    raw_dir: str = Field(
        description="Folder of domain folders, or a single domain folder."
    )
    domains: tuple[str, ...] = Field(
        (), description="Domain folders in raw_dir to survey; all if empty."
    )
    output_dir: str = Field(description="Folder for survey.csv and survey.json.")
    spacing_source: SpacingSource = Field(
        "pixdim",
        description="Header field from which the voxel size is read if pixdim and "
        "affine contradict each other.",
    )
    round_labels: bool = Field(
        False,
        description="Round label values that are nearly integers, for example because "
        "of a scale factor. Also applies wherever the resulting plan is used.",
    )
    resample_modalities: ResampleModalities = False
    pictures: str | None = Field(
        None,
        min_length=1,
        description="Folder for contact sheets of each domain: a slice of every case "
        "with its labels, the most unusual cases first. If not given, none are drawn.",
    )
    max_memory_gb: MaxWorkerMemory = None
    num_workers: int | None = Field(
        None,
        ge=1,
        description="Maximum number of worker processes, each with one case at a "
        "time; the number of cores if not given.",
    )
    log: LogConfig = LogConfig()


class ConversionConfig(Config):
    """How scans are converted to shards."""

    data_dir: str = Field(description="Folder for the shards.")
    raw_dir: str | None = Field(
        None,
        description="Folder of domain folders; needed only if the scans have moved "
        "since the survey.",
    )
    domains: tuple[str, ...] = Field(
        (), description="Domains to convert; all if empty."
    )
    num_workers: int | None = Field(
        None,
        ge=1,
        description="Maximum number of worker processes, each with one case at a "
        "time; the number of cores if not given.",
    )
    max_memory_gb: MaxWorkerMemory = None
    shard_size_mb: float = Field(
        100.0,
        gt=0,
        description="Size at which a shard is closed and the next one is started, MB "
        "before compression.",
    )
    compression: Compression = Field("none", description="Compression of the shards.")
    image_dtype: ImageDtype = Field(
        "float16", description="Data type in which images are stored."
    )
    on_bad_case: Literal["fail", "skip"] = Field(
        "fail",
        description="Stop at an unusable case (fail), or list it and continue (skip).",
    )
    resample_modalities: ResampleModalities = False
    overwrite: bool = Field(
        False,
        description="Replace shards that were made with a different plan, different "
        "flags or different raw files.",
    )


class ConvertConfig(Config):
    """Settings of `data_prep.convert`."""

    plan: str = Field(description="Plan written by data_prep.plan.")
    conversion: ConversionConfig
    log: LogConfig = LogConfig()


class VerifyConfig(Config):
    """Settings of `data_prep.verify`."""

    data_dir: str = Field(description="Folder of shards written by data_prep.convert.")
    domains: tuple[str, ...] = Field(
        (), description="Domains to verify; all converted domains if empty."
    )
    log: LogConfig = LogConfig()


class SplitConfig(Config):
    """Random split of the cases."""

    test_fraction: float = Field(
        0.2, ge=0, lt=1, description="Fraction of cases to hold out for testing."
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
        description="Number of cross-validation folds of the training cases; 0 for "
        "none. Training can hold out one of them for validation.",
    )
    seed: int = Field(0, ge=0, description="Seed of the random split.")
    split_by: str = Field(
        "",
        description=r"Regular expression with one capturing group; cases for which it "
        r"captures the same text stay in the same split. For example, (patient\d+)_ "
        r"keeps the cases of a patient together.",
    )


class PlanConfig(Config):
    """Settings of `data_prep.plan`."""

    survey: str = Field(
        description="survey.json written by data_prep.survey, or its folder."
    )
    output: str = Field(description="Plan to write (.json).")
    domains: tuple[str, ...] = Field(
        (),
        description="Domains of the survey to plan, in the order of their domain "
        "indices; all if empty.",
    )
    overwrite: bool = Field(False, description="Overwrite an existing, different plan.")
    preset: Literal["auto", "rule"] = Field(
        "auto",
        description="Source of the network settings: published settings and label "
        "merges for the tasks that have them and a rule for all others (auto), or the "
        "rule for all domains (rule).",
    )
    max_patch_voxels: int = Field(
        MAX_PATCH_VOXELS,
        ge=16**3,
        description="Maximum number of voxels of a patch. Published settings with a "
        "larger patch are replaced by those of the rule. 262144 (64³) suits training "
        "on a CPU.",
    )
    merge_labels: tuple[str, ...] = Field(
        (),
        # absl appends "; repeat this option", so the text has no full stop.
        description="Labels to merge into a class, for example "
        "Task03_Liver:liver=1+2. Replaces the merges of that domain's preset",
        json_schema_extra={"repeated": True},
    )
    regions: tuple[str, ...] = Field(
        (),
        description="Classes to score together as a region, by the values of their "
        "labels, for example Task01_BrainTumour:whole=1+2+3. Regions may overlap, and "
        "their classes remain",
        json_schema_extra={"repeated": True},
    )
    keep_components: str = Field(
        "auto",
        description="Number of largest connected components of each class that "
        "predictions keep; 0 keeps all, and those of the foreground unless their "
        "number is given. auto keeps 1 or 2 if these contain 99 % of the class, on "
        "average over all cases but test cases, and all otherwise or with folds.",
    )
    keep_foreground_components: str = Field(
        "auto",
        description="Number of largest connected components of the foreground (all "
        "classes together) that predictions keep, before those of each class; 0 keeps "
        "all. auto decides as for keep_components.",
    )
    mirror_axes: tuple[str, ...] = Field(
        ("auto",),
        description="Axes along which training may mirror patches: some of z, y, x, or "
        "none. auto is x, or none if the names of two classes differ only in left and "
        "right.",
    )
    split: SplitConfig = SplitConfig()
    splits_file: str | None = Field(
        None,
        description="JSON file with lists of cases, or nnU-Net's splits_final.json; if "
        "not given, cases are split at random.",
    )
    fold: str | None = Field(
        None,
        description="Fold of splits_file to use; fold0 if not given. Its validation "
        "cases become the test cases. With all, the folds become those of the plan, "
        "and there are no test cases. In nnU-Net's splits_final.json, folds are "
        "numbers, their validation cases are used for validation, and all is the "
        "default.",
    )
    exclude_faulty: bool = Field(
        False, description="Leave out cases that the survey found unusable."
    )
    max_memory_gb: MaxMemory = None
    unknown_labels: UnknownLabels = Field(
        _PAPER.unknown_labels,
        description="How to treat label values that are not listed in dataset.json.",
    )
    margin_voxels: int = Field(
        _PAPER.margin_voxels,
        ge=0,
        description="Margin, in voxels, kept around the bounding box of nonzero voxels "
        "when scans are cropped to it.",
    )
    clip_percentiles: tuple[float, float] = Field(
        _PAPER.clip_percentiles,
        description="Lower and upper percentiles to which intensities are clipped.",
    )
    intensity_floor: float | None = Field(
        _PAPER.intensity_floor,
        description="Lower limit of intensities, applied before percentiles are "
        "computed; no limit if not given.",
    )
    statistics_over: StatisticsOver = Field(
        _PAPER.statistics_over,
        description="Voxels over which mean and standard deviation are computed: all, "
        "or positive ones only, in which case voxels of exactly 0 stay 0.",
    )
    intensity_normalization: Normalization = Field(
        "auto",
        description="Statistics with which intensities are clipped and standardized: "
        "those of each scan, as in the paper (scan); medians over the foreground of "
        "all cases but test cases, similar to nnU-Net for CT (dataset); or the latter "
        "for modalities named CT (auto). auto is scan if clip_percentiles, "
        "intensity_floor or statistics_over differs from its default.",
    )
    size_rounding: SizeRounding = Field(
        _PAPER.size_rounding,
        description="Rounding of the size of resampled volumes to whole voxels.",
    )
