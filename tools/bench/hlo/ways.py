"""Compares implementations of the depthwise convolution in JAX, compiled by XLA.

    python -m tools.bench.hlo.ways --output=ways.json

This is the counterpart of `tools.bench.depthwise_ways` for any device and needs only
absl-py, NumPy and JAX. The first implementation of each group is ours. The lower bound
is the time of one pass over inputs and outputs at the speed of a copy, which is
measured first.
"""

from __future__ import annotations

import functools
import itertools
import json
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from absl import app, flags

TAPS = tuple(itertools.product(range(3), repeat=3))
COPY_ELEMENTS = 2**28
Implementations = Mapping[str, Callable]


def forward_implementations() -> Implementations:
    """Returns convolutions of (N, D, H, W, C) with (3, 3, 3, C), by name."""
    import jax.numpy as jnp
    from jax import lax

    def pad(inputs):
        return jnp.pad(inputs, [(0, 0), (1, 1), (1, 1), (1, 1), (0, 0)])

    def planes(inputs, kernel):
        padded = pad(inputs.astype(jnp.float32))
        _, _, height, width, _ = inputs.shape
        for tap in range(3):
            rows = (
                padded[:, :, i : i + height, j : j + width] * kernel[tap, i, j]
                for i, j in itertools.product(range(3), repeat=2)
            )
            yield functools.reduce(jnp.add, rows)

    def shifted(inputs, kernel):
        depth = inputs.shape[1]
        parts = [
            p[:, tap : tap + depth] for tap, p in enumerate(planes(inputs, kernel))
        ]
        return functools.reduce(jnp.add, parts).astype(inputs.dtype)

    def planes_first(inputs, kernel):
        depth = inputs.shape[1]
        made = [plane.astype(inputs.dtype) for plane in planes(inputs, kernel)]
        made = lax.optimization_barrier(tuple(made))
        parts = [
            p[:, tap : tap + depth].astype(jnp.float32) for tap, p in enumerate(made)
        ]
        return functools.reduce(jnp.add, parts).astype(inputs.dtype)

    def channels_first(inputs, kernel):
        moved = jnp.moveaxis(inputs, -1, 1)
        padded = jnp.pad(moved, [(0, 0), (0, 0), (1, 1), (1, 1), (1, 1)])
        depth, height, width = moved.shape[2:]
        parts = (
            padded[:, :, d : d + depth, i : i + height, j : j + width].astype(
                jnp.float32
            )
            * kernel[d, i, j][:, None, None, None]
            for d, i, j in TAPS
        )
        return jnp.moveaxis(functools.reduce(jnp.add, parts), 1, -1).astype(moved.dtype)

    return {
        "shifted multiply-adds": shifted,
        "a map per depth tap": planes_first,
        "channels first": channels_first,
        "2D, per depth tap": _two_d,
        "grouped convolution": _grouped,
    }


def gradient_implementations() -> Implementations:
    """Returns functions from inputs and output gradient to kernel gradient, by name."""
    import jax
    import jax.numpy as jnp

    def transposed(convolve):
        def gradient(inputs, upstream):
            kernel = jnp.zeros((3, 3, 3, inputs.shape[-1]), inputs.dtype)
            _, pull = jax.vjp(lambda kernel: convolve(inputs, kernel), kernel)
            return pull(upstream)[0]

        return gradient

    def sums(inputs, upstream):
        padded = jnp.pad(inputs, [(0, 0), (1, 1), (1, 1), (1, 1), (0, 0)])
        depth, height, width = inputs.shape[1:4]
        wide = upstream.astype(jnp.float32)
        parts = [
            jnp.sum(
                padded[:, d : d + depth, i : i + height, j : j + width].astype(
                    jnp.float32
                )
                * wide,
                axis=(0, 1, 2, 3),
            )
            for d, i, j in TAPS
        ]
        return jnp.stack(parts).reshape(3, 3, 3, -1)

    return {
        "2D, per depth tap": transposed(_two_d),
        "27 sums": sums,
        "grouped convolution": transposed(_grouped),
    }


def _grouped(inputs, kernel):
    from jax import lax

    channels = inputs.shape[-1]
    return lax.conv_general_dilated(
        inputs,
        kernel.reshape(3, 3, 3, 1, channels).astype(inputs.dtype),
        (1, 1, 1),
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=channels,
        precision=lax.Precision.HIGHEST,
    )


def _two_d(inputs, kernel):
    import jax.numpy as jnp
    from jax import lax

    num, depth, height, width, channels = inputs.shape
    padded = jnp.pad(inputs, [(0, 0), (1, 1), (0, 0), (0, 0), (0, 0)])
    parts = (
        lax.conv_general_dilated(
            padded[:, tap : tap + depth].reshape(num * depth, height, width, channels),
            kernel[tap].reshape(3, 3, 1, channels).astype(inputs.dtype),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels,
            precision=lax.Precision.HIGHEST,
        )
        for tap in range(3)
    )
    return functools.reduce(jnp.add, parts).reshape(inputs.shape)


def time_function(function: Callable, *arrays) -> tuple[np.ndarray, float]:
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
    return np.asarray(result).astype(np.float32), statistics.median(times)


def measure(shape: Sequence[int], dtype: str, bandwidth: float) -> list[dict]:
    """Returns the rows for one shape and precision.

    Args:
        shape: shape (N, D, H, W, C) of the inputs.
        dtype: "float32" or "bfloat16".
        bandwidth: bytes read and written per second by a copy.
    """
    import jax.numpy as jnp

    generator = np.random.default_rng(0)
    inputs, upstream = (
        jnp.asarray(generator.standard_normal(shape, np.float32), dtype)
        for _ in range(2)
    )
    kernel = jnp.asarray(generator.standard_normal((3, 3, 3, shape[-1]), np.float32))
    rows = []
    for what, implementations, second in (
        ("forward", forward_implementations(), kernel),
        ("kernel gradient", gradient_implementations(), upstream),
    ):
        reference = None
        for name, function in implementations.items():
            result, seconds = time_function(function, inputs, second)
            reference = result if reference is None else reference
            distance = np.linalg.norm(result - reference)
            row = {
                "shape": list(shape),
                "dtype": dtype,
                "what": what,
                "way": name,
                "seconds": seconds,
                "least_seconds": 2 * inputs.nbytes / bandwidth,
                "difference": float(distance / np.linalg.norm(reference)),
            }
            rows.append(row)
            print(
                f"{','.join(map(str, shape)):18s} {dtype:9s} {what:16s} {name:22s} "
                f"{1e3 * seconds:8.3f} ms, bound {1e3 * row['least_seconds']:.3f}, "
                f"difference {row['difference']:.1e}",
                flush=True,
            )
    return rows


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark as the flags specify."""
    values = flags.FLAGS
    if argv[1:]:
        raise app.UsageError(f"expected flags only. Received: {argv[1:]}")
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
