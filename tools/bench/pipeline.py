"""Compares the input pipeline with batchgenerators: patches per second on one core.

    python -m tools.bench.pipeline --output=pipeline.json

Ours reads shards and produces batches; batchgenerators starts with the volume in memory
and reads a box of 1.25 times the patch, less than a rotation needs. Both deform, rotate
and scale every patch and its labels ("always"), or do so as often as the paper
("paper"); "intensities" adds all intensity augmentations to every patch. Because their
random numbers differ, only times are compared; tests compare ours with SciPy.
"""

from __future__ import annotations

import importlib.util
import math
import os
import pathlib
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from tools.bench import reporting, runner, synthetic_shards
from tools.bench.measuring import Contender, Task, measure
from u2net_tf import command, machine
from u2net_tf.interpolation.kernels import KERNELS

_ALWAYS = {"elastic": 1.0, "rotation": 1.0, "scaling": 1.0}
_INTENSITIES = (
    "noise",
    "blur",
    "brightness",
    "contrast",
    "low_resolution",
    "gamma_inverted",
    "gamma",
)
# Probability of each transform.
PARTS: Mapping[str, Mapping[str, float]] = {
    "always": _ALWAYS,
    "paper": {"elastic": 0.3, "rotation": 0.3, "scaling": 0.5},
    "intensities": _ALWAYS | dict.fromkeys(_INTENSITIES, 1.0),
}
COLUMNS = (
    reporting.Column("method", "interpolation"),
    reporting.Column("part", "augmented"),
    reporting.CONTENDER,
    reporting.Column("patches_per_second", "patches/s·core", ".2f"),
    *reporting.TIMES,
    *reporting.MEMORY,
)


def pin_to_one_core() -> None:
    """Pins this process, including threads that it starts later, to one core."""
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:1])


def make_ours(
    method: str, part: str, volume_edge: int, patch_edge: int, patches: int
) -> Task:
    """Returns the task of the pipeline: a batch read from shards."""
    pin_to_one_core()
    machine.import_tensorflow()
    from u2net_tf.config.augmentation import AugmentationConfig
    from u2net_tf.config.data import DataConfig
    from u2net_tf.input.pipeline import domain_dataset

    folder = tempfile.TemporaryDirectory()
    data_dir = pathlib.Path(folder.name)
    domain, manifest = synthetic_shards.write_shards(
        data_dir, (volume_edge,) * 3, patch_edge
    )
    probabilities = {
        f"{name}_probability": value for name, value in PARTS[part].items()
    }
    settings = DataConfig(
        data_dir=str(data_dir),
        batch_size=patches,
        resize_method=method,
        augmentation=AugmentationConfig(**probabilities),
        num_parallel_calls=1,
    )
    batches = domain_dataset(domain, manifest, settings).as_numpy_iterator()

    def run():
        # Returning the folder keeps it alive as long as the task.
        return folder, next(batches)

    return Task(run)


def make_batchgenerators(
    method: str, part: str, volume_edge: int, patch_edge: int, patches: int
) -> Task:
    """Returns the task of batchgenerators: as many patches from volumes in memory."""
    pin_to_one_core()
    from batchgenerators.augmentations.spatial_transformations import augment_spatial
    from batchgenerators.transforms import color_transforms, noise_transforms
    from batchgenerators.transforms.resample_transforms import (
        SimulateLowResolutionTransform,
    )

    probabilities = PARTS[part]
    box = math.ceil(1.25 * patch_edge)
    start = max(0, (volume_edge - box) // 2)
    crop = (slice(start, start + box),) * 3
    cases = range(synthetic_shards.NUM_CASES)
    draws = (synthetic_shards.draw_volume((volume_edge,) * 3, n) for n in cases)
    volumes = [
        [array[crop][np.newaxis, np.newaxis].astype(np.float32) for array in volume]
        for volume in draws
    ]
    np.random.seed(0)
    transforms = []
    if "noise" in probabilities:
        transforms = [
            noise_transforms.GaussianNoiseTransform(),
            noise_transforms.GaussianBlurTransform(
                (0.5, 1.0), different_sigma_per_channel=True
            ),
            color_transforms.BrightnessMultiplicativeTransform((0.75, 1.25)),
            color_transforms.ContrastAugmentationTransform((0.75, 1.25)),
            SimulateLowResolutionTransform(
                (0.5, 1.0), per_channel=True, order_downsample=0, order_upsample=3
            ),
            color_transforms.GammaTransform((0.7, 1.5), True, retain_stats=True),
            color_transforms.GammaTransform((0.7, 1.5), False, retain_stats=True),
        ]

    def run():
        for number in range(patches):
            image, labels = volumes[number % len(volumes)]
            image, labels = augment_spatial(
                image,
                labels,
                (patch_edge,) * 3,
                patch_center_dist_from_border=[patch_edge // 2] * 3,
                do_elastic_deform=True,
                alpha=(0.0, 750.0),
                sigma=(10.0, 13.0),
                do_rotation=True,
                # Its first axis is z.
                angle_x=(-math.pi, math.pi),
                angle_y=(0, 0),
                angle_z=(0, 0),
                do_scale=True,
                scale=(0.75, 1.25),
                border_mode_data="constant",
                order_data={"linear": 1, "cubic": 3}[method],
                order_seg=0,
                random_crop=False,
                p_el_per_sample=probabilities["elastic"],
                p_rot_per_sample=probabilities["rotation"],
                p_scale_per_sample=probabilities["scaling"],
            )
            values = {"data": image, "seg": labels}
            for transform in transforms:
                values = transform(**values)

    return Task(run)


def benchmark(
    methods: Sequence[str],
    parts: Sequence[str],
    *,
    volume_edge: int,
    patch_edge: int,
    patches: int,
    runs: int,
    alone: bool = False,
) -> reporting.Report:
    """Measures each interpolation with each of `PARTS`."""
    makers = {"ours": make_ours, "batchgenerators": make_batchgenerators}
    if alone:
        del makers["batchgenerators"]
    rows = []
    for method in methods:
        for part in parts:
            arguments: dict[str, Any] = {
                "method": method,
                "part": part,
                "volume_edge": volume_edge,
                "patch_edge": patch_edge,
                "patches": patches,
            }
            measured = measure(
                [Contender(name, make, arguments) for name, make in makers.items()],
                runs=runs,
                threads=1,
                # Ours reads ahead, which would slow runs of the other contender.
                together=False,
            )
            rows += [
                row | {"patches_per_second": patches / row["median_seconds"]}
                for row in reporting.rows_of(measured, method=method, part=part)
            ]
    edge = f"{patch_edge}³ voxels of volumes of {volume_edge}³"
    note = f"A run is {patches} patches of {edge}, on one core."
    return reporting.Report("pipeline", COLUMNS, rows, [note])


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string("output", None, "JSON file to write.", required=True)
    flags.DEFINE_integer("runs", 5, "Timed runs of each contender.", lower_bound=1)
    flags.DEFINE_integer("patches", 8, "Patches per run.", lower_bound=1)
    flags.DEFINE_integer(
        "patch_size", 128, "Edge of the patches in voxels.", lower_bound=8
    )
    flags.DEFINE_integer(
        "volume_size", 192, "Edge of the volumes in voxels.", lower_bound=8
    )
    flags.DEFINE_bool("alone", False, "Skip batchgenerators.")
    flags.DEFINE_multi_enum(
        "method", list(KERNELS), list(KERNELS), "Interpolation; may be repeated."
    )
    flags.DEFINE_multi_enum(
        "part",
        list(PARTS),
        list(PARTS),
        "Augmentation of the patches; may be repeated.",
    )


def report() -> reporting.Report:
    """Runs the benchmark as the flags specify."""
    values = flags.FLAGS
    is_installed = importlib.util.find_spec("batchgenerators") is not None
    if not (is_installed or values.alone):
        raise command.StoppedError(
            "this benchmark needs batchgenerators, which is not installed: "
            "pip install 'u2net-tf[bench]'"
        )
    return benchmark(
        values.method,
        values.part,
        volume_edge=values.volume_size,
        patch_edge=values.patch_size,
        patches=values.patches,
        runs=values.runs,
        alone=values.alone,
    )


if __name__ == "__main__":
    runner.run(define_flags, report, num_threads=lambda: 1)
