"""Prints the time of each kernel of a module, from a trace of `tools.bench.hlo.run`.

    python -m tools.bench.hlo.profile --trace_dir=DIR/MODULE --output=profile.json

There is one row per kernel of the first GPU, with its time per run, in descending
order. If a kernel is a fused operation, the last TensorFlow operation in it is listed.
Needs TensorFlow to read the trace, but no GPU.
"""

from __future__ import annotations

import collections
import pathlib
import re

from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner
from tools.bench.hlo.run import TRACED_RUNS
from u2net_tf.errors import InputError

OPERATION = re.compile(r'^\s*(?:ROOT )?%?([\w.\-]+) = .*?op_name="([^"]*)"', re.M)
COLUMNS = (
    reporting.Column("kernel", "kernel"),
    reporting.Column("count", "launches"),
    reporting.Column("seconds", "ms", ".2f", 1e3),
    reporting.Column("share", "time %", ".1f", 100.0),
    reporting.Column("operation", "operation"),
)


def kernels(trace_dir: pathlib.Path) -> list[dict]:
    """Returns the rows of the report: launches and seconds per run of each kernel.

    Args:
        trace_dir: trace of one module.

    Raises:
        InputError: if it contains no trace of a GPU.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    seconds, launches = collections.Counter(), collections.Counter()
    for path in trace_dir.rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        for plane in space.planes:
            if plane.name != "/device:GPU:0":
                continue
            for event in (event for line in plane.lines for event in line.events):
                name = plane.event_metadata[event.metadata_id].name
                seconds[name] += event.duration_ps * 1e-12 / TRACED_RUNS
                launches[name] += 1
    if not seconds:
        raise InputError(str(trace_dir), expected="a trace of a GPU", received="none")
    compiled = trace_dir / "compiled.txt"
    text = compiled.read_text(encoding="utf-8") if compiled.is_file() else ""
    operations = dict(OPERATION.findall(text))
    total = sum(seconds.values())
    return [
        {
            "kernel": name[:60],
            "count": launches[name] // TRACED_RUNS,
            "seconds": value,
            "share": value / total,
            # Kernel "fusion_12" implements operation "fusion.12".
            "operation": operations.get(re.sub(r"_(\d+)$", r".\1", name), "")[-70:],
        }
        for name, value in seconds.most_common()
    ]


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(torch=False)
    flags.DEFINE_string(
        "trace_dir", None, "Folder with the trace of one module.", required=True
    )
    flags.DEFINE_integer("most", 25, "Number of kernels to show.", lower_bound=1)


def report() -> reporting.Report:
    """Reads the trace that the flags specify."""
    rows = kernels(pathlib.Path(flags.FLAGS.trace_dir))
    total = sum(row["seconds"] for row in rows)
    shown = rows[: flags.FLAGS.most]
    note = f"{1e3 * total:.1f} ms in {len(rows)} kernels; {len(shown)} shown."
    return reporting.Report("hlo.profile", COLUMNS, shown, [note])


if __name__ == "__main__":
    runner.run(define_flags, report)
