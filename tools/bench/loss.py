"""Compares the training loss and its gradient with PyTorch.

    python -m tools.bench.loss --output=loss.json

Measures the Lovász-Softmax plus focal loss on two patches of noise, with the focal
factor detached as in the published code. Results are reported only if losses and
gradients agree. Peak memory includes the library; "added" is the growth since the first
run.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner
from tools.bench.measuring import (
    Arrays,
    Contender,
    Measurement,
    Task,
    check_agreement,
    measure,
)
from tools.bench.setting import to_torch
from u2net_tf import machine

PATCH_SIZES = (64, 128)
NUM_CLASSES = (2, 3)
BATCH_SIZE = 2
# For sums over all voxels in float32, in different orders.
TOLERANCE = 1e-4
# For the gradient at a voxel, multiplied by the number of voxels: the published
# formula, used on the side of PyTorch, subtracts successive Jaccard losses. These are
# near 1 and differ by about 1 / voxels, of which float32 keeps few digits.
TOLERANCE_PER_VOXEL = 2.0**-24
COLUMNS = (
    reporting.Column("batch", "batch"),
    reporting.Column("num_classes", "classes"),
    reporting.CONTENDER,
    *reporting.TIMES_MS,
    *reporting.MEMORY,
    reporting.Column("added_bytes", "added GB", ".2f", 1e-9),
)


def draw_arrays(patch_size: int, num_classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Draws labels (N, D, H, W) uint8 and logits (N, D, H, W, K) float32.

    Args:
        patch_size: D = H = W.
        num_classes: K.
    """
    generator = np.random.default_rng(0)
    size = (BATCH_SIZE, *(patch_size,) * 3)
    labels = generator.integers(num_classes, size=size, dtype=np.uint8)
    return labels, generator.standard_normal((*size, num_classes), np.float32)


def make_ours(patch_size: int, num_classes: int) -> Task:
    """Returns the task of our loss, compiled by `tf.function` as in `Trainer`."""
    machine.import_tensorflow()
    import tensorflow as tf

    from u2net_tf.losses import segmentation_loss

    arrays = draw_arrays(patch_size, num_classes)
    labels, logits = map(tf.constant, arrays)

    @tf.function
    def forward_and_backward(labels, logits):
        with tf.GradientTape() as tape:
            tape.watch(logits)
            loss = segmentation_loss(labels, logits, detach_factor=True)
        return loss, tape.gradient(loss, logits)

    def results(tensors):
        loss, gradient = (tensor.numpy() for tensor in tensors)
        return _named(labels.numpy(), loss, gradient)

    return Task(lambda: forward_and_backward(labels, logits), results)


def make_torch(layout: str, patch_size: int, num_classes: int) -> Task:
    """Returns the task of PyTorch in one of its layouts."""
    import torch

    from tools.bench.torch_network import segmentation_loss

    labels, logits = draw_arrays(patch_size, num_classes)
    labels = torch.from_numpy(labels)
    logits = to_torch(logits, layout).requires_grad_()

    def forward_and_backward():
        loss = segmentation_loss(labels, logits)
        return loss.detach(), *torch.autograd.grad(loss, [logits])

    def results(tensors):
        loss, gradient = (tensor.numpy() for tensor in tensors)
        return _named(labels.numpy(), loss, np.moveaxis(gradient, 1, -1))

    return Task(forward_and_backward, results)


def _named(labels, loss, gradient) -> Arrays:
    """Adds the gradient summed over the voxels of each label, (K, K)."""
    sums = [
        gradient[labels == index].sum(axis=0, dtype=np.float64)
        for index in range(gradient.shape[-1])
    ]
    return {"loss": loss, "gradient": gradient, "gradient by label": np.stack(sums)}


def check_losses(measurements: Sequence[Measurement], num_voxels: int) -> str:
    """Checks that losses and gradients agree with those of the first contender.

    Args:
        measurements: measurements of contenders of this benchmark.
        num_voxels: number of voxels in the batch.

    Returns:
        A description of the differences.

    Raises:
        StoppedError: see `check_agreement`.
    """
    at_voxel = max(TOLERANCE, TOLERANCE_PER_VOXEL * num_voxels)
    loss, by_label, gradient = (
        check_agreement(
            [dataclasses.replace(m, results={k: m.results[k]}) for m in measurements],
            tolerance,
        )
        for k, tolerance in (
            ("loss", TOLERANCE),
            ("gradient by label", TOLERANCE),
            ("gradient", at_voxel),
        )
    )
    return (
        f"losses differ by at most {loss:.1e} of the largest, gradients by "
        f"{by_label:.1e} summed over a label and {gradient:.1e} at a voxel."
    )


def contenders(
    patch_size: int, num_classes: int, layouts: Sequence[str]
) -> list[Contender]:
    """Returns our contender and those of PyTorch."""
    options = {"patch_size": patch_size, "num_classes": num_classes}
    return [
        Contender("ours", make_ours, options),
        *(
            Contender(
                bench_flags.torch_name(layout),
                make_torch,
                {"layout": layout, **options},
            )
            for layout in layouts
        ),
    ]


def benchmark(
    patch_sizes: Sequence[int], layouts: Sequence[str], *, runs: int, threads: int
) -> reporting.Report:
    """Measures patches of each edge in voxels, with two and with three classes."""
    rows, notes = [], []
    for edge in patch_sizes:
        batch = "×".join(map(str, (BATCH_SIZE, edge, edge, edge)))
        for num_classes in NUM_CLASSES:
            measured = measure(
                contenders(edge, num_classes, layouts), runs=runs, threads=threads
            )
            if len(measured) > 1:
                differences = check_losses(measured, BATCH_SIZE * edge**3)
                notes.append(f"{batch}, {num_classes} classes: {differences}")
            for row in reporting.rows_of(
                measured, batch=batch, num_classes=num_classes
            ):
                row["added_bytes"] = row["peak_bytes"] - row["start_bytes"]
                rows.append(row)
    return reporting.Report("loss", COLUMNS, rows, notes)


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(runs=5)
    flags.DEFINE_multi_integer(
        "patch_size",
        PATCH_SIZES,
        "Edge of the patches in voxels; may be repeated.",
        lower_bound=1,
    )


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    return benchmark(
        flags.FLAGS.patch_size,
        bench_flags.torch_layouts(),
        runs=flags.FLAGS.runs,
        threads=bench_flags.num_threads(),
    )


if __name__ == "__main__":
    runner.run(define_flags, report)
