"""Prints where a module's time goes, from the trace that `tools.bench.hlo.run` wrote.

    python -m tools.bench.hlo.profile --trace_dir=DIR/MODULE --output=profile.json

One row per kernel of the first GPU, per run, the longest first. Where a kernel is one
fused operation, the TensorFlow operation that it ends in is named. Needs TensorFlow,
to read the trace, and no GPU.
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
    reporting.Column("share", "share %", ".1f", 100.0),
    reporting.Column("operation", "operation"),
)


def kernels(trace_dir: pathlib.Path) -> list[dict]:
    """Rows of the report: each kernel's launches and seconds per run.

    Args:
        trace_dir: the trace of one module.

    Raises:
        InputError: if there is no trace of a GPU.
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
        raise InputError(
            str(trace_dir), expected="a trace of a GPU", received="none in it"
        )
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
            # "fusion_12" is the code of the operation "fusion.12".
            "operation": operations.get(re.sub(r"_(\d+)$", r".\1", name), "")[-70:],
        }
        for name, value in seconds.most_common()
    ]


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(torch=False)
    flags.DEFINE_string("trace_dir", None, "Trace of one module.", required=True)
    flags.DEFINE_integer("most", 25, "Kernels to show.", lower_bound=1)


def report() -> reporting.Report:
    """Reads what the flags ask for."""
    rows = kernels(pathlib.Path(flags.FLAGS.trace_dir))
    total = sum(row["seconds"] for row in rows)
    shown = rows[: flags.FLAGS.most]
    note = f"{1e3 * total:.1f} ms in {len(rows)} kernels; {len(shown)} shown."
    return reporting.Report("hlo.profile", COLUMNS, shown, [note])


if __name__ == "__main__":
    runner.run(define_flags, report)
