"""Writes plan.json from a survey and the settings."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Collection, Sequence

from data_prep.config import PlanConfig
from data_prep.plan.choices import read_choices
from data_prep.plan.plan_domain import PlannedDomain, plan_domain
from data_prep.survey import survey_file
from u2net_tf import files, temporary_names
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.plan_file import load_plan, plan_to_json


def write_plan(config: PlanConfig) -> tuple[list[PlannedDomain], bool]:
    """Plans the domains of a survey and writes the plan, unless it exists already.

    Args:
      config: the settings.

    Returns:
      The planned domains, and whether the file was written.

    Raises:
      InputError: if input cannot be used, or the file has a different plan.
    """
    surveyed = {d.name: d for d in survey_file.load_survey(config.survey)}
    names = config.domains or list(surveyed)
    _check_names("domains", names, surveyed)
    choices = read_choices(config, names)
    _check_names("merge_labels", list(choices.merges), names)
    _check_names("regions", list(choices.regions), names)
    planned = [plan_domain(surveyed[name], choices) for name in names]
    plan = Plan(domains=tuple(p.domain for p in planned), seed=config.split.seed)
    output = pathlib.Path(config.output)
    if output.is_dir():
        raise InputError("`output`", expected="a file", received=f"the folder {output}")
    if output.is_file() and _contains_plan(output, plan):
        return planned, False
    if output.exists() and not config.overwrite:
        raise InputError(
            output,
            expected="a new file",
            received="a different plan, which may have been edited",
            hint="Use `overwrite` to replace it",
        )
    files.write_text(output, plan_to_json(plan))
    temporary_names.remove_leftovers(output.parent)
    return planned, True


def _contains_plan(path: pathlib.Path, plan: Plan) -> bool:
    """Returns whether a file contains this plan, however the JSON is formatted."""
    try:
        found = load_plan(path)
    except InputError:
        return False
    # Older plans do not record the ranges of their scans, and are accepted as well.
    without_ranges = {domain.name for domain in found.domains if domain.scans is None}
    domains = tuple(
        dataclasses.replace(domain, scans=None)
        if domain.name in without_ranges
        else domain
        for domain in plan.domains
    )
    return found == dataclasses.replace(plan, domains=domains)


def _check_names(name: str, names: Sequence[str], known: Collection[str]) -> None:
    unknown = [domain for domain in names if domain not in known]
    if unknown or len(set(names)) < len(names):
        raise InputError(
            f"`{name}`",
            expected=f"distinct domains among {', '.join(known)}",
            received=", ".join(unknown or names),
        )
