"""Splits the cases of a domain at random."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
import re
from collections.abc import Sequence

from u2net_tf.case_groups import group_cases
from u2net_tf.errors import InputError


@dataclasses.dataclass(frozen=True)
class CaseSplit:
    """The cases of one domain.

    Attributes:
      train: training cases.
      validation: cases to monitor training with.
      test: cases for the final scores.
      folds: training cases in folds, instead of `train` and `validation`.
      notes: notes for the user.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    folds: tuple[tuple[str, ...], ...] = ()
    notes: tuple[str, ...] = ()


def draw_split(
    cases: Sequence[str],
    *,
    domain: str,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    num_folds: int = 0,
    split_by: str = "",
) -> CaseSplit:
    """Splits cases at random; groups of cases stay together.

    Groups are taken in the order of a hash of (seed, domain, group), which depends
    neither on the other domains nor on a library's random numbers. At least one group
    is left for training.

    Args:
      cases: names of the cases.
      domain: name of the domain.
      test_fraction: fraction of the groups to test on, from 0 to below 1.
      validation_fraction: fraction of the remaining groups to validate on.
      seed: seed of the split.
      num_folds: number of folds of the remaining groups, of equal size up to one group;
        0 for none.
      split_by: regular expression with one capturing group, searched in each name.
        Cases with the same match stay together. If empty, each case is its own group.

    Raises:
      InputError: if a setting is invalid, or the expression matches some of the cases
        only.
    """
    groups, notes = group_cases(cases, split_by, setting="split_by", domain=domain)
    if num_folds == 1 or (num_folds and validation_fraction):
        raise InputError(
            "`num_folds`",
            expected="at least 2, and no `validation_fraction`, or 0",
            received=f"{num_folds}, and {validation_fraction:g}",
        )
    shuffled = sorted(groups, key=lambda group: _sort_key(seed, domain, group))
    num_test = _fraction_of(len(shuffled), test_fraction)
    num_validation = _fraction_of(len(shuffled) - num_test, validation_fraction)
    test, remaining = shuffled[:num_test], shuffled[num_test:]
    if num_folds > len(remaining):
        raise InputError(
            "`num_folds`",
            expected=f"at most {len(remaining)}, the training groups of {domain}",
            received=num_folds,
        )
    validation, train = remaining[:num_validation], remaining[num_validation:]
    for name, chosen, fraction in (
        ("test", test, test_fraction),
        ("validation", validation, validation_fraction),
    ):
        if fraction and not chosen:
            few = "groups of cases" if split_by else "cases"
            notes.append(f"too few {few} for a {name} split")
    folds = tuple(train[index::num_folds] for index in range(num_folds))

    def cases_of(part: Sequence[str]) -> tuple[str, ...]:
        return tuple(sorted(case for group in part for case in groups[group]))

    return CaseSplit(
        train=() if folds else cases_of(train),
        validation=cases_of(validation),
        test=cases_of(test),
        folds=tuple(map(cases_of, folds)),
        notes=tuple(notes),
    )


# A patient's identifier in the name of a case, and its prefix.
_PATIENT = re.compile(
    r"(?<![a-zA-Z])(?:((?i:patient|subject|subj|pat)[-_ ]?)\d+|((?i:sub)-)[0-9a-zA-Z]+)"
)


def suggest_split_by(cases: Sequence[str]) -> str:
    r"""Suggests an expression for `split_by` that keeps patients together.

    Args:
      cases: names of cases, for example patient001_frame01 and patient001_frame12.

    Returns:
      The expression, here `(patient\d+)`; "" if no two names seem to belong to the same
      patient.
    """
    matches = list(filter(None, map(_PATIENT.search, cases)))
    if len({match[0] for match in matches}) == len(matches):
        return ""
    prefixes = collections.Counter(match[1] or match[2] for match in matches)
    prefix = prefixes.most_common(1)[0][0]
    number = "[0-9a-zA-Z]+" if prefix.lower() == "sub-" else r"\d+"
    patient = f"{prefix}{number}"
    if all(re.search(patient, case) for case in cases):
        return f"({patient})"
    # Each other case is its own group.
    return f"({patient}|^(?!.*{patient}).*)"


def _sort_key(seed: int, domain: str, group: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{domain}/{group}".encode()).digest()


def _fraction_of(count: int, fraction: float) -> int:
    """Returns a fraction of `count`, rounded; if possible neither 0 nor all of it."""
    if not fraction or count < 2:
        return 0
    return min(max(math.floor(count * fraction + 0.5), 1), count - 1)
