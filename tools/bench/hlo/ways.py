"""Compares implementations of convolutions in JAX, compiled by XLA.

    python -m tools.bench.hlo.ways --output=ways.json

This is the counterpart of `tools.bench.depthwise_ways` for any device and needs only
absl-py, NumPy and JAX. Results are compared with the first one of each group. The lower
bound is the time of one pass over inputs and outputs at the speed of a copy, which is
measured first.
"""

from __future__ import annotations

import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import app, flags

from tools.bench.hlo.implementations import (
    FIRST,
    forward_implementations,
    gradient_implementations,
    pointwise_implementations,
    strided_implementations,
)
from tools.bench.hlo.run import require_flags_only

COPY_ELEMENTS = 2**28


def time_function(function: Callable, *arrays) -> tuple[Any, float]:
    """Times a function compiled by XLA; returns its result and the median seconds."""
    import jax

    compiled = jax.jit(function).lower(*arrays).compile()
    result = jax.block_until_ready(compiled(*arrays))
    times = []
    for _ in range(5):
        started = time.perf_counter()
        for _ in range(flags.FLAGS.repeats):
            last = compiled(*arrays)
        jax.block_until_ready(last)
        times.append((time.perf_counter() - started) / flags.FLAGS.repeats)
    return result.astype("float32"), statistics.median(times)


def measure(shape: Sequence[int], dtype: str, bandwidth: float) -> list[dict]:
    """Returns the rows for one shape and precision.

    Args:
        shape: shape (N, D, H, W, C) of the inputs.
        dtype: "float32" or "bfloat16".
        bandwidth: bytes read and written per second by a copy.
    """
    import jax.numpy as jnp

    generator = np.random.default_rng(0)
    num, *size, channels = shape

    def draw(*shape):
        return jnp.asarray(generator.standard_normal(shape, np.float32))

    inputs, upstream = (draw(*shape).astype(dtype) for _ in range(2))
    half = draw(num, *(s // 2 for s in size), 2 * channels).astype(dtype)
    kernel, matrix = draw(3, 3, 3, channels), draw(channels, channels)
    dense = draw(3, 3, 3, channels, 2 * channels)
    rows = []
    # Feature maps, channels last, and other arguments of each function.
    for what, functions, maps, others in (
        ("depthwise", forward_implementations(), [inputs], [kernel]),
        ("kernel gradient", gradient_implementations(), [inputs, upstream], []),
        ("pointwise", pointwise_implementations(gradient=False), [inputs], [matrix]),
        (
            "pointwise gradient",
            pointwise_implementations(gradient=True),
            [inputs, upstream],
            [],
        ),
        ("strided input gradient", strided_implementations(), [half], [dense]),
    ):
        reference = None
        for (layout, name), function in functions.items():
            moved = [jnp.moveaxis(m, -1, 1) if layout == FIRST else m for m in maps]
            result, seconds = time_function(function, *moved, *others)
            num_bytes = sum(m.nbytes for m in maps)
            if result.ndim == inputs.ndim:
                num_bytes += inputs.nbytes
                result = jnp.moveaxis(result, 1, -1) if layout == FIRST else result
            reference = result if reference is None else reference
            distance = jnp.sqrt(jnp.sum((result - reference) ** 2))
            row = {
                "shape": list(shape),
                "dtype": dtype,
                "what": what,
                "layout": layout,
                "way": name,
                "seconds": seconds,
                "least_seconds": num_bytes / bandwidth,
                "difference": float(distance / jnp.sqrt(jnp.sum(reference**2))),
            }
            rows.append(row)
            print(
                f"{','.join(map(str, shape)):18s} {dtype:9s} {what:22s} {layout:14s} "
                f"{name:28s} {1e3 * seconds:8.3f} ms, bound "
                f"{1e3 * row['least_seconds']:.3f}, difference {row['difference']:.1e}",
                flush=True,
            )
    return rows


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark as the flags specify."""
    values = flags.FLAGS
    require_flags_only(argv)
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    import jax
    import jax.numpy as jnp

    ones = jnp.ones((values.copy_elements,), jnp.float32)
    _, seconds = time_function(lambda array: array + 1, ones)
    bandwidth = 2 * ones.nbytes / seconds
    device = jax.devices()[0].device_kind
    print(f"{device}: {bandwidth / 1e12:.3f} TB/s copied, read and written", flush=True)
    rows = []
    for text in values.shape:
        shape = [int(part) for part in text.split(",")]
        for dtype in values.dtype:
            rows += measure(shape, dtype, bandwidth)
    content = {"device": device, "bytes_per_second": bandwidth, "rows": rows}
    pathlib.Path(values.output).write_text(json.dumps(content, indent=1) + "\n")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "JSON file to write.", required=True)
    flags.DEFINE_multi_string(
        "shape",
        ["2,128,128,128,16", "2,64,64,64,32", "2,32,32,32,64", "2,8,8,8,256"],
        "Shape N,D,H,W,C of the inputs; may be repeated.",
    )
    flags.DEFINE_multi_enum(
        "dtype",
        ["float32", "bfloat16"],
        ["float32", "bfloat16"],
        "Precision; may be repeated.",
    )
    flags.DEFINE_integer("repeats", 20, "Consecutive runs per timing.", lower_bound=1)
    flags.DEFINE_integer(
        "copy_elements",
        COPY_ELEMENTS,
        "Number of float32 elements copied.",
        lower_bound=1,
    )
    app.run(main)
