"""Comparison of a label map with its reference."""

import dataclasses
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import toy

from u2net_tf.evaluation.comparison import compare, comparison_bytes
from u2net_tf.plan.labels import Region
from u2net_tf.volumes.case_labels import read_labels
from u2net_tf.volumes.grid import Grid


def test_a_partly_annotated_reference():
    """No surface of a class or region is where annotation ends."""
    domain = dataclasses.replace(toy.ONE, ignore_label=9)
    reference = np.full((3, 8, 8), domain.ignore_index, np.uint8)
    reference[1] = 0
    reference[1, 2:6, 2:6] = 1
    prediction = np.zeros((3, 8, 8), np.uint8)
    prediction[:, 2:6, 2:7] = 1
    header = nib.Nifti1Header()
    header.set_data_shape((8, 8, 3))
    grid = Grid("scan.nii", (8, 8, 3), np.eye(4), header, nib.Nifti1Image)
    found = compare(
        reference,
        prediction,
        grid,
        domain,
        [Region("all", ("organ",))],
        surface_tolerance_mm=0.1,
    )
    assert found["false_positive_ml"] == {}
    for name in ("organ", "all"):
        assert found["dice"][name] == pytest.approx(2 * 16 / (16 + 20))
        # Outlines of 12 and 14 voxels share two rows of four and two of the left.
        assert found["surface_dice"][name] == pytest.approx(2 * 10 / (12 + 14))
        assert found["hd95_mm"][name] == 1


@pytest.mark.parametrize("dtype", [np.uint8, np.int64, np.float64])
def test_the_estimated_memory_is_an_upper_bound(tmp_path, dtype):
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
    estimate = comparison_bytes(90 * 80 * 70)
    assert 0.5 * estimate < peak < estimate
