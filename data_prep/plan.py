r"""Decides how each domain is preprocessed, split and trained: survey -> plan.json.

    python -m data_prep.plan --survey=work --output=work/plan.json

The plan may be edited by hand. The six tasks of the Medical Segmentation Decathlon that
have published settings get those; every other folder gets them by a rule
(`data_prep/network_settings.py`). Preprocessing is the paper's;
--flagfile=data_prep/flagfiles/upstream.flags takes that of the published code. Lists of
cases for --splits_file:

    {"Task04_Hippocampus": {"train": ["hippocampus_001", …], "test": […]}}
    {"Task04_Hippocampus": {"fold0": {"train": […], "val": […]}}}
"""

from __future__ import annotations

import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from absl import flags

from u2net_tf import command

if TYPE_CHECKING:
    from data_prep.planning import Choices, PlannedDomain
    from u2net_tf.domains import Plan, Preprocessing

_SURVEY = flags.DEFINE_string(
    "survey", None, "survey.json of data_prep.survey, or the folder it lies in."
)
_OUTPUT = flags.DEFINE_string("output", None, "The plan to write, a .json file.")
_DOMAINS = flags.DEFINE_list(
    "domains", [], "Domains of the survey, in the order of their indices; all if empty."
)
_OVERWRITE = flags.DEFINE_bool(
    "overwrite", False, "Replace a plan that says something else."
)
_PRESET = flags.DEFINE_enum(
    "preset",
    "auto",
    ["auto", "rule"],
    "auto: published settings and label merges for the tasks that have them; rule: "
    "the rule for all.",
)
_MERGE_LABELS = flags.DEFINE_multi_string(
    "merge_labels",
    [],
    "Classes that join labels, for example Task03_Liver:liver=1+2. Replaces the merges "
    "of that domain's preset.",
)
_KEEP_COMPONENTS = flags.DEFINE_string(
    "keep_components",
    "auto",
    "Largest components that a prediction keeps of each class; 0 keeps all; auto: 1 or "
    "2 where these hold 99 % of the class in the survey, else all.",
)
_MIRROR_AXES = flags.DEFINE_list(
    "mirror_axes",
    ["auto"],
    "Axes that training may mirror: z, y, x; none; auto: x, or none where two classes "
    "are the left and right of something.",
)
_TEST_FRACTION = flags.DEFINE_float("test_fraction", 0.2, "Share of the cases to test.")
_VALIDATION_FRACTION = flags.DEFINE_float(
    "validation_fraction", 0.0, "Share of the training cases to watch instead."
)
_SEED = flags.DEFINE_integer("seed", 0, "Seed of the split.", lower_bound=0)
_SPLIT_BY = flags.DEFINE_string(
    "split_by",
    "",
    r"Regular expression whose group keeps cases together, for example (patient\d+)_",
)
_SPLITS_FILE = flags.DEFINE_string("splits_file", None, "JSON with lists of cases.")
_FOLD = flags.DEFINE_string(
    "fold", None, "Fold of --splits_file where it has folds; fold0 if not given."
)
_EXCLUDE_FAULTY = flags.DEFINE_bool(
    "exclude_faulty", False, "Leave out the cases that the survey found unusable."
)
_UNKNOWN_LABELS = flags.DEFINE_enum(
    "unknown_labels",
    "fail",
    ["fail", "background"],
    "What a label value is that dataset.json does not list.",
)
_MARGIN_VOXELS = flags.DEFINE_integer(
    "margin_voxels", 5, "Margin around the box of non-zero voxels.", lower_bound=0
)
_CLIP_PERCENTILES = flags.DEFINE_list(
    "clip_percentiles", ["2", "98"], "Percentiles that intensities are clipped to."
)
_INTENSITY_FLOOR = flags.DEFINE_float(
    "intensity_floor",
    None,
    "Set lower intensities to this one before percentiles are taken; no limit if not "
    "given.",
)
_STATISTICS_OVER = flags.DEFINE_enum(
    "statistics_over",
    "all",
    ["all", "positive"],
    "Voxels that mean and standard deviation are taken over: all, or those above 0; "
    "voxels of exactly 0 then become 0.",
)
_SIZE_ROUNDING = flags.DEFINE_enum(
    "size_rounding",
    "nearest",
    ["nearest", "truncate"],
    "How the size of a resampled volume becomes a whole number.",
)


def main(argv: Sequence[str]) -> None:
    """Reads the survey, writes the plan and prints it as a table."""
    del argv
    for flag in (_SURVEY, _OUTPUT):
        if flag.value is None:
            raise command.InputError(f"--{flag.name}: expected a path, found none")
    from data_prep import planning, survey_files
    from u2net_tf import files
    from u2net_tf.domains import Plan
    from u2net_tf.plan_files import plan_from_json, plan_to_json

    surveyed = {d.name: d for d in survey_files.load_survey(_SURVEY.value)}
    names = _DOMAINS.value or list(surveyed)
    _check_names("domains", names, surveyed)
    choices = _read_choices(names)
    _check_names("merge_labels", list(choices.merges), names)
    planned = [planning.plan_domain(surveyed[name], choices) for name in names]
    plan = Plan(domains=tuple(p.domain for p in planned), seed=_SEED.value)
    text = plan_to_json(plan)
    plan_from_json(text, _SURVEY.value)
    output = pathlib.Path(_OUTPUT.value)
    unchanged = output.is_file() and _says(output, plan)
    if output.is_dir():
        raise command.InputError(
            f"--output: expected a file, found the folder {output}"
        )
    if output.exists() and not unchanged and not _OVERWRITE.value:
        raise command.InputError(
            f"{output}: expected a new file, found one that says something else and "
            "may have been edited (--overwrite replaces it)"
        )
    _print_report(planned)
    if unchanged:
        print(f"{output} was there already")
    else:
        files.write_text(output, text)
        print(f"wrote {output}")


def _says(path: pathlib.Path, plan: Plan) -> bool:
    """Whether a file holds this plan, in whatever words."""
    from u2net_tf.plan_files import load_plan

    try:
        return load_plan(path) == plan
    except (command.InputError, UnicodeDecodeError):
        return False


def _check_names(flag: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [name for name in names if name not in known]
    if unknown or len(set(names)) < len(names):
        raise command.InputError(
            f"--{flag}: expected distinct domains among {', '.join(known)}. "
            f"Received: {', '.join(unknown or names)}"
        )


def _read_choices(names: Sequence[str]) -> Choices:
    from data_prep import label_classes, planning, splits
    from u2net_tf.domains import Preprocessing

    listed = None
    if _SPLITS_FILE.value is not None:
        for flag in (_TEST_FRACTION, _VALIDATION_FRACTION, _SPLIT_BY, _SEED):
            if flags.FLAGS[flag.name].present:
                raise command.InputError(
                    f"--{flag.name}: expected nothing beside --splits_file, which "
                    f"lists the cases. Received: {flag.value!r}"
                )
        listed = splits.read_splits(_SPLITS_FILE.value, names, fold=_FOLD.value)
    elif _FOLD.value is not None:
        raise command.InputError(
            f"--fold={_FOLD.value}: expected --splits_file beside it, found none"
        )
    return planning.Choices(
        preprocessing=Preprocessing(
            margin_voxels=_MARGIN_VOXELS.value,
            clip_percentiles=_read_percentiles(_CLIP_PERCENTILES.value),
            unknown_labels=_UNKNOWN_LABELS.value,
            intensity_floor=_INTENSITY_FLOOR.value,
            statistics_over=_STATISTICS_OVER.value,
            size_rounding=_SIZE_ROUNDING.value,
        ),
        use_presets=_PRESET.value == "auto",
        merges=label_classes.parse_merges(_MERGE_LABELS.value),
        keep_components=_read_keep_components(_KEEP_COMPONENTS.value),
        mirror_axes=_read_mirror_axes(_MIRROR_AXES.value),
        exclude_faulty=_EXCLUDE_FAULTY.value,
        seed=_SEED.value,
        test_fraction=_TEST_FRACTION.value,
        validation_fraction=_VALIDATION_FRACTION.value,
        split_by=_SPLIT_BY.value,
        splits=listed,
        splits_file=_SPLITS_FILE.value or "",
    )


def _read_percentiles(texts: Sequence[str]) -> tuple[float, float]:
    try:
        low, high = (float(text) for text in texts)
    except ValueError:
        low, high = 0.0, 0.0
    if not 0 <= low < high <= 100:
        raise command.InputError(
            "--clip_percentiles: expected two numbers, 0 <= lower < upper <= 100, such "
            f"as 2,98. Received: {','.join(texts)}"
        )
    return low, high


def _read_keep_components(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise command.InputError(
            "--keep_components: expected auto or a whole number of at least 0. "
            f"Received: {text!r}"
        )
    return int(text)


def _read_mirror_axes(texts: Sequence[str]) -> tuple[str, ...] | None:
    from u2net_tf.domains import AXES

    if texts == ["auto"]:
        return None
    if texts in (["none"], []):
        return ()
    if not set(texts) <= set(AXES) or len(set(texts)) < len(texts):
        raise command.InputError(
            f"--mirror_axes: expected auto, none or some of {','.join(AXES)}. "
            f"Received: {','.join(texts)}"
        )
    return tuple(texts)


def _print_report(planned: Sequence[PlannedDomain]) -> None:
    from data_prep import text_table

    rows = []
    for item in planned:
        domain = item.domain
        rows.append(
            [
                domain.name,
                _triple(f"{size:.3g}" for size in domain.spacing_mm),
                _triple(domain.median_shape),
                _triple(domain.patch_size),
                ",".join(map(str, domain.pools)),
                domain.batch_size,
                len(domain.train),
                len(domain.validation),
                len(domain.test),
                item.settings_from,
            ]
        )
    header = ["domain (z × y × x)", "spacing mm", "median shape", "patch", "pools"]
    header += ["batch", "train", "validation", "test", "settings"]
    print(text_table.format_table(header, rows))
    changed = _changed_preprocessing(planned[0].domain.preprocessing)
    if changed:
        print(f"preprocessing: {', '.join(changed)}")
    for note in (note for item in planned for note in item.notes):
        print(note)


def _changed_preprocessing(preprocessing: Preprocessing) -> list[str]:
    """What the flags of all domains make other than the paper has it."""
    from u2net_tf.domains import LATER_PREPROCESSING, Preprocessing

    return [
        f"{name}={getattr(preprocessing, name)}"
        for name in LATER_PREPROCESSING
        if getattr(preprocessing, name) != getattr(Preprocessing(), name)
    ]


def _triple(values: Iterable[object]) -> str:
    return " × ".join(str(value) for value in values)


def run() -> None:
    """Entry point of `u2net-plan`."""
    command.start(main)


if __name__ == "__main__":
    run()
