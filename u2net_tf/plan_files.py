"""The plan as a file: `plan.json` in and out, every field checked.

A plan is written by `data_prep.plan`, may be edited by hand, and travels inside every
checkpoint, so that prediction needs a scan and a model and nothing else.
"""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from u2net_tf.domains import (
    AXES,
    LATER_PREPROCESSING,
    SIZE_ROUNDINGS,
    SPACING_SOURCES,
    SPLITS,
    STATISTICS_OVER,
    UNKNOWN_LABELS,
    Domain,
    Label,
    Plan,
    Preprocessing,
)
from u2net_tf.errors import InputError

PLAN_FORMAT = 1


def plan_to_json(plan: Plan) -> str:
    """The plan as text that people can read and edit: short lists on one line."""
    content = {"format": PLAN_FORMAT, **dataclasses.asdict(plan)}
    return _pretty(content) + "\n"


def plan_from_json(text: str, source: str) -> Plan:
    """Reads a plan and checks every field.

    Args:
      text: what `plan_to_json` wrote, edited or not.
      source: file that the text is from, for error messages.

    Raises:
      InputError: names the source, the field, what was expected and what was found.
    """
    try:
        content = json.loads(text)
    except json.JSONDecodeError as error:
        raise InputError(f"{source}: expected JSON. Received: {error}") from error
    try:
        return _read_plan(_Reader(content, ""))
    except InputError as error:
        raise InputError(f"{source}: {error}") from None


def load_plan(path: str | os.PathLike) -> Plan:
    """Reads `plan.json`.

    Raises:
      InputError: if the file is missing or its content cannot be used.
    """
    path = pathlib.Path(path)
    if not path.is_file():
        raise InputError(
            f"{path}: expected a plan as `python -m data_prep.plan` writes it, found "
            "no such file"
        )
    return plan_from_json(path.read_text(encoding="utf-8"), str(path))


def _pretty(value: Any, indent: str = "") -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(flat) <= 88 or not isinstance(value, dict | list | tuple):
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        rows = [
            f"{inner}{json.dumps(key)}: {_pretty(item, inner)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    rows = [f"{inner}{_pretty(item, inner)}" for item in value]
    return "[\n" + ",\n".join(rows) + f"\n{indent}]"


class _Reader:
    """Takes fields out of a JSON object and says where it stood when one is wrong."""

    def __init__(self, content: Any, where: str):
        self.where = where
        if not isinstance(content, Mapping):
            raise self.error("", "an object", content)
        self._content = dict(content)

    def error(self, field: str, expected: str, found: Any) -> InputError:
        path = ".".join(part for part in (self.where, field) if part) or "the plan"
        return InputError(f"{path}: expected {expected}. Received: {found!r}")

    def take(self, field: str, kinds: type | tuple[type, ...], expected: str) -> Any:
        if field not in self._content:
            raise self.error(field, expected, "nothing")
        value = self._content.pop(field)
        if not isinstance(value, kinds) or isinstance(value, bool):
            raise self.error(field, expected, value)
        return value

    def assume(self, field: str, value: Any) -> None:
        """What a plan from before there was such a field means."""
        self._content.setdefault(field, value)

    def whole(self, field: str, least: int) -> int:
        expected = f"a whole number of at least {least}"
        value = self.take(field, int, expected)
        if value < least:
            raise self.error(field, expected, value)
        return value

    def number_or_null(self, field: str) -> float | None:
        expected = "a number or null"
        value = self.take(field, (int, float, type(None)), expected)
        if value is not None and not math.isfinite(value):
            raise self.error(field, expected, value)
        return None if value is None else float(value)

    def text(self, field: str) -> str:
        value = self.take(field, str, "a non-empty text")
        if not value:
            raise self.error(field, "a non-empty text", value)
        return value

    def choice(self, field: str, choices: Sequence[str]) -> str:
        value = self.take(field, str, f"one of {tuple(choices)}")
        if value not in choices:
            raise self.error(field, f"one of {tuple(choices)}", value)
        return value

    def texts(self, field: str, least: int) -> tuple[str, ...]:
        expected = f"a list of at least {least} distinct texts"
        value = self.take(field, list, expected)
        proper = all(isinstance(item, str) and item for item in value)
        if not proper or len(value) < least or len(set(value)) < len(value):
            raise self.error(field, expected, value)
        return tuple(value)

    def triple(self, field: str, kind: type, least: float) -> tuple:
        noun = "whole numbers" if kind is int else "numbers"
        bound = f"of at least {least}" if kind is int else f"above {least}"
        expected = f"three {noun} {bound} (z, y, x)"
        value = self.take(field, list, expected)
        kinds = int if kind is int else (int, float)
        for item in value:
            if isinstance(item, bool) or not isinstance(item, kinds):
                raise self.error(field, expected, value)
            if item < least or (kind is float and not least < item < math.inf):
                raise self.error(field, expected, value)
        if len(value) != 3:
            raise self.error(field, expected, value)
        return tuple(kind(item) for item in value)

    def objects(self, field: str, least: int) -> list[_Reader]:
        expected = f"a list of at least {least} objects"
        value = self.take(field, list, expected)
        if len(value) < least:
            raise self.error(field, expected, value)
        prefix = f"{self.where}.{field}" if self.where else field
        return [_Reader(item, f"{prefix}[{i}]") for i, item in enumerate(value)]

    def end(self) -> None:
        if self._content:
            raise self.error("", "no other fields", sorted(self._content))


def _read_plan(reader: _Reader) -> Plan:
    found = reader.whole("format", 0)
    if found != PLAN_FORMAT:
        raise reader.error("format", str(PLAN_FORMAT), found)
    domains = tuple(_read_domain(item) for item in reader.objects("domains", 1))
    plan = Plan(domains=domains, seed=reader.whole("seed", 0))
    if len(set(plan.names)) < len(plan.names):
        raise reader.error("domains", "distinct names", list(plan.names))
    reader.end()
    return plan


def _read_domain(reader: _Reader) -> Domain:
    labels = tuple(_read_label(item) for item in reader.objects("labels", 2))
    names = [label.name for label in labels]
    if len(set(names)) < len(names):
        raise reader.error("labels", "distinct names", names)
    values = [value for label in labels for value in label.values]
    if len(set(values)) < len(values):
        raise reader.error("labels", "each value in one class only", values)
    if 0 not in labels[0].values:
        raise reader.error(
            "labels", "the class of value 0, the background, first", values
        )
    nested = _Reader(
        reader.take("preprocessing", dict, "an object"),
        f"{reader.where}.preprocessing",
    )
    domain = Domain(
        name=reader.text("name"),
        raw_dir=reader.text("raw_dir"),
        modalities=reader.texts("modalities", 1),
        labels=labels,
        spacing_mm=reader.triple("spacing_mm", float, 0),
        median_shape=reader.triple("median_shape", int, 1),
        patch_size=reader.triple("patch_size", int, 1),
        pools=reader.triple("pools", int, 0),
        batch_size=reader.whole("batch_size", 1),
        mirror_axes=reader.texts("mirror_axes", 0),
        preprocessing=_read_preprocessing(nested),
        **{split: reader.texts(split, 0) for split in SPLITS},
    )
    reader.end()
    if domain.name in (".", "..") or set("/\\") & set(domain.name):
        raise reader.error("name", "the name of a folder, not a path", domain.name)
    if not set(domain.mirror_axes) <= set(AXES):
        raise reader.error("mirror_axes", f"some of {AXES}", list(domain.mirror_axes))
    _check_splits(reader, domain)
    _check_patch(reader, domain)
    return domain


def _read_label(reader: _Reader) -> Label:
    expected = "a list of at least one whole number"
    values = reader.take("values", list, expected)
    proper = all(isinstance(v, int) and not isinstance(v, bool) for v in values)
    if not values or not proper:
        raise reader.error("values", expected, values)
    label = Label(
        name=reader.text("name"),
        values=tuple(values),
        keep_components=reader.whole("keep_components", 0),
    )
    reader.end()
    return label


def _read_preprocessing(reader: _Reader) -> Preprocessing:
    for field in LATER_PREPROCESSING:
        reader.assume(field, getattr(Preprocessing(), field))
    expected = "two numbers, 0 <= lower < upper <= 100"
    clip = reader.take("clip_percentiles", list, expected)
    proper = len(clip) == 2 and all(
        isinstance(value, int | float) and not isinstance(value, bool) for value in clip
    )
    if not proper or not 0 <= clip[0] < clip[1] <= 100:
        raise reader.error("clip_percentiles", expected, clip)
    preprocessing = Preprocessing(
        margin_voxels=reader.whole("margin_voxels", 0),
        clip_percentiles=(float(clip[0]), float(clip[1])),
        spacing_source=reader.choice("spacing_source", SPACING_SOURCES),
        unknown_labels=reader.choice("unknown_labels", UNKNOWN_LABELS),
        intensity_floor=reader.number_or_null("intensity_floor"),
        statistics_over=reader.choice("statistics_over", STATISTICS_OVER),
        size_rounding=reader.choice("size_rounding", SIZE_ROUNDINGS),
    )
    reader.end()
    return preprocessing


def _check_splits(reader: _Reader, domain: Domain) -> None:
    seen: dict[str, str] = {}
    for split in SPLITS:
        for case in domain.cases(split):
            if case in seen:
                raise reader.error(
                    split, f"no case that is in {seen[case]!r} already", case
                )
            seen[case] = split


def _check_patch(reader: _Reader, domain: Domain) -> None:
    for size, pools in zip(domain.patch_size, domain.pools, strict=True):
        if size % 2**pools:
            raise reader.error(
                "patch_size",
                f"sizes divisible by 2**pools, pools being {list(domain.pools)}",
                list(domain.patch_size),
            )
