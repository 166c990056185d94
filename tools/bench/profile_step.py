"""Profiles our training step by kind of operation.

    python -m tools.bench.profile_step --output=profile.json

The durations of operations in one step are summed by kind, separately for the forward
pass of the network and for the rest: loss, gradients, Adam. XLA-compiled code is one
row. Because operations run concurrently, and each may use or wait for all cores, the
sums indicate fractions only and may exceed the duration of the step.
"""

from __future__ import annotations

import pathlib
import re
import tempfile
import time
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner
from tools.bench.measuring import Contender, Task, measure
from tools.bench.networks import make_our_steps
from tools.bench.setting import Setting

# An operation in the profile: the name of its node, a colon and its kind.
EVENT = re.compile(r"(?P<node>[^:\s]+):(_Mkl(Native)?)?(?P<kind>_?[A-Z]\w*)")
# XLA-compiled code, in which single operations have no names.
COMPILED = "CpuExecutable::ExecuteAsyncOnStream"
# Keras numbers the scope of a network by instance and by call.
FORWARD = re.compile(r"u2_net(_\d+)*/")
COLUMNS = (
    reporting.Column("kind", "operation"),
    reporting.Column("part", "part"),
    reporting.Column("count", "count"),
    reporting.Column("seconds", "ms", ".1f", 1e3),
    reporting.Column("share", "time %", ".1f", 100.0),
)


def make_profile(setting: Setting) -> Task:
    """Returns the task of profiling a training step, after two other steps."""
    task = make_our_steps(setting)
    import tensorflow as tf

    for _ in range(2):
        task.run()
    tracing = tf.profiler.experimental.ProfilerOptions(
        host_tracer_level=2, python_tracer_level=0, device_tracer_level=0
    )

    def profile() -> tuple[float, bytes]:
        with tempfile.TemporaryDirectory() as folder:
            with tf.profiler.experimental.Profile(folder, tracing):
                started = time.perf_counter()
                task.run()
                taken = time.perf_counter() - started
            (path,) = pathlib.Path(folder).rglob("*.xplane.pb")
            return taken, path.read_bytes()

    def results(value: tuple[float, bytes]) -> dict[str, np.ndarray]:
        taken, content = value
        names, seconds = zip(*read_events(content), strict=True)
        return {
            "names": np.array(names),
            "seconds": np.array(seconds),
            "step_seconds": np.array(taken),
        }

    return Task(profile, results)


def read_events(content: bytes) -> list[tuple[str, float]]:
    """Returns (name, seconds) of every host event in a profile."""
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace.FromString(content)
    return [
        (plane.event_metadata[event.metadata_id].name, event.duration_ps * 1e-12)
        for plane in space.planes
        for line in plane.lines
        for event in line.events
    ]


def rows_of(names: Sequence[str], seconds: Sequence[float]) -> list[dict[str, Any]]:
    """Returns a row per kind of operation and part, in descending order of time.

    Args:
        names: names of events; those that are not operations are ignored.
        seconds: duration of each event.
    """
    sums: dict[tuple[str, str], list[float]] = {}
    for name, taken in zip(names, seconds, strict=True):
        if match := EVENT.fullmatch(name):
            part = "forward" if FORWARD.match(match["node"]) else "rest"
            sums.setdefault((match["kind"], part), []).append(float(taken))
        elif name == COMPILED:
            sums.setdefault(("compiled by XLA", "all"), []).append(float(taken))
    total = sum(map(sum, sums.values()))
    rows = [
        {
            "kind": kind,
            "part": part,
            "count": len(times),
            "seconds": sum(times),
            "share": sum(times) / total,
        }
        for (kind, part), times in sums.items()
    ]
    return sorted(rows, key=lambda row: -row["seconds"])


def benchmark(setting: Setting, *, top: int, threads: int) -> reporting.Report:
    """Profiles a step and reports the `top` rows."""
    contender = Contender("ours", make_profile, {"setting": setting})
    (measured,) = measure([contender], runs=1, warm_ups=0, threads=threads)
    found = measured.results
    rows = rows_of(found["names"].tolist(), found["seconds"])
    size = "×".join(map(str, (setting.batch_size, *setting.patch_size)))
    total, remaining = (
        sum(row["seconds"] for row in chosen) for chosen in (rows, rows[top:])
    )
    note = (
        f"Batch of {size}. The profiled step took "
        f"{float(found['step_seconds']):.2f} s; all operations add up to "
        f"{total:.2f} s, those not shown to {remaining:.2f} s."
    )
    return reporting.Report("profile_step", COLUMNS, rows[:top], [note])


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(torch=False)
    bench_flags.define_network_flags(patch_size=64)
    flags.DEFINE_integer("top", 25, "Number of rows to show.", lower_bound=1)


def report() -> reporting.Report:
    """Profiles a step as the flags specify."""
    return benchmark(
        bench_flags.cubic_setting(),
        top=flags.FLAGS.top,
        threads=bench_flags.num_threads(),
    )


if __name__ == "__main__":
    runner.run(define_flags, report)
