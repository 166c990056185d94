"""Derives the classes of a domain from the labels of `dataset.json`."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import numpy as np

from data_prep.survey.examine_case import CaseFacts
from data_prep.survey.measurements import FOREGROUND
from data_prep.survey.survey_file import DomainFacts
from u2net_tf.errors import InputError
from u2net_tf.plan.labels import Label, require_classes
from u2net_tf.wording import first_few

# domain -> name of a union -> its raw values.
Unions = Mapping[str, Mapping[str, tuple[int, ...]]]

_UNION = re.compile(r"(?P<domain>[^:=]+):(?P<name>[^:=]+)=(?P<values>\d+(\+\d+)+)")
# Smaller components are removed if the largest ones make up this fraction of a class,
# mean over cases.
_MIN_FRACTION = 0.99


def parse_unions(setting: str, texts: Sequence[str]) -> Unions:
    """Parses the values of `merge_labels` or `regions`.

    Args:
      setting: name of the setting, for error messages.
      texts: values such as "Task03_Liver:liver=1+2".

    Raises:
      InputError: if a value has a different form, or a union is given twice or contains
        a value twice.
    """
    unions: dict[str, dict[str, tuple[int, ...]]] = {}
    for text in texts:
        match = _UNION.fullmatch(text)
        if not match:
            raise InputError(
                f"`{setting}`",
                expected="DOMAIN:NAME=VALUE+VALUE such as Task03_Liver:liver=1+2",
                received=repr(text),
                hint=f"Give `{setting}` again for each further one"
                if "," in text
                else "",
            )
        of_domain = unions.setdefault(match["domain"], {})
        if match["name"] in of_domain:
            raise InputError(
                f"`{setting}`",
                expected=f"{match['name']!r} of {match['domain']} once",
                received="two entries",
            )
        values = tuple(int(value) for value in match["values"].split("+"))
        if len(set(values)) < len(values):
            raise InputError(
                f"`{setting}`={match['domain']}:{match['name']}",
                expected="each value once",
                received=match["values"],
            )
        of_domain[match["name"]] = values
    return unions


def merge_labels(
    labels: Mapping[int, str],
    merged: Mapping[str, tuple[int, ...]],
    *,
    domain: str,
) -> tuple[Label, ...]:
    """Returns classes in ascending order of their first values, background first.

    Args:
      labels: raw value -> name, with 0.
      merged: name of a class -> the raw values that it merges.
      domain: name of the domain, for error messages.

    Raises:
      InputError: if a value is unknown or in two classes, two classes have the same
        name, or only the background is left.
    """
    class_of: dict[int, str] = {}
    for name, values in merged.items():
        for value in values:
            if value not in labels:
                raise InputError(
                    f"`merge_labels`={domain}:{name}",
                    expected=f"values among {first_few(sorted(labels), limit=20)}",
                    received=value,
                )
            if value in class_of:
                raise InputError(
                    f"`merge_labels`={domain}:{name}",
                    expected="each value in one class",
                    received=f"{value} twice",
                )
            class_of[value] = name
    classes = [Label(name, tuple(sorted(values))) for name, values in merged.items()]
    classes += [Label(n, (v,)) for v, n in labels.items() if v not in class_of]
    classes.sort(key=lambda label: label.values[0])
    try:
        require_classes([label.name for label in classes])
    except InputError as error:
        hint = "Use `merge_labels` to merge labels under a new name"
        raise error.within(domain, hint=hint) from None
    return tuple(classes)


def components_to_keep(
    label: Label, domain: DomainFacts, *, cases: Sequence[CaseFacts]
) -> int:
    """Returns how many of the largest components of a class predictions should keep.

    One if the largest component is 99 % of the class in the reference, mean over
    the cases that have it; two if the two largest do (paired organs); otherwise all,
    which is 0. Merged classes were measured only if they merge the entire foreground.

    Args:
      label: the class.
      domain: survey of its domain; provides the label values.
      cases: cases over which to take the mean.
    """
    if 0 in label.values:
        return 0
    foreground = set(domain.labels) - {0}
    key = FOREGROUND if set(label.values) == foreground else str(label.values[0])
    if len(label.values) > 1 and key != FOREGROUND:
        return 0
    return _count_to_keep(key, cases)


def foreground_components_to_keep(
    labels: Sequence[Label], *, cases: Sequence[CaseFacts]
) -> int:
    """Returns how many of the largest components of the foreground to keep.

    As for a class. 0 if there is a single class, for which the same is done, or if some
    labels are part of the background, since the survey measured them all.

    Args:
      labels: the classes, the background first.
      cases: cases over which to take the mean.
    """
    if len(labels) == 2 or values_in_background(labels):
        return 0
    return _count_to_keep(FOREGROUND, cases)


def values_in_background(labels: Sequence[Label]) -> list[int]:
    """Returns the values that are merged with the background, ascending.

    The survey measured the foreground with the voxels of these values.

    Args:
      labels: the classes, the background first.
    """
    return sorted(set(labels[0].values) - {0})


def _count_to_keep(key: str, cases: Sequence[CaseFacts]) -> int:
    shares = [c.component_shares[key] for c in cases if key in c.component_shares]
    if not shares:
        return 0
    means = np.mean(shares, axis=0)
    return next((i + 1 for i in range(2) if means[i] >= _MIN_FRACTION), 0)
