"""Which cases are trained on, watched and tested on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from u2net_tf.domains import SPLITS
from u2net_tf.errors import InputError
from u2net_tf.volumes import msd


@dataclasses.dataclass(frozen=True)
class Split:
    """The cases of one domain.

    Attributes:
      train: to train on.
      validation: watched during training.
      test: for the final scores.
      notes: what the user should know about it.
    """

    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]
    notes: tuple[str, ...] = ()


def draw_split(
    cases: Sequence[str],
    *,
    domain: str,
    test_fraction: float,
    validation_fraction: float,
    seed: int,
    split_by: str = "",
) -> Split:
    """Splits at random; a group of cases stays together.

    The order in which groups are taken is that of a hash of (seed, domain, group): it
    depends neither on the other domains nor on the library that draws. At least one
    group is trained on.

    Args:
      cases: names.
      domain: the domain's name.
      test_fraction: share of the groups to test on, from 0 to below 1.
      validation_fraction: share of the remaining groups to watch.
      seed: of the draw.
      split_by: regular expression, searched in a name; its one group, in brackets, is
        what cases have in common. Every case stands alone where it is empty.

    Raises:
      InputError: names the flag, and the case that the expression does not fit.
    """
    for flag, value in (
        ("test_fraction", test_fraction),
        ("validation_fraction", validation_fraction),
    ):
        if not 0 <= value < 1:
            raise InputError(f"--{flag}: expected 0 <= {flag} < 1. Received: {value:g}")
    groups, notes = _group(cases, split_by, domain)
    queue = sorted(groups, key=lambda group: _draw_key(seed, domain, group))
    num_test = _share(len(queue), test_fraction)
    num_validation = _share(len(queue) - num_test, validation_fraction)
    test, rest = queue[:num_test], queue[num_test:]
    validation, train = rest[:num_validation], rest[num_validation:]
    for name, chosen, fraction in (
        ("test", test, test_fraction),
        ("validation", validation, validation_fraction),
    ):
        if fraction and not chosen:
            notes.append(f"too few cases for any to be in {name}")
    return Split(
        *(
            tuple(sorted(case for group in part for case in groups[group]))
            for part in (train, validation, test)
        ),
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
        return alone, [f"--split_by={split_by} fits no case: every case stands alone"]
    groups: dict[str, list[str]] = {}
    for case, match in matches.items():
        if match is None or match[1] is None:
            raise InputError(
                f"--split_by: expected every case of {domain} to fit {split_by!r}, "
                f"found {case!r}"
            )
        groups.setdefault(match[1], []).append(case)
    return groups, []


def _compile(split_by: str) -> re.Pattern[str]:
    expected = r"--split_by: expected a regular expression with one group in brackets, "
    try:
        pattern = re.compile(split_by)
    except re.error as error:
        raise InputError(f"{expected}found {split_by!r}: {error}") from error
    if pattern.groups != 1:
        raise InputError(f"{expected}found {pattern.groups} in {split_by!r}")
    return pattern


def _draw_key(seed: int, domain: str, group: str) -> bytes:
    return hashlib.blake2b(f"{seed}/{domain}/{group}".encode()).digest()


def _share(count: int, fraction: float) -> int:
    """A share of `count`, rounded; not none of it and not all of it, if possible."""
    if not fraction or count < 2:
        return 0
    return min(max(math.floor(count * fraction + 0.5), 1), count - 1)


def read_splits(
    path: str | os.PathLike, domains: Sequence[str], *, fold: str | None
) -> dict[str, Split]:
    """Reads explicit lists. The file may hold lists of other domains too.

    Args:
      path: JSON, `{domain: {"train": […], "validation": […], "test": […]}}` where
        "validation" may be missing, or `{domain: {fold: {"train": […], "val": […]}}}`
        where "val" is what is tested on. Names may end in .nii.gz.
      domains: whose lists are wanted.
      fold: which one to take where there are folds; "fold0" where it is None.

    Raises:
      InputError: names the file, the domain and what is wrong.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(f"--splits_file: expected a file {path}, found none")
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: expected JSON. Received: {error}") from error
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected an object with a domain each")
    missing = [domain for domain in domains if domain not in content]
    if missing:
        raise InputError(
            f"{path}: expected lists for {', '.join(missing)}, found {sorted(content)}"
        )
    return {
        domain: _read_domain(f"{path}: {domain}", content[domain], fold)
        for domain in domains
    }


def _read_domain(where: str, content: Any, fold: str | None) -> Split:
    if not isinstance(content, dict) or not content:
        raise InputError(f"{where}: expected an object. Received: {content!r}")
    if set(content) & set(SPLITS):
        if fold is not None:
            raise InputError(f"{where}: expected folds for --fold={fold}, found lists")
        needed, allowed = {"train", "test"}, set(SPLITS)
    else:
        fold = "fold0" if fold is None else fold
        if fold not in content:
            raise InputError(
                f"{where}: expected {fold!r} among the folds (--fold), found "
                f"{sorted(content)}"
            )
        where, content = f"{where}: {fold}", content[fold]
        needed = allowed = {"train", "val"}
    if not isinstance(content, dict) or not needed <= set(content) <= allowed:
        found = sorted(content) if isinstance(content, dict) else content
        raise InputError(f"{where}: expected {sorted(needed)}. Received: {found!r}")
    lists = {name: _names(f"{where}: {name}", content[name]) for name in content}
    every = [case for names in lists.values() for case in names]
    twice = sorted({case for case in every if every.count(case) > 1})
    if twice:
        raise InputError(f"{where}: expected each case once, found twice: {twice}")
    if not lists["train"]:
        raise InputError(f"{where}: expected at least one case in 'train', found none")
    return Split(
        train=lists["train"],
        validation=lists.get("validation", ()),
        test=lists["test"] if "test" in lists else lists["val"],
    )


def _names(where: str, content: Any) -> tuple[str, ...]:
    if not isinstance(content, list) or not all(
        isinstance(name, str) and name for name in content
    ):
        raise InputError(f"{where}: expected a list of names. Received: {content!r}")
    return tuple(sorted(_case_name(name) for name in content))


def _case_name(text: str) -> str:
    name = pathlib.PurePosixPath(text).name
    return msd.nifti_stem(name) if name.endswith(msd.NIFTI_SUFFIXES) else name


def choose_listed(
    split: Split,
    *,
    domain: str,
    cases: Sequence[str],
    excluded: Sequence[str],
    source: str,
) -> Split:
    """The listed split of one domain, without the cases that were excluded.

    Args:
      split: what `read_splits` returned for it.
      domain: the domain's name.
      cases: its usable cases.
      excluded: cases that the survey found and that are left out.
      source: the file, for error messages.

    Raises:
      InputError: if a case is missing in the file or unknown.
    """
    listed = {case for name in SPLITS for case in getattr(split, name)}
    unknown = sorted(listed - set(cases) - set(excluded))
    if unknown:
        raise InputError(
            f"{source}: {domain}: expected cases of the survey, found {_some(unknown)}"
        )
    missing = sorted(set(cases) - listed)
    if missing:
        raise InputError(
            f"{source}: {domain}: expected every case of the survey in a list, found "
            f"none with {_some(missing)}"
        )
    kept = {
        name: tuple(case for case in getattr(split, name) if case in set(cases))
        for name in SPLITS
    }
    if not kept["train"]:
        raise InputError(f"{source}: {domain}: expected a usable case in 'train'")
    return Split(**kept)


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return f"{', '.join(names[:5])}{more}"
