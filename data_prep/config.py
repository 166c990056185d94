"""Settings of the data preparation commands."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from u2net_tf import manifest
from u2net_tf.config.base import Config


class SurveyConfig(Config):
    """Settings of `data_prep.survey`."""

    raw_dir: str = Field(description="Folder with a folder per domain, or one such.")
    domains: tuple[str, ...] = Field(
        (), description="Folders below raw_dir to read; all if empty."
    )
    output_dir: str = Field(description="Folder to write into.")
    spacing_source: Literal["pixdim", "affine"] = Field(
        "pixdim",
        description="Where the voxel size is read from when a header contradicts "
        "itself.",
    )
    num_workers: int | None = Field(
        None,
        ge=1,
        description="Processes, one case in each; the number of cores if not given.",
    )


class ConvertConfig(Config):
    """Settings of `data_prep.convert`."""

    plan: str = Field(description="Plan, as data_prep.plan writes it.")
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
    shard_size_mb: int = Field(
        100,
        ge=1,
        description="A shard is closed once it is this large, before compression.",
    )
    compression: Literal[manifest.COMPRESSIONS] = Field(
        "none", description="Compression of the shards."
    )
    image_dtype: Literal[manifest.IMAGE_DTYPES] = Field(
        "float16", description="Type that images are stored in."
    )
    on_bad_case: Literal["fail", "skip"] = Field(
        "fail", description="Stop at a case that cannot be used, or list it and go on."
    )
    overwrite: bool = Field(
        False,
        description="Replace shards that were made with another plan, other flags or "
        "other raw files.",
    )


class VerifyConfig(Config):
    """Settings of `data_prep.verify`."""

    data_dir: str = Field(description="Folder that convert wrote.")
    domains: tuple[str, ...] = Field((), description="Domains to verify; all if empty.")


class PlanConfig(Config):
    """Settings of `data_prep.plan`."""

    survey: str = Field(
        description="survey.json of data_prep.survey, or the folder it lies in."
    )
    output: str = Field(description="The plan to write, a .json file.")
    domains: tuple[str, ...] = Field(
        (),
        description="Domains of the survey, in the order of their indices; all if "
        "empty.",
    )
    overwrite: bool = Field(
        False, description="Replace a plan that says something else."
    )
    preset: Literal["auto", "rule"] = Field(
        "auto",
        description="auto: published settings and label merges for the tasks that have "
        "them; rule: the rule for all.",
    )
    merge_labels: tuple[str, ...] = Field(
        (),
        description="Classes that join labels, for example Task03_Liver:liver=1+2. "
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
        "where two classes are the left and right of something.",
    )
    test_fraction: float = Field(0.2, description="Share of the cases to test.")
    validation_fraction: float = Field(
        0.0, description="Share of the training cases to watch instead."
    )
    seed: int = Field(0, ge=0, description="Seed of the split.")
    split_by: str = Field(
        "",
        description="Regular expression whose group keeps cases together, for example "
        r"(patient\d+)_",
    )
    splits_file: str | None = Field(None, description="JSON with lists of cases.")
    fold: str | None = Field(
        None, description="Fold of splits_file where it has folds; fold0 if not given."
    )
    exclude_faulty: bool = Field(
        False, description="Leave out the cases that the survey found unusable."
    )
    unknown_labels: Literal["fail", "background"] = Field(
        "fail", description="What a label value is that dataset.json does not list."
    )
    margin_voxels: int = Field(
        5, ge=0, description="Margin around the box of non-zero voxels."
    )
    clip_percentiles: tuple[float, float] = Field(
        (2.0, 98.0), description="Percentiles that intensities are clipped to."
    )
    intensity_floor: float | None = Field(
        None,
        description="Set lower intensities to this one before percentiles are taken; "
        "no limit if not given.",
    )
    statistics_over: Literal["all", "positive"] = Field(
        "all",
        description="Voxels that mean and standard deviation are taken over: all, or "
        "those above 0; voxels of exactly 0 then become 0.",
    )
    size_rounding: Literal["nearest", "truncate"] = Field(
        "nearest",
        description="How the size of a resampled volume becomes a whole number.",
    )
