"""The number of label maps that are compared at the same time."""

import dataclasses
import logging
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import toy

from u2net_tf.evaluation.comparison import compare
from u2net_tf.evaluation.comparison_memory import comparison_bytes, fitting_workers
from u2net_tf.plan.labels import Region
from u2net_tf.volumes.case_labels import read_labels
from u2net_tf.volumes.grid import Grid


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
def test_the_estimate_is_an_upper_bound(tmp_path, dtype):
    """Of the memory of NumPy's arrays, that of a comparison with most arrays."""
    domain = dataclasses.replace(toy.ONE, ignore_label=9)
    shape = (90, 80, 70)
    voxels = np.zeros(shape, dtype)
    voxels[1:-1, 1:-1, 1:-1] = domain.labels[1].values[0]
    path = tmp_path / "labels.nii"
    image = nib.Nifti1Image(voxels, np.eye(4), dtype=dtype)
    nib.save(image, path)
    grid = Grid(str(path), shape, np.eye(4), image.header, nib.Nifti1Image)
    regions = [Region("all", ("organ",))]
    del voxels, image

    def read_and_compare():
        masks = [read_labels(path, grid, domain) for _ in range(2)]
        compare(*masks, grid, domain, regions, surface_tolerance_mm=1.0)

    read_and_compare()
    tracemalloc.start()
    try:
        read_and_compare()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    estimate = comparison_bytes(90 * 80 * 70) - comparison_bytes(0)
    assert 0.5 * estimate < peak < estimate


def test_as_many_workers_as_fit(caplog):
    need_gb = comparison_bytes(10**8) / 1e9
    voxels = [10**6, 10**8, 10**7]
    limit = 2.5 * need_gb
    with caplog.at_level(logging.INFO, "absl"):
        assert fitting_workers(8, voxels, 100.0) == 3
        assert fitting_workers(2, voxels, 100.0) == 2
        assert not caplog.messages
        assert fitting_workers(8, voxels, limit) == 2
    words = (
        f"comparing 2 label maps at a time instead of 3, to stay within {limit:.3g} GB "
        "(`max_memory_gb`)"
    )
    assert caplog.messages == [words]
    # A single one is tried in any case.
    assert fitting_workers(8, voxels, 0.1) == 1
    assert fitting_workers(8, [], 100.0) == 1


def test_half_of_the_machine_s_memory_is_the_default(monkeypatch):
    need = comparison_bytes(10**8)
    monkeypatch.setattr("u2net_tf.machine.memory_bytes", lambda: int(4.5 * need))
    assert fitting_workers(8, [10**8] * 8, None) == 2
