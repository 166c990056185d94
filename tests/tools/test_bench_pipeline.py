"""The benchmark of the pipeline measures the requested augmentation on one core."""

import itertools
import os

import numpy as np
import pytest

from tools.bench import pipeline, synthetic_shards
from tools.bench.measuring import Contender, Task, Worker
from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.config.data import DataConfig
from u2net_tf.input.pipeline import domain_dataset

ALWAYS = AugmentationConfig(
    elastic_probability=1, rotation_probability=1, scaling_probability=1
)
PAPER = AugmentationConfig(
    elastic_probability=0.3, rotation_probability=0.3, scaling_probability=0.5
)
INTENSITIES = ALWAYS.with_changes(
    noise_probability=1,
    blur_probability=1,
    brightness_probability=1,
    contrast_probability=1,
    low_resolution_probability=1,
    gamma_probability=1,
    gamma_inverted_probability=1,
)
# Interpolation, name of the augmentation in the benchmark, and its expected settings.
CASES = (
    ("linear", "always", ALWAYS),
    ("cubic", "paper", PAPER),
    ("cubic", "intensities", INTENSITIES),
)
# Enough patches for a probability that is wrong by 0.1 to change at least one.
SIZES = {"volume_edge": 10, "patch_edge": 8, "patches": 20}


def make_ours_of_all_cases():
    """Returns one task for all of `CASES`, so that TensorFlow is imported once."""
    tasks = [pipeline.make_ours(method, part, **SIZES) for method, part, _ in CASES]

    def results(returned):
        cores = {"cores": np.array(sorted(os.sched_getaffinity(0)))}
        return cores | {
            f"{number} {key}": batch[key]
            for number, (_, batch) in enumerate(returned)
            for key in ("image", "labels")
        }

    return Task(lambda: [task.run() for task in tasks], results)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """Results of two runs in a separate process, which is pinned to one core."""
    paths = [tmp_path_factory.mktemp("runs") / f"{number}.npz" for number in (1, 2)]
    contender = Contender("ours", make_ours_of_all_cases)
    with Worker(contender, threads=1) as worker:
        for path in paths:
            worker.run(path)
    return [dict(np.load(path)) for path in paths]


@pytest.mark.slow
def test_ours_stays_on_one_core(runs):
    assert runs[0]["cores"].tolist() == [min(os.sched_getaffinity(0))]


@pytest.mark.slow
@pytest.mark.parametrize("number", range(len(CASES)))
def test_runs_of_ours_are_successive_batches_of_the_pipeline(runs, tmp_path, number):
    method, _, augmentation = CASES[number]
    domain, manifest = synthetic_shards.write_shards(tmp_path, (10, 10, 10), 8)
    settings = DataConfig(
        data_dir=str(tmp_path),
        batch_size=20,
        resize_method=method,
        augmentation=augmentation,
    )
    batches = domain_dataset(domain, manifest, settings).as_numpy_iterator()
    for run, batch in zip(runs, itertools.islice(batches, 2), strict=True):
        assert batch["image"].shape == (20, 8, 8, 8, 1)
        for key in ("image", "labels"):
            np.testing.assert_array_equal(run[f"{number} {key}"], batch[key])


@pytest.mark.slow
@pytest.mark.parametrize(("method", "part"), [case[:2] for case in CASES])
def test_comparison_with_batchgenerators(method, part):
    pytest.importorskip("batchgenerators")
    report = pipeline.benchmark([method], [part], **SIZES, runs=2)
    assert [(row["method"], row["part"], row["contender"]) for row in report.rows] == [
        (method, part, "ours"),
        (method, part, "batchgenerators"),
    ]
    for row in report.rows:
        assert len(row["runs_seconds"]) == 2
        assert row["patches_per_second"] == 20 / row["median_seconds"]
