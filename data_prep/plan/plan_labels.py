"""Plans the classes of a domain and the components that predictions keep."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from data_prep.plan import label_classes
from data_prep.plan.choices import Choices
from data_prep.plan.network_settings import PRESETS
from data_prep.survey.examine_case import CaseFacts
from data_prep.survey.survey_file import DomainFacts
from u2net_tf.plan.domains import Label


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
    kept = [
        label_classes.components_to_keep(label, facts, cases=cases)
        if keep_components is None
        else keep_components * (0 not in label.values)
        for label in labels
    ]
    return tuple(
        dataclasses.replace(label, keep_components=count)
        for label, count in zip(labels, kept, strict=True)
    )


def keep_foreground(
    labels: Sequence[Label],
    cases: Sequence[CaseFacts],
    choices: Choices,
    *,
    folds: bool,
) -> int:
    """Returns how many components of the foreground predictions should keep.

    Args:
      labels: the classes, the background first.
      cases: its cases, without test cases.
      choices: settings of the plan.
      folds: whether the plan has folds, so that each case is a validation case.
    """
    if choices.keep_foreground_components is not None:
        return choices.keep_foreground_components
    if folds or choices.keep_components == 0:
        return 0
    return label_classes.foreground_components_to_keep(labels, cases=cases)
