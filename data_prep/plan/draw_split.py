"""Draws the training, validation and test cases of a domain."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
import re
from collections.abc import Sequence

from u2net_tf.errors import InputError
from u2net_tf.wording import quantity


@dataclasses.dataclass(frozen=True)
class CaseSplit:
    """The cases of one domain.

    Attributes:
      train: to train on.
      validation: to monitor training with.
      test: for the final scores.
      folds: to train on, in groups, instead of `train` and `validation`.
      notes: what the user should know about it.
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
    """Splits at random; a group of cases stays together.

    The order in which groups are taken is that of a hash of (seed, domain, group): it
    depends neither on the other domains nor on the library that draws. At least one
    group is trained on.

    Args:
      cases: names.
      domain: the domain's name.
      test_fraction: share of the groups to test on, from 0 to below 1.
      validation_fraction: share of the remaining groups to validate on.
      seed: of the draw.
      num_folds: number of folds of the remaining groups, of equal size or one group
        more; 0 for none.
      split_by: regular expression, searched in a name; its one group, in brackets, is
        what cases have in common. If it is empty, each case is its own group.

    Raises:
      InputError: names the setting, and the case that the expression does not fit.
    """
    groups, notes = _group(cases, split_by, domain)
    if num_folds == 1 or (num_folds and validation_fraction):
        raise InputError(
            "`num_folds`",
            expected="at least 2, and no `validation_fraction`, or 0",
            received=f"{num_folds}, and {validation_fraction:g}",
        )
    queue = sorted(groups, key=lambda group: _draw_key(seed, domain, group))
    num_test = _share(len(queue), test_fraction)
    num_validation = _share(len(queue) - num_test, validation_fraction)
    test, rest = queue[:num_test], queue[num_test:]
    if num_folds > len(rest):
        raise InputError(
            "`num_folds`",
            expected=f"at most {len(rest)}, the groups of training cases of {domain}",
            received=num_folds,
        )
    validation, train = rest[:num_validation], rest[num_validation:]
    for name, chosen, fraction in (
        ("test", test, test_fraction),
        ("validation", validation, validation_fraction),
    ):
        if fraction and not chosen:
            notes.append(f"too few cases for any to be in {name}")
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


def _group(
    cases: Sequence[str], split_by: str, domain: str
) -> tuple[dict[str, list[str]], list[str]]:
    alone = {case: [case] for case in cases}
    if not split_by:
        return alone, []
    pattern = _compile(split_by)
    matches = {case: pattern.search(case) for case in cases}
    if not any(matches.values()):
        return alone, [
            f"`split_by`={split_by} matches no case; each case is its own group"
        ]
    groups: dict[str, list[str]] = {}
    for case, match in matches.items():
        if match is None or match[1] is None:
            raise InputError(
                "`split_by`",
                expected=f"an expression that matches every case of {domain}",
                received=f"{split_by!r}, which does not match {case!r}",
            )
        groups.setdefault(match[1], []).append(case)
    return groups, []


# A patient's number in the name of a case, and what precedes it.
_PATIENT = re.compile(
    r"(?<![a-zA-Z])(?:((?i:patient|subject|subj|pat)[-_ ]?)\d+|((?i:sub)-)[0-9a-zA-Z]+)"
)


def suggest_split_by(cases: Sequence[str]) -> str:
    r"""An expression for `split_by` that keeps patients together.

    Args:
      cases: names, for example patient001_frame01 and patient001_frame12, for which it
        is `(patient\d+)`.

    Returns:
      "" if no two names seem to be of one patient.
    """
    matches = list(filter(None, map(_PATIENT.search, cases)))
    if len({match[0] for match in matches}) == len(matches):
        return ""
    starts = collections.Counter(match[1] or match[2] for match in matches)
    start = starts.most_common(1)[0][0]
    number = "[0-9a-zA-Z]+" if start.lower() == "sub-" else r"\d+"
    patient = f"{start}{number}"
    if all(re.search(patient, case) for case in cases):
        return f"({patient})"
    # Every other case is a group of its own.
    return f"({patient}|^(?!.*{patient}).*)"


def _compile(split_by: str) -> re.Pattern[str]:
    where, expected = "`split_by`", "a regular expression with one group in brackets"
    try:
        pattern = re.compile(split_by)
    except re.error as error:
        raise InputError(
            where, expected=expected, received=f"{split_by!r}: {error}"
        ) from error
    if pattern.groups != 1:
        received = f"{quantity(pattern.groups, 'group')} in {split_by!r}"
        raise InputError(where, expected=expected, received=received)
    return pattern


def _draw_key(seed: int, domain: str, group: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{domain}/{group}".encode()).digest()


def _share(count: int, fraction: float) -> int:
    """A share of `count`, rounded; not none of it and not all of it, if possible."""
    if not fraction or count < 2:
        return 0
    return min(max(math.floor(count * fraction + 0.5), 1), count - 1)
