"""Compares our sliding-window inference with MONAI's, with a PyTorch network.

    python -m tools.bench.inference --output=inference.json

Both use the same windows, overlap, batch size and blending weights. Results are
reported only if the probabilities of the entire volume agree. At the default size,
PyTorch takes minutes.
"""

from __future__ import annotations

import functools
import sys
from collections.abc import Sequence

import numpy as np
from absl import flags

from tools.bench import flags as bench_flags
from tools.bench import reporting, runner
from tools.bench.measuring import Contender, Task, check_agreement, measure
from tools.bench.networks import build_ours
from tools.bench.setting import Setting, build_torch, memory_format
from tools.bench.step import LARGEST_TOGETHER
from u2net_tf import command, command_flags

OVERLAP = 0.5
# Difference of probabilities; for the reason see `step.TOLERANCE`.
TOLERANCE = 2e-2
COLUMNS = (
    reporting.Column("volume", "volume"),
    reporting.Column("patch", "window"),
    reporting.CONTENDER,
    *reporting.TIMES,
    *reporting.MEMORY,
)


def draw_volume(size: Sequence[int]) -> np.ndarray:
    """Returns a float32 volume (z, y, x, 1) of noise."""
    generator = np.random.default_rng(0)
    return generator.standard_normal(size=(*size, 1), dtype=np.float32)


def make_ours(setting: Setting, size: Sequence[int]) -> Task:
    """Returns the task of our sliding window for domain 0; compiles the network."""
    network = build_ours(setting)
    import tensorflow as tf

    from u2net_tf.inference.windows import predict_volume

    signature = tf.TensorSpec([None, *setting.patch_size, setting.num_modalities[0]])

    @tf.function(input_signature=[signature])
    def predict(windows):
        return tf.nn.softmax(network(windows, domain=0, training=False))

    volume = draw_volume(size)
    shape = (setting.batch_size, *setting.patch_size, 1)
    predict(np.zeros(shape, np.float32))

    def run():
        return predict_volume(
            volume,
            lambda windows: np.asarray(predict(windows)),
            patch_size=setting.patch_size,
            num_classes=setting.num_classes[0],
            overlap=OVERLAP,
            batch_size=setting.batch_size,
            with_probabilities=True,
        )

    return Task(run, lambda found: {"probabilities": found[1]})


def make_monai(setting: Setting, layout: str, size: Sequence[int]) -> Task:
    """Returns the task of MONAI's sliding window with the PyTorch network, domain 0."""
    # MONAI imports TensorFlow if installed, and its memory would then be counted.
    sys.modules["tensorflow"] = None
    import torch
    from monai.inferers import sliding_window_inference

    from u2net_tf.inference.windows import blending_weights

    network = build_torch(setting, layout).eval()
    volume = torch.from_numpy(np.moveaxis(draw_volume(size), -1, 0)[np.newaxis])
    weights = torch.from_numpy(blending_weights(setting.patch_size))

    def predict(windows):
        windows = windows.contiguous(memory_format=memory_format(layout))
        return torch.softmax(network(windows, 0), dim=1)

    infer = functools.partial(
        sliding_window_inference,
        roi_size=setting.patch_size,
        sw_batch_size=setting.batch_size,
        predictor=predict,
        overlap=OVERLAP,
        roi_weight_map=weights,
    )

    def run():
        with torch.inference_mode():
            return infer(volume)

    with torch.inference_mode():
        predict(torch.zeros((setting.batch_size, 1, *setting.patch_size)))
    return Task(
        run, lambda found: {"probabilities": np.moveaxis(found[0].numpy(), 0, -1)}
    )


def benchmark(
    setting: Setting,
    size: Sequence[int],
    layouts: Sequence[str],
    *,
    runs: int,
    threads: int,
) -> reporting.Report:
    """Measures the prediction of a volume of `size`, z, y, x."""
    contenders = [
        Contender("ours", make_ours, {"setting": setting, "size": size}),
        *(
            Contender(
                f"MONAI, {bench_flags.torch_name(layout)}",
                make_monai,
                {"setting": setting, "layout": layout, "size": size},
            )
            for layout in layouts
        ),
    ]
    measured = measure(
        contenders,
        runs=runs,
        # Creating the task predicts a first batch.
        warm_ups=0,
        threads=threads,
        together=max(setting.patch_size) <= LARGEST_TOGETHER,
    )
    largest = check_agreement(measured, TOLERANCE)
    rows = reporting.rows_of(
        measured,
        volume="×".join(map(str, size)),
        patch="×".join(map(str, setting.patch_size)),
    )
    note = (
        f"Batches of {setting.batch_size} windows, overlap {OVERLAP}; probabilities "
        f"differ by at most {largest:.1e}."
    )
    return reporting.Report("inference", COLUMNS, rows, [note])


def define_flags() -> None:
    """Defines the flags of this command."""
    bench_flags.define_flags(runs=1)
    bench_flags.define_network_flags()
    flags.DEFINE_list(
        "volume_size", ["128", "320", "320"], "Size of the volume in voxels, z,y,x."
    )
    flags.DEFINE_list(
        "patch_size", ["128", "128", "128"], "Size of a window in voxels, z,y,x."
    )


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    values = flags.FLAGS
    options = bench_flags.network_options()
    volume_size, patch_size = (
        command_flags.triple(values[name], least=1)
        for name in ("volume_size", "patch_size")
    )
    command_flags.required(values["volume_size"], values["patch_size"])
    patch_size = bench_flags.check_patch("patch_size", patch_size, options["pools"])
    if any(map(int.__lt__, volume_size, patch_size)):
        # Smaller volumes are padded and blended differently.
        raise command.InputError(
            "`volume_size`",
            expected=f"at least the patch {patch_size}",
            received=volume_size,
        )
    return benchmark(
        Setting(patch_size=patch_size, **options),
        volume_size,
        bench_flags.torch_layouts("monai"),
        runs=values.runs,
        threads=bench_flags.num_threads(),
    )


if __name__ == "__main__":
    runner.run(define_flags, report)
