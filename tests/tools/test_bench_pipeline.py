"""The benchmark of the pipeline measures what it says, on one core."""

import os
import pathlib

import pytest
import tensorflow as tf

from tools.bench import pipeline
from u2net_tf.input import pipeline as input_pipeline
from u2net_tf.input.augment.settings import Augmentation
from u2net_tf.input.pipeline import InputSettings

ALWAYS = Augmentation(
    elastic_probability=1, rotation_probability=1, scaling_probability=1
)
PAPER = Augmentation(
    elastic_probability=0.3, rotation_probability=0.3, scaling_probability=0.5
)
INTENSITIES = Augmentation(
    elastic_probability=1,
    rotation_probability=1,
    scaling_probability=1,
    noise_probability=1,
    blur_probability=1,
    brightness_probability=1,
    contrast_probability=1,
    low_resolution_probability=1,
    gamma_probability=1,
    gamma_inverted_probability=1,
)


@pytest.mark.parametrize(
    ("method", "part", "augmentation"),
    [
        ("linear", "always", ALWAYS),
        ("cubic", "paper", PAPER),
        ("cubic", "intensities", INTENSITIES),
    ],
)
def test_ours_is_the_pipeline_that_was_asked_for(
    monkeypatch, method, part, augmentation
):
    cores, asked = [], []

    def domain_dataset(*arguments):
        asked.append(arguments)
        return tf.data.Dataset.range(2)

    # This process goes on with all of its cores.
    monkeypatch.setattr(os, "sched_setaffinity", lambda *given: cores.append(given))
    monkeypatch.setattr(input_pipeline, "domain_dataset", domain_dataset)
    task = pipeline.make_ours(method, part, volume_edge=10, patch_edge=8, patches=3)
    folder, first = task.run()
    with folder:
        ((domain, manifest, settings),) = asked
        assert settings == InputSettings(
            data_dir=folder.name,
            batch_size=3,
            resize_method=method,
            augmentation=augmentation,
            num_parallel_calls=1,
        )
        assert domain.patch_size == (8, 8, 8)
        assert [entry.shape for entry in manifest.entries("train")] == [[10] * 3] * 4
        shards = pathlib.Path(folder.name, domain.name)
        assert [path.name for path in shards.iterdir()] == manifest.shards("train")
        # A run is a batch, the next one.
        assert (first, task.run()[1]) == (0, 1)
    assert cores == [(0, [min(os.sched_getaffinity(0))])]
