"""Measures the training loss and its gradient in the logits beside PyTorch's.

    python -m tools.bench.loss --output=loss.json

Lovász-Softmax and focal loss of two patches of noise, the focal factor detached, as
published. Nothing is reported unless losses and gradients agree. Peak memory includes
the library itself; "added" is what it grew by from the first run on.
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
# Sums over all voxels, in float32 and another order.
TOLERANCE = 1e-4
# Of the gradient at one voxel, for each voxel there is: the published formula, which is
# PyTorch's side, subtracts neighbouring Jaccard losses, numbers near 1 whose difference
# is near one by the number of voxels. Float32 leaves few digits of that.
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
    """Labels (N, D, H, W) uint8 and logits (N, D, H, W, K) float32: noise.

    Args:
        patch_size: D = H = W.
        num_classes: K.
    """
    generator = np.random.default_rng(0)
    size = (BATCH_SIZE, *(patch_size,) * 3)
    labels = generator.integers(num_classes, size=size, dtype=np.uint8)
    return labels, generator.standard_normal((*size, num_classes), np.float32)


def make_ours(patch_size: int, num_classes: int) -> Task:
    """The task of our loss, compiled by `tf.function` as the `Trainer` does it."""
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
    """The task of PyTorch in one of its layouts."""
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
    """With the gradient summed over the voxels of each label: (K, K)."""
    sums = [
        gradient[labels == index].sum(axis=0, dtype=np.float64)
        for index in range(gradient.shape[-1])
    ]
    return {"loss": loss, "gradient": gradient, "gradient by label": np.stack(sums)}


def check_losses(measurements: Sequence[Measurement], num_voxels: int) -> str:
    """Checks that losses and gradients are those of the first.

    Args:
        measurements: of contenders of this benchmark.
        num_voxels: of the batch.

    Returns:
        By how much they differ, in words.

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
    """Ours and PyTorch's."""
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
    """Measures patches of each edge, voxels, with two classes and with three."""
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
        "Edge of the patches, voxels; may be repeated.",
        lower_bound=1,
    )


def report() -> reporting.Report:
    """Measures what the flags ask for."""
    return benchmark(
        flags.FLAGS.patch_size,
        bench_flags.torch_layouts(),
        runs=flags.FLAGS.runs,
        threads=bench_flags.num_threads(),
    )


if __name__ == "__main__":
    runner.run(define_flags, report)
