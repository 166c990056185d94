"""Settings of `u2net_tf.evaluate`, `u2net_tf.score` and `u2net_tf.compare`."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal, TypeAlias

import pydantic
from pydantic import Field
from typing_extensions import Self

from u2net_tf.config.base import Config
from u2net_tf.config.inference import ReadingConfig, WindowConfig
from u2net_tf.config.log import LogConfig
from u2net_tf.config.memory import MaxWorkerMemory
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Split

SurfaceTolerance: TypeAlias = Annotated[
    float | None,
    Field(
        gt=0,
        description="Compare surfaces as well, with this tolerance, mm: the 95th "
        "percentile of the Hausdorff distance (HD95), and the surface Dice, which is "
        "the fraction of both surfaces that is at most this far from the other one.",
    ),
]
Measure: TypeAlias = Literal["dice", "surface_dice", "hd95_mm", "false_positive_ml"]
RawDir: TypeAlias = Annotated[
    str | None,
    Field(
        description="Folder of domain folders; needed only if the scans have moved "
        "since the survey."
    ),
]


class EvaluateConfig(Config):
    """Settings of `u2net_tf.evaluate`."""

    model_dir: tuple[str, ...] = Field(
        description="Folder of a model (written by train, adapt or compose) or of "
        "several independent models. Several values, separated by commas, are models "
        "of the same domains, whose probabilities are averaged."
    )
    output_dir: str | None = Field(
        None,
        description="Folder for scores and label maps; MODEL_DIR/SPLIT if not given. "
        "Required if there are several models.",
    )
    raw_dir: RawDir = None
    domains: tuple[str, ...] = Field((), description="Domains to score; all if empty.")
    split: Split = Field("test", description="Split whose cases are scored.")
    plan: str | None = Field(
        None,
        description="Plan that lists the cases to score; the model's own if not given. "
        "Needed for models that do not list cases, such as those of compose, and for "
        "scoring other cases.",
    )
    fold: int | None = Field(
        None,
        ge=0,
        description="Fold of the given plan whose cases form the validation split; if "
        "not given, the cases of all folds are training cases.",
    )
    surface_tolerance_mm: SurfaceTolerance = None
    overwrite: bool = Field(
        False,
        description="Predict and score all cases again, and replace label maps that "
        "were edited.",
    )
    windows: WindowConfig = WindowConfig()
    reading: ReadingConfig = ReadingConfig()
    log: LogConfig = LogConfig()

    # Settings that affect probabilities; pruning is recorded as the network's depth.
    prediction_settings: ClassVar[tuple[str, ...]] = (
        "overlap",
        "skip_empty",
        "test_time_mirroring",
        "precision",
        "gate_threshold",
        "resample_modalities",
    )

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        if self.output_dir is None and len(self.model_dir) > 1:
            raise InputError(
                "`output_dir`",
                expected="a folder, as there are several models",
                received="none",
            )
        return self

    @property
    def changed_prediction(self) -> dict[str, float | bool | str]:
        """The `prediction_settings` that are not the defaults."""
        values = self.flat()
        defaults = WindowConfig().flat() | ReadingConfig().flat()
        return {
            name: values[name]
            for name in self.prediction_settings
            if values[name] != defaults[name]
        }


class ScoreConfig(Config):
    """Settings of `u2net_tf.score`."""

    predictions: tuple[str, ...] = Field(
        description="Folder of label maps, named like the cases, or of a folder of "
        "them for each domain, as evaluate writes. Several values, separated by "
        "commas, such as those of the models of a cross-validation, are scored "
        "together."
    )
    plan: str = Field(
        description="Plan with the classes, regions and cases of the domains."
    )
    output_dir: str = Field(description="Folder for dice.csv and summary.json.")
    references: str | None = Field(
        None,
        description="Folder of the reference label maps of a single domain, for cases "
        "that the plan does not list. If not given, the references are those of the "
        "cases of the split.",
    )
    raw_dir: RawDir = None
    domains: tuple[str, ...] = Field(
        (),
        description="Domains to score; if empty, the only one of the plan, or those "
        "with a folder in predictions.",
    )
    split: Split = Field(
        "test", description="Split whose cases are scored, without references."
    )
    fold: int | None = Field(
        None,
        ge=0,
        description="Fold whose cases form the validation split; if not given, the "
        "cases of all folds are training cases.",
    )
    surface_tolerance_mm: SurfaceTolerance = None
    num_workers: int | None = Field(
        None,
        ge=1,
        description="Maximum number of worker processes, each with one case at a "
        "time; the number of cores if not given.",
    )
    on_bad_case: Literal["fail", "skip"] = Field(
        "skip",
        description="Stop at a case without a usable label map (fail), or continue, "
        "list it at the end and exit with status 1 (skip).",
    )
    max_memory_gb: MaxWorkerMemory = None
    log: LogConfig = LogConfig()


class CompareConfig(Config):
    """Settings of `u2net_tf.compare`."""

    baseline: str = Field(
        description="Folder with the scores to compare with, written by evaluate or "
        "score."
    )
    candidate: str = Field(
        description="Folder with the scores that are compared with them."
    )
    domains: tuple[str, ...] = Field(
        (), description="Domains to compare; all that are in both if empty."
    )
    measure: Measure = Field(
        "dice",
        description="Score to compare: the Dice, the surface Dice or HD95 (if surfaces "
        "were compared), or the predicted volume in cases whose reference lacks the "
        "class (false_positive_ml).",
    )
    group_by: str = Field(
        "",
        description="Regular expression with one capturing group, searched in the "
        "names of the cases. Cases with the same match, such as the scans of a "
        "patient, are not independent, and count as one, with their mean score.",
    )
    output: str | None = Field(
        None, description="Picture to write (.png): the score of each case in both."
    )
