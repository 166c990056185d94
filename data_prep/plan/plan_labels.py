"""Plans classes, regions and the components that predictions keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from data_prep.plan import label_classes
from data_prep.plan.choices import Choices
from data_prep.plan.network_settings import PRESETS
from data_prep.survey.examine_case import CaseFacts
from data_prep.survey.survey_file import DomainFacts
from u2net_tf.errors import InputError
from u2net_tf.plan.labels import Label, Region
from u2net_tf.wording import first_few


def plan_labels(
    facts: DomainFacts, cases: Sequence[CaseFacts], choices: Choices, *, folds: bool
) -> tuple[Label, ...]:
    """Returns the classes, with the number of components that predictions should keep.

    Args:
      facts: survey of the domain.
      cases: its cases, without test cases.
      choices: settings of the plan.
      folds: whether the plan has folds, so that each case is a validation case.
    """
    keep_components = choices.keep_components
    if keep_components is None and folds:
        keep_components = 0
    if facts.name in choices.merges:
        merged = choices.merges[facts.name]
    elif choices.use_presets and facts.name in PRESETS:
        # These labels may be merged already in a copy of the task.
        merged = {
            name: values
            for name, values in PRESETS[facts.name].merged_labels.items()
            if set(values) <= set(facts.labels)
        }
    else:
        merged = {}
    labels = label_classes.merge_labels(facts.labels, merged, domain=facts.name)
    complete = _annotated_completely(facts, cases)
    kept = [
        label_classes.components_to_keep(label, facts, cases=complete)
        if keep_components is None
        else keep_components * (0 not in label.values)
        for label in labels
    ]
    return tuple(
        dataclasses.replace(label, keep_components=count)
        for label, count in zip(labels, kept, strict=True)
    )


def _annotated_completely(
    facts: DomainFacts, cases: Sequence[CaseFacts]
) -> list[CaseFacts]:
    """Returns the cases whose components are known, also in voxels without annotation.

    One that is annotated in a single slice, for example, has fewer or more components
    than the organ.
    """
    if facts.ignore_label is None:
        return list(cases)
    ignored = str(facts.ignore_label)
    return [case for case in cases if ignored not in case.label_voxels]


def keep_foreground(
    facts: DomainFacts,
    labels: Sequence[Label],
    cases: Sequence[CaseFacts],
    choices: Choices,
    *,
    folds: bool,
) -> int:
    """Returns how many components of the foreground predictions should keep.

    Args:
      facts: survey of the domain.
      labels: the classes, the background first.
      cases: its cases, without test cases.
      choices: settings of the plan.
      folds: whether the plan has folds, so that each case is a validation case.
    """
    if choices.keep_foreground_components is not None:
        return choices.keep_foreground_components
    if folds or choices.keep_components == 0:
        return 0
    complete = _annotated_completely(facts, cases)
    return label_classes.foreground_components_to_keep(labels, cases=complete)


def plan_regions(
    facts: DomainFacts, choices: Choices, labels: Sequence[Label]
) -> tuple[Region, ...]:
    """Returns the regions: those of `dataset.json`, then those of the setting.

    Args:
      facts: survey of the domain.
      choices: settings of the plan.
      labels: the classes, some of which may merge several values.

    Raises:
      InputError: if a region is given twice, or its values are not those of foreground
        classes, each with all of its values.
    """
    given = choices.regions.get(facts.name, {})
    if twice := sorted(set(facts.regions) & set(given)):
        raise InputError(
            f"`regions`={facts.name}:{twice[0]}",
            expected="a name that no region in dataset.json has",
            received=repr(twice[0]),
        )
    rows = [
        (f"{facts.name}: region {name!r}", name, values)
        for name, values in facts.regions.items()
    ]
    rows += [
        (f"`regions`={facts.name}:{name}", name, values)
        for name, values in given.items()
    ]
    return tuple(
        Region(name, _classes_of(where, values, labels)) for where, name, values in rows
    )


def _classes_of(
    where: str, values: Sequence[int], labels: Sequence[Label]
) -> tuple[str, ...]:
    """Returns the names of the classes with these values."""
    remaining = set(values)
    names = []
    for label in labels[1:]:
        found = remaining & set(label.values)
        if found and found < set(label.values):
            raise InputError(
                where,
                expected=f"all values of the class {label.name!r}, "
                f"{'+'.join(map(str, label.values))}, or none",
                received="+".join(map(str, sorted(found))),
            )
        if found:
            names.append(label.name)
            remaining -= found
    if remaining:
        known = sorted(value for label in labels[1:] for value in label.values)
        raise InputError(
            where,
            expected=f"values of foreground classes: {first_few(known, limit=20)}",
            received=first_few(sorted(remaining)),
        )
    return tuple(names)
