"""Compiles modules written by `tools.bench.hlo.emit` for an H200, without the GPU.

    python -m tools.bench.hlo.plan --modules_dir=DIR --output=plan.json

Prints the memory that XLA plans for each module, and the bytes of all operands and
results of its kernels, by kind of kernel: an estimate of what they read and write, in
which slices count in full. Both change with the layouts and fusions that XLA chooses,
so they can be compared before anything is measured on a GPU. No kernel is tuned, and
another version of XLA can plan differently.

Needs absl-py, NumPy and JAX with its plugin for CUDA (the packages jax-cuda12-plugin
and jax-cuda12-pjrt, or those of CUDA 13), but no GPU and no CUDA libraries. Uses
private names of JAX; tested with versions 0.10.2 and 0.11.2.
"""

from __future__ import annotations

import collections
import json
import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any

from absl import app, flags

from tools.bench.hlo.run import (
    define_module_flags,
    read_computation,
    requested_modules,
    require_flags_only,
    to_stablehlo,
)

# The card as XLA describes it.
H200 = """
gpu_device_info {
  threads_per_block_limit: 1024
  threads_per_warp: 32
  shared_memory_per_block: 49152
  shared_memory_per_core: 233472
  threads_per_core_limit: 2048
  core_count: 132
  fpus_per_core: 128
  block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535
  block_dim_limit_z: 65535
  memory_bandwidth: 4800000000000
  l2_cache_size: 62914560
  clock_rate_ghz: 1.98
  device_memory_size: 149000000000
  shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 minor: 0 }
  registers_per_core_limit: 65536
  registers_per_block_limit: 65536
}
platform_name: "CUDA"
dnn_version_info { major: 9 minor: 10 patch: 0 }
runtime_version { major: 12 minor: 8 }
device_description_str: "NVIDIA H200"
"""
ARRAY = re.compile(r"\b(pred|bf16|[a-z]+?(\d+))\[([\d,]*)\]")
INSTRUCTION = re.compile(
    r"^\s*(?:ROOT )?%?([\w.\-]+) = (\(.*?\)|\S+) ([\w\-]+)\((.*?)\)(?:, (.*))?$"
)
TARGET = re.compile(r'custom_call_target="([^"]*)"')
# Instructions that are no kernels.
FREE = {
    "bitcast",
    "constant",
    "get-tuple-element",
    "opt-barrier",
    "parameter",
    "tuple",
}


def compile_module(folder: pathlib.Path) -> tuple[Any, str]:
    """Compiles a module; returns XLA's memory statistics and the optimized module.

    Args:
        folder: folder of the module.
    """
    from jax._src import xla_bridge
    from jax._src.interpreters import mlir
    from jax._src.lib import xla_client
    from jaxlib.mlir import ir

    # Logs that CUDA is missing, but loads the compiler.
    xla_bridge.discover_pjrt_plugins()
    if not xla_client.pjrt_plugin_initialized("cuda"):
        xla_client.initialize_pjrt_plugin("cuda")
    topology = xla_bridge.make_pjrt_topology(
        "cuda", "", target_config=H200, topology="1x1x1"
    )
    devices = tuple(topology._make_compile_only_devices())
    with mlir.make_ir_context():
        module = ir.Module.parse(to_stablehlo(read_computation(folder)))
    executable = devices[0].client.compile(
        module, xla_client.DeviceList(devices[:1]), xla_client.CompileOptions()
    )
    text = executable.hlo_modules()[0].to_string()
    return executable.get_compiled_memory_stats(), text


def num_bytes(shape: str) -> int:
    """Returns the bytes of an array or of a tuple of arrays, as XLA writes them."""
    total = 0
    for dtype, bits, sizes in ARRAY.findall(shape):
        elements = math.prod(int(size) for size in sizes.split(",") if size)
        total += elements * (1 if dtype == "pred" else int(bits or 16) // 8)
    return total


def traffic(text: str) -> dict[str, tuple[int, int]]:
    """Returns the kernels of an optimized module and the bytes of their arguments.

    Args:
        text: module as text. Loops and conditionals count as one kernel, and workspaces
            of libraries as results.

    Returns:
        Kind of kernel -> (number of kernels, bytes of operands and results).
    """
    _, _, entry = text.partition("\nENTRY ")
    sizes: dict[str, int] = {}
    counts, totals = collections.Counter(), collections.Counter()
    for line in entry.splitlines():
        match = INSTRUCTION.match(line)
        if match is None:
            continue
        name, shape, kind, operands, rest = match.groups()
        sizes[name] = num_bytes(shape)
        if kind in FREE:
            continue
        target = TARGET.search(rest or "")
        group = target[1] if target else re.sub(r"[.\d]+$", "", name)
        read = dict.fromkeys(re.findall(r"%([\w.\-]+)", operands))
        counts[group] += 1
        totals[group] += sizes[name] + sum(sizes.get(operand, 0) for operand in read)
    return {group: (counts[group], total) for group, total in totals.most_common()}


def main(argv: Sequence[str]) -> None:
    """Compiles the modules that the flags request, one after another."""
    values = flags.FLAGS
    require_flags_only(argv)
    # Tuning would run kernels.
    given = os.environ.get("XLA_FLAGS", "")
    os.environ["XLA_FLAGS"] = f"{given} --xla_gpu_autotune_level=0"
    os.environ["JAX_PLATFORMS"] = "cpu"
    rows = []
    for folder in requested_modules():
        memory, text = compile_module(folder)
        kernels = traffic(text)
        total = sum(count for _, count in kernels.values())
        rows.append(
            {
                "module": folder.name,
                "working_bytes": memory.temp_size_in_bytes,
                "argument_bytes": memory.argument_size_in_bytes,
                "operand_and_result_bytes": total,
                "kernels": kernels,
            }
        )
        print(
            f"{folder.name}: working memory {memory.temp_size_in_bytes / 1e9:.2f} GB, "
            f"{total / 1e9:.1f} GB of operands and results",
            flush=True,
        )
        for group, (count, size) in list(kernels.items())[: values.most]:
            print(f"  {group:45s} {count:5d} kernels {size / 1e9:8.2f} GB")
        pathlib.Path(values.output).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    define_module_flags()
    flags.DEFINE_integer("most", 12, "Number of kinds to print.", lower_bound=0)
    app.run(main)
