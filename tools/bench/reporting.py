"""The report of a benchmark, as a table on the terminal and as JSON."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tabulate import tabulate

from tools.bench.measuring import Measurement
from u2net_tf import files
from u2net_tf.machine import num_cores

PACKAGES = ("tensorflow", "keras", "numpy", "torch", "monai", "batchgenerators")


class Column(NamedTuple):
    """A column of the table.

    Attributes:
        key: key in the rows.
        title: heading with the unit.
        form: format specification of the numbers, see `format`.
        scale: factor that converts the values of the rows to the unit.
    """

    key: str
    title: str
    form: str = ""
    scale: float = 1.0


CONTENDER = Column("contender", "contender")
TIMES = (
    Column("median_seconds", "median s", ".3f"),
    Column("fastest_seconds", "fastest", ".3f"),
    Column("slowest_seconds", "slowest", ".3f"),
    Column("time_ratio", "time ÷ ours", ".2f"),
)
TIMES_MS = tuple(
    column._replace(title=column.title.replace(" s", " ms"), form=".2f", scale=1e3)
    if column.key.endswith("_seconds")
    else column
    for column in TIMES
)
MEMORY = (
    Column("peak_bytes", "peak GB", ".2f", 1e-9),
    Column("memory_ratio", "peak ÷ ours", ".2f"),
)


@dataclasses.dataclass(frozen=True)
class Report:
    """The results of a benchmark.

    Attributes:
        benchmark: name of the benchmark.
        columns: columns of the table.
        rows: values by key; those without a column appear only in the JSON.
        notes: sentences below the table.
    """

    benchmark: str
    columns: Sequence[Column]
    rows: Sequence[Mapping[str, Any]]
    notes: Sequence[str] = ()


def to_table(report: Report) -> str:
    """Returns the rows as a text table, with numbers aligned at the decimal point."""

    def cell(row: Mapping[str, Any], column: Column) -> str:
        value = row[column.key]
        if not column.form:
            return str(value)
        return "–" if value is None else format(value * column.scale, column.form)

    def is_number(column: Column) -> bool:
        values = [row[column.key] for row in report.rows]
        return bool(column.form) or all(isinstance(v, int | float) for v in values)

    return tabulate(
        [[cell(row, column) for column in report.columns] for row in report.rows],
        headers=[column.title for column in report.columns],
        tablefmt="simple",
        colalign=["right" if is_number(c) else "left" for c in report.columns],
        disable_numparse=True,
    )


def to_json(report: Report, threads: int) -> dict[str, Any]:
    """Returns report, machine and command for `json.dumps`."""
    return {
        "benchmark": report.benchmark,
        "command": command_line(report.benchmark),
        "machine": machine(threads),
        "rows": [dict(row) for row in report.rows],
        "notes": list(report.notes),
    }


def publish(report: Report, output: str | os.PathLike, threads: int) -> None:
    """Prints the report and writes it to `output` as JSON."""
    content = to_json(report, threads)
    about = content["machine"]
    packages = ", ".join(f"{k} {v}" for k, v in about["versions"].items())
    print(
        f"{content['command']}\n{about['cpu']}, {about['cores']} cores, "
        f"{about['memory_bytes'] / 1e9:.0f} GB; threads of each contender: {threads}\n"
        f"{packages}, Python {about['python']}\n\n{to_table(report)}"
    )
    for note in report.notes:
        print(note)
    files.write_text(output, json.dumps(content, indent=2, allow_nan=False) + "\n")
    print(f"wrote {output}")


def command_line(benchmark: str) -> str:
    """Returns the command line."""
    return shlex.join(["python", "-m", f"tools.bench.{benchmark}", *sys.argv[1:]])


def machine(threads: int) -> dict[str, Any]:
    """Describes machine and package versions, without importing the packages."""
    return {
        "cpu": _cpu_model(),
        "cores": num_cores(),
        "threads": threads,
        "load_average": os.getloadavg()[0],
        "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {
            name: importlib.metadata.version(name)
            for name in PACKAGES
            if importlib.util.find_spec(name)
        },
    }


def _cpu_model() -> str:
    path = pathlib.Path("/proc/cpuinfo")
    for line in path.read_text().splitlines() if path.is_file() else ():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def rows_of(measurements: Sequence[Measurement], **common: Any) -> list[dict[str, Any]]:
    """Returns a row per contender, with ratios relative to the first, which is ours.

    Args:
        measurements: measurements of one task.
        **common: values at the beginning of each row.
    """
    ours = measurements[0]
    return [
        {
            **common,
            "contender": measured.name,
            "median_seconds": measured.median,
            "fastest_seconds": min(measured.seconds),
            "slowest_seconds": max(measured.seconds),
            "time_ratio": measured.median / ours.median,
            "peak_bytes": measured.peak_bytes,
            "start_bytes": measured.start_bytes,
            "memory_ratio": measured.peak_bytes / ours.peak_bytes,
            "runs_seconds": list(measured.seconds),
        }
        for measured in measurements
    ]
