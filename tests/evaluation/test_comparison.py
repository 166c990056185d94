"""Comparison of a label map with its reference."""

import dataclasses

import nibabel as nib
import numpy as np
import pytest
import toy

from u2net_tf.evaluation.comparison import compare
from u2net_tf.plan.labels import Region
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
