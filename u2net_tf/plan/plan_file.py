"""The plan as a file: `plan.json` in and out, every field checked.

A plan is written by `data_prep.plan`, may be edited by hand, and travels inside every
checkpoint, so that prediction needs a scan and a model and nothing else.
"""

from __future__ import annotations

import json
import os
from typing import Any

from u2net_tf import migrations
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
    ),
)


def plan_to_json(plan: Plan) -> str:
    """The plan as text that people can read and edit: short lists on one line."""
    return _pretty(PLAN.to_dict(plan)) + "\n"


def load_plan(path: str | os.PathLike) -> Plan:
    """Reads `plan.json`.

    Raises:
      InputError: if the file is missing or its content cannot be used.
    """
    return PLAN.load(path)


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
