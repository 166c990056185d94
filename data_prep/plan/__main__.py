r"""Decides how each domain is preprocessed, split and trained: survey -> plan.json.

    python -m data_prep.plan --survey=work --output=work/plan.json

The plan may be edited by hand. The six tasks of the Medical Segmentation Decathlon that
have published settings get those; every other folder gets them by a rule
(`data_prep/plan/network_settings.py`). Preprocessing is the paper's;
--flagfile=upstream takes that of the published code. Lists of cases for --splits_file:

    {"Task04_Hippocampus": {"train": ["hippocampus_001", …], "test": […]}}
    {"Task04_Hippocampus": {"fold0": {"train": […], "val": […]}}}
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from absl import flags

from data_prep.config import PlanConfig
from u2net_tf import command

if TYPE_CHECKING:
    from data_prep.plan.plan_domain import Choices, PlannedDomain
    from u2net_tf.plan.domains import Domain, Plan, Preprocessing


def main(config: PlanConfig) -> None:
    """Reads the survey, writes the plan and prints it as a table."""
    from data_prep.plan import plan_domain
    from data_prep.survey import survey_file
    from u2net_tf import files
    from u2net_tf.plan.domains import Plan
    from u2net_tf.plan.plan_file import plan_to_json

    surveyed = {d.name: d for d in survey_file.load_survey(config.survey)}
    names = config.domains or list(surveyed)
    _check_names("domains", names, surveyed)
    choices = read_choices(config, names)
    _check_names("merge_labels", list(choices.merges), names)
    planned = [plan_domain.plan_domain(surveyed[name], choices) for name in names]
    plan = Plan(domains=tuple(p.domain for p in planned), seed=config.split.seed)
    text = plan_to_json(plan)
    output = pathlib.Path(config.output)
    unchanged = output.is_file() and _says(output, plan)
    if output.is_dir():
        raise command.InputError(
            "`output`", expected="a file", received=f"the folder {output}"
        )
    if output.exists() and not unchanged and not config.overwrite:
        raise command.InputError(
            output,
            expected="a new file",
            received="a different plan, which may have been edited",
            hint="Use `overwrite` to replace it",
        )
    _print_report(planned)
    if unchanged:
        print(f"{output} already exists")
    else:
        files.write_text(output, text)
        print(f"wrote {output}")


def _says(path: pathlib.Path, plan: Plan) -> bool:
    """Whether a file holds this plan, in whatever words."""
    from u2net_tf.plan.plan_file import load_plan

    try:
        return load_plan(path) == plan
    except command.InputError:
        return False


def _check_names(name: str, names: Sequence[str], known: Sequence[str]) -> None:
    unknown = [domain for domain in names if domain not in known]
    if unknown or len(set(names)) < len(names):
        raise command.InputError(
            f"`{name}`",
            expected=f"distinct domains among {', '.join(known)}",
            received=", ".join(unknown or names),
        )


def read_choices(config: PlanConfig, names: Sequence[str]) -> Choices:
    """What the settings say, parsed and checked.

    Args:
      config: the settings.
      names: the domains to plan.

    Raises:
      InputError: names the setting.
    """
    from data_prep.plan import label_classes, plan_domain, split_file

    listed = None
    if config.splits_file is not None:
        for name, value in config.split.flat().items():
            # Given at all, be it the default.
            if flags.FLAGS[name].present:
                raise command.InputError(
                    f"`{name}`",
                    expected="no value beside `splits_file`, which lists the cases",
                    received=repr(value),
                )
        listed = split_file.read_splits(config.splits_file, names, fold=config.fold)
    elif config.fold is not None:
        raise command.InputError(
            f"`fold`={config.fold}",
            expected="`splits_file` beside it",
            received="none",
        )
    return plan_domain.Choices(
        preprocessing=_read_preprocessing(config),
        use_presets=config.preset == "auto",
        merges=label_classes.parse_merges(list(config.merge_labels)),
        keep_components=_read_keep_components(config.keep_components),
        mirror_axes=_read_mirror_axes(list(config.mirror_axes)),
        exclude_faulty=config.exclude_faulty,
        split=config.split,
        splits=listed,
        splits_file=config.splits_file or "",
    )


def _read_preprocessing(config: PlanConfig) -> Preprocessing:
    from u2net_tf.plan.domains import Preprocessing

    fields = {field.name for field in dataclasses.fields(Preprocessing)}
    values = {k: v for k, v in config.flat().items() if k in fields}
    try:
        return Preprocessing(**values)
    except command.InputError as error:
        name = error.where.rpartition(" ")[2].partition("[")[0]
        raise command.InputError(
            f"`{name}`", expected=error.expected, received=error.received
        ) from None


def _read_keep_components(text: str) -> int | None:
    if text == "auto":
        return None
    if not text.isdecimal():
        raise command.InputError(
            "`keep_components`",
            expected="auto or a whole number of at least 0",
            received=repr(text),
        )
    return int(text)


def _read_mirror_axes(texts: Sequence[str]) -> tuple[str, ...] | None:
    from u2net_tf.plan.domains import AXES

    if texts == ["auto"]:
        return None
    if texts in (["none"], []):
        return ()
    if not set(texts) <= set(AXES) or len(set(texts)) < len(texts):
        raise command.InputError(
            "`mirror_axes`",
            expected=f"auto, none or some of {','.join(AXES)}",
            received=",".join(texts),
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
                _training_cases(domain),
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
        print(command.name_flags(note))


def _training_cases(domain: Domain) -> str:
    """How many cases there are to train on, and in how many folds."""
    count = len(domain.with_fold(None).train)
    return f"{count} in {len(domain.folds)} folds" if domain.folds else str(count)


def _changed_preprocessing(preprocessing: Preprocessing) -> list[str]:
    """What the flags of all domains make other than the paper has it."""
    from u2net_tf.plan.domains import Preprocessing

    return [
        f"{name}={getattr(preprocessing, name)}"
        for name in ("intensity_floor", "statistics_over", "size_rounding")
        if getattr(preprocessing, name) != getattr(Preprocessing(), name)
    ]


def _triple(values: Iterable[object]) -> str:
    return " × ".join(str(value) for value in values)


def run() -> None:
    """Entry point of `u2net-plan`."""
    command.start(main, PlanConfig)


if __name__ == "__main__":
    run()
