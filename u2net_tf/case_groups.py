"""Groups of cases that belong together, such as the scans of a patient."""

from __future__ import annotations

import re
from collections.abc import Sequence

from u2net_tf.errors import InputError
from u2net_tf.wording import quantity


def group_cases(
    cases: Sequence[str], expression: str, *, setting: str, domain: str
) -> tuple[dict[str, list[str]], list[str]]:
    """Groups cases by what an expression captures in their names.

    Args:
      cases: names of the cases of a domain.
      expression: regular expression with one capturing group, searched in each name.
        If empty, each case is its own group.
      setting: the setting that the expression comes from, for messages.
      domain: name of the domain, for messages.

    Returns:
      Group -> its cases, and notes for the user: one if the expression matches no case,
      so that each is its own group.

    Raises:
      InputError: if the expression is invalid, or matches some of the cases only.
    """
    single_cases = {case: [case] for case in cases}
    if not expression:
        return single_cases, []
    pattern = _compile(expression, setting)
    matches = {case: pattern.search(case) for case in cases}
    if not any(matches.values()):
        return single_cases, [
            f"`{setting}`={expression} matches no case; each case is its own group"
        ]
    groups: dict[str, list[str]] = {}
    for case, match in matches.items():
        if match is None or match[1] is None:
            raise InputError(
                f"`{setting}`",
                expected=f"an expression that matches every case of {domain}",
                received=f"{expression!r}, which does not match {case!r}",
            )
        groups.setdefault(match[1], []).append(case)
    return groups, []


def _compile(expression: str, setting: str) -> re.Pattern[str]:
    where, expected = f"`{setting}`", "a regular expression with one capturing group"
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise InputError(
            where, expected=expected, received=f"{expression!r}: {error}"
        ) from error
    if pattern.groups != 1:
        received = f"{quantity(pattern.groups, 'group')} in {expression!r}"
        raise InputError(where, expected=expected, received=received)
    return pattern
