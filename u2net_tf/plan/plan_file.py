"""Reads and writes `plan.json`, and checks every field.

A plan is written by `data_prep.plan`, may be edited by hand, and is part of every
checkpoint, so that prediction needs only a scan and a model.
"""

from __future__ import annotations

import json
import os
from typing import Any

from u2net_tf import migrations
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.plan.domains import Plan

PLAN = FileFormat(
    name="a plan",
    made_by="python -m data_prep.plan",
    kind=Plan,
    oldest=1,
    upgrades=(
        migrations.plan,
        migrations.plan_with_scans,
        migrations.plan_with_resampling,
        migrations.plan_with_anatomy,
        migrations.plan_with_foreground,
        migrations.plan_with_regions,
    ),
)


def plan_to_json(plan: Plan) -> str:
    """Returns the plan as readable, editable JSON with short lists on one line."""
    return _format_json(PLAN.to_dict(plan)) + "\n"


def load_plan(path: str | os.PathLike) -> Plan:
    """Reads `plan.json`.

    Raises:
      InputError: if the file is missing or invalid.
    """
    plan = PLAN.load(path)
    for domain in plan.domains:
        for name in domain.scored_names:
            # A line break would split the header of `training.csv`. Models that were
            # made before this was checked can be loaded.
            if not name.isprintable():
                raise InputError(
                    f"{path}: {domain.name}",
                    expected="printable names of classes and regions",
                    received=repr(name),
                )
    return plan


def _format_json(value: Any, indent: str = "") -> str:
    flat = json.dumps(value, ensure_ascii=False)
    if len(indent) + len(flat) <= 88 or not isinstance(value, dict | list | tuple):
        return flat
    inner = indent + "  "
    if isinstance(value, dict):
        rows = [
            f"{inner}{json.dumps(key)}: {_format_json(item, inner)}"
            for key, item in value.items()
        ]
        return "{\n" + ",\n".join(rows) + f"\n{indent}}}"
    rows = [f"{inner}{_format_json(item, inner)}" for item in value]
    return "[\n" + ",\n".join(rows) + f"\n{indent}]"
