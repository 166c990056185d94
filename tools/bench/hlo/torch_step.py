"""Measures PyTorch's training step of the same network, on a GPU or the CPU.

    python -m tools.bench.hlo.torch_step --patch_size=128 --output=torch.json

This is the counterpart of `tools.bench.hlo.run`, with the same parameters, batch and
loss. It needs absl-py, NumPy and PyTorch, and runs from a checkout.
"""

from __future__ import annotations

import json
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from absl import app, flags

from tools.bench.hlo.run import (
    WARM_UPS,
    define_lock_flag,
    locked,
    require_flags_only,
)
from tools.bench.setting import ADAM, BETA_2, Setting, build_torch, draw_batch, to_torch

LAYOUTS = ("channels_first", "channels_last")


def make_step(
    setting: Setting, layout: str, *, compiled: bool, precision: str, device: str
) -> tuple[Callable[[], Any], Any]:
    """Returns a function that takes a step and returns its loss, and the optimizer.

    Args:
        setting: architecture and size.
        layout: one of `LAYOUTS`.
        compiled: whether `torch.compile` compiles network and loss.
        precision: "float32", or "bfloat16" for autocast.
        device: "cuda" or "cpu".
    """
    import torch

    from tools.bench.torch_network import segmentation_loss

    network = build_torch(setting, layout).to(device)
    optimizer = torch.optim.Adam(
        network.parameters(),
        lr=ADAM["learning_rate"],
        weight_decay=ADAM["weight_decay"],
        fused=True if compiled else None,
    )
    image, labels = draw_batch(setting, 0)
    images = to_torch(image, layout).to(device)
    classes = torch.from_numpy(labels).to(device)

    def compute_loss(images, classes):
        half = precision == "bfloat16"
        with torch.autocast(device, torch.bfloat16, enabled=half):
            logits = network(images, 0)
        return segmentation_loss(classes, logits.float())

    function = torch.compile(compute_loss) if compiled else compute_loss

    def step():
        optimizer.zero_grad()
        loss = function(images, classes)
        loss.backward()
        optimizer.step()
        return loss.detach()

    return step, optimizer


def measure(step: Callable[[], Any], optimizer, runs: int, lock: str | None) -> dict:
    """Runs training steps and returns the measurements."""
    import torch

    has_gpu = torch.cuda.is_available()
    with locked(lock, exclusive=False):
        started = time.perf_counter()
        first = float(step())
        first_seconds = time.perf_counter() - started
        moments = [state["exp_avg_sq"] for state in optimizer.state.values()]
        squares = sum(float(moment.double().sum()) for moment in moments)
    with locked(lock, exclusive=True):
        for _ in range(WARM_UPS):
            float(step())
        if has_gpu:
            torch.cuda.reset_peak_memory_stats()
        seconds = []
        for _ in range(runs):
            started = time.perf_counter()
            float(step())
            if has_gpu:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - started)
        peak = torch.cuda.max_memory_allocated() if has_gpu else None
    return {
        "device": torch.cuda.get_device_name() if has_gpu else "cpu",
        "torch": torch.__version__,
        "first": first,
        "first_seconds": first_seconds,
        "gradient_norm": float(np.sqrt(squares / (1 - BETA_2))),
        "median_seconds": statistics.median(seconds),
        "fastest_seconds": min(seconds),
        "runs_seconds": seconds,
        "peak_bytes": peak,
    }


def main(argv: Sequence[str]) -> None:
    """Runs the benchmark as the flags specify."""
    values = flags.FLAGS
    require_flags_only(argv)
    import torch

    torch.backends.cuda.matmul.allow_tf32 = values.tensor_float_32
    torch.backends.cudnn.allow_tf32 = values.tensor_float_32
    step, optimizer = make_step(
        Setting(patch_size=(values.patch_size,) * 3, batch_size=values.batch_size),
        values.layout,
        compiled=values.compile,
        precision=values.precision,
        device="cuda" if torch.cuda.is_available() else "cpu",
    )
    names = ("patch_size", "batch_size", "layout", "compile", "precision")
    row = {
        **{name: values[name].value for name in names},
        "tensor_float_32": values.tensor_float_32,
        **measure(step, optimizer, values.runs, values.lock),
    }
    print(
        f"{row['layout']}, {'compiled' if row['compile'] else 'eager'}, "
        f"{row['precision']}: {1e3 * row['median_seconds']:.2f} ms, peak "
        f"{(row['peak_bytes'] or 0) / 1e9:.2f} GB, loss {row['first']:.6f}, "
        f"gradient norm {row['gradient_norm']:.4f}"
    )
    pathlib.Path(values.output).write_text(json.dumps(row, indent=1) + "\n")


if __name__ == "__main__":
    flags.DEFINE_string("output", None, "JSON file to write.", required=True)
    flags.DEFINE_integer(
        "patch_size", 64, "Edge of the patches in voxels.", lower_bound=2
    )
    flags.DEFINE_integer("batch_size", 2, "Patches per batch.", lower_bound=1)
    flags.DEFINE_enum("layout", LAYOUTS[0], LAYOUTS, "Layout of the feature maps.")
    flags.DEFINE_bool("compile", False, "Use torch.compile, and the fused Adam.")
    flags.DEFINE_enum(
        "precision",
        "float32",
        ("float32", "bfloat16"),
        "Precision; bfloat16 uses autocast.",
    )
    flags.DEFINE_bool(
        "tensor_float_32", False, "Let float32 products round their factors."
    )
    flags.DEFINE_integer("runs", 10, "Number of timed steps.", lower_bound=1)
    define_lock_flag()
    app.run(main)
