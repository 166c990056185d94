"""Runs modules written by `tools.bench.hlo.emit`, with JAX and without TensorFlow.

    python -m tools.bench.hlo.run --modules_dir=DIR --output=run.json

The modules run on the first device that JAX finds. Before timing, loss, gradient norms
and logits are compared with those of TensorFlow. The outputs of a step are the inputs
of the next. Modules are loaded through private names of jaxlib 0.11.2. This needs
absl-py, NumPy and JAX, and runs from a checkout without importing anything else of this
project.
"""

from __future__ import annotations

import contextlib
import fcntl
import gzip
import json
import math
import os
import pathlib
import re
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import app, flags

# As in `tools.bench.step`: 60 consecutive normalizations amplify rounding errors.
TOLERANCE = 2e-2
WARM_UPS = 3
# Number of runs in a trace.
TRACED_RUNS = 2
ALIAS = re.compile(r"\{(\d+)\}: \((\d+), \{\}")


def read_computation(folder: pathlib.Path) -> Any:
    """Returns the `XlaComputation` of a module written by `emit`."""
    from jax._src.lib import xla_client

    serialized = gzip.decompress((folder / "module.hlo.gz").read_bytes())
    return xla_client.XlaComputation(serialized)


def to_stablehlo(computation: Any) -> bytes:
    """Returns the StableHLO module of a computation, as the compiler accepts it.

    Conversion states a default tiling for the results of custom calls, which the
    plugin for CUDA rejects.
    """
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jaxlib.mlir import ir

    converted = xla_client._xla.mlir.hlo_to_stablehlo(
        computation.as_serialized_hlo_module_proto()
    )
    with mlir.make_ir_context():
        module = ir.Module.parse(converted)

        def without_tilings(operation):
            if "result_tilings" in operation.attributes:
                del operation.attributes["result_tilings"]
            return ir.WalkResult.ADVANCE

        module.operation.walk(without_tilings)
        return mlir.module_to_bytecode(module)


class Executable:
    """A module compiled for the first device, with its inputs on that device.

    Args:
        folder: folder of the module; the batch is in its parent.
    """

    def __init__(self, folder: pathlib.Path):
        import jax
        from jax._src.lib import xla_client

        self.about = json.loads((folder / "about.json").read_text(encoding="utf-8"))
        computation = read_computation(folder)
        heading, _, _ = computation.as_hlo_text().partition("\n")
        # Output -> input that it replaces, for variables that are assigned.
        self._replaced = {int(a): int(b) for a, b in ALIAS.findall(heading)}
        self.device = jax.devices()[0]
        started = time.perf_counter()
        self.executable = self.device.client.compile_and_load(
            to_stablehlo(computation),
            xla_client.DeviceList((self.device,)),
            xla_client.CompileOptions(),
        )
        self.compile_seconds = time.perf_counter() - started
        arrays: dict[str, np.ndarray] = {}
        for path in (folder / "variables.npz", folder.parent / self.about["batch"]):
            with np.load(path) as archive:
                arrays |= dict(archive)
        self._inputs = [jax.device_put(arrays[name]) for name in self.about["inputs"]]

    def run(self) -> Any:
        """Starts a run and returns its first output, the loss or the logits."""
        outputs = self.executable.execute(self._inputs)
        for index, output in enumerate(outputs):
            if index in self._replaced:
                self._inputs[self._replaced[index]] = output
        return outputs[0]

    def results(self, first: Any) -> dict[str, np.ndarray]:
        """Returns the results of the first run, in the form that `emit` writes."""
        if self.about["part"] == "forward":
            stride = slice(None, None, self.about["logit_stride"])
            logits = np.asarray(first)[:, stride, stride, stride]
            return {"logits": logits.astype(np.float32)}
        found = {"loss": np.asarray(first)}
        for name, value in zip(self.about["inputs"], self._inputs, strict=True):
            if "/velocity/" in name:
                square = np.asarray(value).sum(dtype=float) / (1 - self.about["beta_2"])
                found[f"norm/{name}"] = np.sqrt(square)
        return found


def difference(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]
) -> float:
    """Returns the largest relative difference of loss, logits and gradient norms.

    Gradient norms are compared relative to the largest norm.

    Args:
        expected: results of TensorFlow; may be empty.
        found: results with the same names.
    """
    differences = [0.0]
    norms = [name for name in expected if name.startswith("norm/")]
    largest = max((float(expected[name]) for name in norms), default=1.0)
    for name, value in expected.items():
        scale = largest if name in norms else max(float(np.abs(value).max()), 1e-30)
        differences.append(float(np.abs(found[name] - value).max()) / scale)
    return max(differences)


def gradient_norm(results: Mapping[str, np.ndarray]) -> float | None:
    """Returns the norm of the whole gradient; None for a forward pass."""
    norms = [
        float(value) for name, value in results.items() if name.startswith("norm/")
    ]
    return math.hypot(*norms) if norms else None


@contextlib.contextmanager
def locked(path: str | None, *, exclusive: bool) -> Iterator[None]:
    """Holds a lock file, so that processes compile side by side but measure alone.

    Processes must be started together: one that starts later, before it takes the lock,
    can disturb a measurement.

    Args:
        path: lock file; None for no lock.
        exclusive: whether to wait until no other process holds the lock, as for a
            measurement. A shared lock only waits for measurements.
    """
    if path is None:
        yield
        return
    with open(path, "w", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH)
        yield


def measure(
    folder: pathlib.Path, *, runs: int, lock: str | None, trace_dir: str | None
) -> dict[str, Any]:
    """Compiles, compares and times one module.

    Args:
        folder: folder of the module.
        runs: number of timed runs.
        lock: lock file, see `locked`; None for no lock.
        trace_dir: folder for a trace of `TRACED_RUNS` runs and the text of the compiled
            module; None for neither.
    """
    import jax

    with locked(lock, exclusive=False):
        module = Executable(folder)
        results = module.results(module.run())
    with np.load(folder / "expected.npz") as archive:
        expected = dict(archive)
    largest_difference = difference(expected, results)
    is_float32 = module.about["precision"] == "float32"
    if is_float32 and not largest_difference <= TOLERANCE:
        raise SystemExit(
            f"{folder.name}: expected TensorFlow's values. Off by {largest_difference}"
        )
    with locked(lock, exclusive=True):
        for _ in range(WARM_UPS):
            jax.block_until_ready(module.run())
        seconds = []
        for _ in range(runs):
            started = time.perf_counter()
            jax.block_until_ready(module.run())
            seconds.append(time.perf_counter() - started)
        started = time.perf_counter()
        for _ in range(runs):
            last = module.run()
        jax.block_until_ready(last)
        without_waiting = (time.perf_counter() - started) / runs
        if trace_dir is not None:
            target = pathlib.Path(trace_dir, folder.name)
            with jax.profiler.trace(str(target)):
                for _ in range(TRACED_RUNS):
                    last = module.run()
                jax.block_until_ready(last)
            text = module.executable.hlo_modules()[0].to_string()
            (target / "compiled.txt").write_text(text, encoding="utf-8")
    memory = module.executable.get_compiled_memory_stats()
    return {
        "module": folder.name,
        "device": module.device.device_kind,
        "compile_seconds": module.compile_seconds,
        "median_seconds": statistics.median(seconds),
        "fastest_seconds": min(seconds),
        "seconds_without_waiting": without_waiting,
        "runs_seconds": seconds,
        "working_bytes": memory.temp_size_in_bytes,
        "argument_bytes": memory.argument_size_in_bytes,
        "difference": largest_difference if expected else None,
        "first": float(results["loss"]) if "loss" in results else None,
        "gradient_norm": gradient_norm(results),
    }


def require_flags_only(argv: Sequence[str]) -> None:
    """Raises `app.UsageError` if there are arguments that are no flags."""
    if argv[1:]:
        raise app.UsageError(f"expected flags only. Received: {argv[1:]}")


def define_module_flags() -> None:
    """Defines the flags of `requested_modules`, and that of the output."""
    flags.DEFINE_string("modules_dir", None, "Output folder of `emit`.", required=True)
    flags.DEFINE_multi_string(
        "module", [], "Folder in --modules_dir; may be repeated. All if not given."
    )
    flags.DEFINE_string("output", None, "JSON file to write.", required=True)


def requested_modules() -> list[pathlib.Path]:
    """Returns the folders of the modules that the flags request."""
    root = pathlib.Path(flags.FLAGS.modules_dir)
    found = sorted(path.parent.name for path in root.glob("*/about.json"))
    return [root / name for name in flags.FLAGS.module or found]


def define_lock_flag() -> None:
    """Defines the flag of the lock file, see `locked`."""
    flags.DEFINE_string(
        "lock",
        None,
        "Lock file of processes that compile side by side but measure one at a time.",
    )


def main(argv: Sequence[str]) -> None:
    """Measures the modules that the flags request, one after another."""
    values = flags.FLAGS
    require_flags_only(argv)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax

    # A step uses an int64 counter and corrects Adam's bias in float64.
    jax.config.update("jax_enable_x64", True)
    rows = []
    for folder in requested_modules():
        row = measure(
            folder,
            runs=values.runs,
            lock=values.lock,
            trace_dir=values.trace_dir,
        )
        rows.append(row)
        print(
            f"{folder.name}: {1e3 * row['median_seconds']:.2f} ms, "
            f"{1e3 * row['seconds_without_waiting']:.2f} without waiting, working "
            f"memory {row['working_bytes'] / 1e9:.2f} GB, compiled in "
            f"{row['compile_seconds']:.0f} s, difference {row['difference']}, loss "
            f"{row['first']}, gradient norm {row['gradient_norm']}",
            flush=True,
        )
        pathlib.Path(values.output).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    define_module_flags()
    define_lock_flag()
    flags.DEFINE_integer("runs", 10, "Timed runs of each module.", lower_bound=1)
    flags.DEFINE_string("trace_dir", None, "Folder for a trace of each module.")
    app.run(main)
