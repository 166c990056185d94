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

from data_prep.config import PlanConfig
from u2net_tf import command

if TYPE_CHECKING:
    from data_prep.planning import Choices, PlannedDomain
    from u2net_tf.domains import Plan, Preprocessing


def main(config: PlanConfig) -> None:
    """Reads the survey, writes the plan and prints it as a table."""
    from data_prep import planning, survey_files
    from u2net_tf import files
    from u2net_tf.domains import Plan
    from u2net_tf.plan_files import plan_from_json, plan_to_json

    surveyed = {d.name: d for d in survey_files.load_survey(config.survey)}
    names = config.domains or list(surveyed)
    _check_names("domains", names, surveyed)
    choices = _read_choices(config, names)
    _check_names("merge_labels", list(choices.merges), names)
    planned = [planning.plan_domain(surveyed[name], choices) for name in names]
    plan = Plan(domains=tuple(p.domain for p in planned), seed=config.seed)
    text = plan_to_json(plan)
    plan_from_json(text, config.survey)
    output = pathlib.Path(config.output)
    unchanged = output.is_file() and _says(output, plan)
    if output.is_dir():
        raise command.InputError(
            f"--output: expected a file, found the folder {output}"
        )
    if output.exists() and not unchanged and not config.overwrite:
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


def _read_choices(config: PlanConfig, names: Sequence[str]) -> Choices:
    from data_prep import label_classes, planning, splits
    from u2net_tf.domains import Preprocessing

    listed = None
    if config.splits_file is not None:
        for name in ("test_fraction", "validation_fraction", "split_by", "seed"):
            # Given at all, be it the default.
            if flags.FLAGS[name].present:
                raise command.InputError(
                    f"--{name}: expected nothing beside --splits_file, which lists the "
                    f"cases. Received: {getattr(config, name)!r}"
                )
        listed = splits.read_splits(config.splits_file, names, fold=config.fold)
    elif config.fold is not None:
        raise command.InputError(
            f"--fold={config.fold}: expected --splits_file beside it, found none"
        )
    return planning.Choices(
        preprocessing=Preprocessing(
            margin_voxels=config.margin_voxels,
            clip_percentiles=_check_percentiles(config.clip_percentiles),
            unknown_labels=config.unknown_labels,
            intensity_floor=config.intensity_floor,
            statistics_over=config.statistics_over,
            size_rounding=config.size_rounding,
        ),
        use_presets=config.preset == "auto",
        merges=label_classes.parse_merges(list(config.merge_labels)),
        keep_components=_read_keep_components(config.keep_components),
        mirror_axes=_read_mirror_axes(list(config.mirror_axes)),
        exclude_faulty=config.exclude_faulty,
        seed=config.seed,
        test_fraction=config.test_fraction,
        validation_fraction=config.validation_fraction,
        split_by=config.split_by,
        splits=listed,
        splits_file=config.splits_file or "",
    )


def _check_percentiles(pair: tuple[float, float]) -> tuple[float, float]:
    low, high = pair
    if not 0 <= low < high <= 100:
        raise command.InputError(
            "--clip_percentiles: expected two numbers, 0 <= lower < upper <= 100, such "
            f"as 2,98. Received: {low:g},{high:g}"
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
    command.start(main, PlanConfig)


if __name__ == "__main__":
    run()
