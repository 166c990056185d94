"""Reads lists of training, validation and test cases from a file."""

from __future__ import annotations

import collections
import os
import pathlib
import re
from collections.abc import Mapping, Sequence, Set
from typing import Any

from data_prep.plan.draw_split import CaseSplit
from u2net_tf.errors import InputError
from u2net_tf.file_format import load_json
from u2net_tf.plan.domains import SPLITS
from u2net_tf.volumes.scan_names import is_scan_name, scan_stem
from u2net_tf.wording import first_few

# Value of `fold` that takes all folds of a file.
ALL_FOLDS = "all"
_FOLD_LISTS = frozenset({"train", "val"})


def read_splits(
    path: str | os.PathLike, domains: Sequence[str], *, fold: str | None
) -> dict[str, CaseSplit]:
    """Reads explicit splits. The file may also contain lists of other domains.

    Args:
      path: JSON, `{domain: {"train": […], "validation": […], "test": […]}}` where
        "validation" is optional, or `{domain: {fold: {"train": […], "val": […]}}}`
        where "val" lists test cases. Names may have the extension of a volume, for
        example .nii.gz or .nrrd. Or nnU-Net's `splits_final.json`,
        `[{"train": […], "val": […]}]`, for one domain or as `{domain: […]}`, where
        "val" lists validation cases.
      domains: domains whose lists are needed.
      fold: fold to use if the file has folds; "fold0" if None. With "all", the test
        cases of the folds become the folds of the split. The folds of nnU-Net are
        numbered, and all of them are used if None.

    Raises:
      InputError: if the file is missing or invalid, or does not fit the domains or
        `fold`.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(
            f"`splits_file`: {path}", expected="a file", received="no such file"
        )
    content = load_json(path)
    if isinstance(content, list) and content:
        if len(domains) > 1:
            raise InputError(
                path,
                expected='{domain: [{"train": […], "val": […]}]} of '
                + first_few(domains),
                received="a list of folds, which is for a single domain",
            )
        content = {domains[0]: content}
    if not isinstance(content, dict):
        raise InputError(
            path,
            expected="an object with domains, or the folds of one domain",
            received=type(content).__name__,
        )
    missing = [domain for domain in domains if domain not in content]
    if missing:
        raise InputError(
            path,
            expected=f"lists for {', '.join(missing)}",
            received=sorted(content),
        )
    return {
        domain: _read_domain(f"{path}: {domain}", content[domain], fold)
        for domain in domains
    }


def _read_domain(where: str, content: Any, fold: str | None) -> CaseSplit:
    if isinstance(content, list) and content:
        return _read_numbered_folds(where, content, fold)
    if not isinstance(content, dict) or not content:
        raise InputError(where, expected="an object or folds", received=repr(content))
    if fold == ALL_FOLDS:
        return _read_all_folds(where, content)
    if set(content) & set(SPLITS):
        if fold is not None:
            raise InputError(
                where, expected=f"folds for `fold`={fold}", received="lists"
            )
        needed, allowed = frozenset({"train", "test"}), frozenset(SPLITS)
    else:
        fold = "fold0" if fold is None else fold
        if fold not in content:
            raise InputError(
                where,
                expected=f"{fold!r} among the folds (`fold`)",
                received=sorted(content),
            )
        where, content = f"{where}: {fold}", content[fold]
        needed = allowed = _FOLD_LISTS
    lists = _read_lists(where, content, needed, allowed)
    return CaseSplit(
        train=lists["train"],
        validation=lists.get("validation", ()),
        test=lists["test"] if "test" in lists else lists["val"],
    )


def _read_numbered_folds(where: str, content: list, fold: str | None) -> CaseSplit:
    """Reads `[{"train": […], "val": […]}]`, as nnU-Net writes it."""
    folds = {str(number): lists for number, lists in enumerate(content)}
    if fold in (None, ALL_FOLDS):
        return _read_all_folds(where, folds)
    if fold not in folds:
        raise InputError(
            where,
            expected=f"the fold {fold!r} (`fold`)",
            received=f"folds from 0 to {len(folds) - 1}",
        )
    lists = _read_lists(f"{where}: {fold}", folds[fold], _FOLD_LISTS, _FOLD_LISTS)
    return CaseSplit(train=lists["train"], validation=lists["val"], test=())


def _read_all_folds(where: str, content: dict[str, Any]) -> CaseSplit:
    """Reads `{fold: {"train": […], "val": […]}}` as the folds of one split."""
    expected = f"two or more folds for `fold`={ALL_FOLDS}"
    if set(content) & set(SPLITS):
        raise InputError(where, expected=expected, received=", ".join(content))
    if len(content) < 2:
        only = ", ".join(content)
        hint = f"Use `fold`={only} for one fold" if content else ""
        received = f"only fold {only!r}" if content else "none"
        raise InputError(where, expected=expected, received=received, hint=hint)
    folds = {
        name: _read_lists(f"{where}: {name}", lists, _FOLD_LISTS, _FOLD_LISTS)
        for name, lists in content.items()
    }
    validated = {name: lists["val"] for name, lists in folds.items()}
    _require_once(where, validated, "each case to be a validation case of one fold")
    numbers = {name: re.search(r"\d{1,9}$", name) for name in validated}
    if all(numbers.values()):
        # By number, not by name: fold2 comes before fold10.
        order = sorted(
            (int(match[0]), name) for name, match in numbers.items() if match
        )
        validated = {name: validated[name] for _, name in order}
    all_cases = sorted(case for cases in validated.values() for case in cases)
    for name, lists in folds.items():
        wrong = sorted(set(all_cases) ^ {*lists["train"], *lists["val"]})
        if wrong:
            raise InputError(
                f"{where}: {name}",
                expected="the validation cases of all other folds as training cases",
                received=f"a difference in {first_few(wrong)}",
            )
    names = ", ".join(f"{index} = {name}" for index, name in enumerate(validated))
    return CaseSplit(
        train=(),
        validation=(),
        test=(),
        folds=tuple(validated.values()),
        notes=(f"folds of the file: {names}",),
    )


def _read_lists(
    where: str, content: Any, needed: Set[str], allowed: Set[str]
) -> dict[str, tuple[str, ...]]:
    """Reads named lists of cases; no case is in two lists, and 'train' is not empty."""
    if not isinstance(content, dict) or not needed <= set(content) <= allowed:
        received = sorted(content) if isinstance(content, dict) else content
        raise InputError(where, expected=str(sorted(needed)), received=repr(received))
    lists = {name: _names(f"{where}: {name}", content[name]) for name in content}
    _require_once(where, lists, "each case once")
    if not lists["train"]:
        raise InputError(
            where, expected="at least one case in 'train'", received="none"
        )
    return lists


def _require_once(
    where: str, lists: Mapping[str, Sequence[str]], expected: str
) -> None:
    counts = collections.Counter(case for names in lists.values() for case in names)
    duplicates = sorted(case for case, count in counts.items() if count > 1)
    if duplicates:
        received = f"several times: {first_few(duplicates)}"
        raise InputError(where, expected=expected, received=received)


def _names(where: str, content: Any) -> tuple[str, ...]:
    if not isinstance(content, list) or not all(
        isinstance(name, str) and name for name in content
    ):
        raise InputError(where, expected="a list of names", received=repr(content))
    return tuple(sorted(_case_name(name) for name in content))


def _case_name(text: str) -> str:
    name = pathlib.PureWindowsPath(text).name
    is_scan = is_scan_name(name) and not name.startswith(".")
    return scan_stem(name) if is_scan else name


def split_from_file(
    split: CaseSplit,
    *,
    domain: str,
    cases: Sequence[str],
    excluded: Sequence[str],
    source: str,
) -> CaseSplit:
    """Returns the split of a domain without its excluded cases.

    Args:
      split: the split that `read_splits` returned for the domain.
      domain: name of the domain.
      cases: usable cases of the domain.
      excluded: cases of the survey that are left out.
      source: the file, for error messages.

    Raises:
      InputError: if the file lacks a case or lists an unknown one.
    """
    lists = (split.train, split.validation, split.test, *split.folds)
    listed = {case for names in lists for case in names}
    unknown = sorted(listed - set(cases) - set(excluded))
    if unknown:
        raise InputError(
            f"{source}: {domain}",
            expected="cases of the survey",
            received=first_few(unknown),
        )
    missing = sorted(set(cases) - listed)
    if missing:
        raise InputError(
            f"{source}: {domain}",
            expected="every case of the survey in a list",
            received=f"no list with {first_few(missing)}",
        )
    usable = set(cases)

    def kept(names: Sequence[str]) -> tuple[str, ...]:
        return tuple(case for case in names if case in usable)

    chosen = CaseSplit(
        train=kept(split.train),
        validation=kept(split.validation),
        test=kept(split.test),
        folds=tuple(map(kept, split.folds)),
        notes=split.notes,
    )
    if not all(chosen.folds or [chosen.train]):
        raise InputError(
            f"{source}: {domain}",
            expected="a usable case in 'train', or in each fold",
            received="none",
        )
    return chosen
