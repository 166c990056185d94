import numpy as np
import pytest
import SimpleITK as sitk
import tensorflow as tf

from u2net_tf.interpolation import positions


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (4, 2, [-0.25, 0.25, 0.75, 1.25]),
        (2, 4, [0.5, 2.5]),
        (3, 3, [0, 1, 2]),
        (1, 5, [2]),
    ],
)
def test_by_hand(new, old, expected):
    found = positions.axis_positions(new, old)
    assert found.dtype == np.float64
    np.testing.assert_array_equal(found, expected)
    one = [positions.resized_positions(i, new=new, old=old) for i in range(new)]
    assert one == expected


@pytest.mark.parametrize(("new", "old"), [(7, 3), (40, 64), (1, 9)])
def test_the_outer_faces_stay_in_place(new, old):
    faces = positions.resized_positions(np.array([-0.5, new - 0.5]), new=new, old=old)
    np.testing.assert_allclose(faces, [-0.5, old - 0.5], atol=1e-12)


@pytest.mark.parametrize(("new", "old"), [(7, 3), (40, 64), (13, 5)])
def test_round_trip(new, old):
    forward = positions.axis_positions(new, old)
    back = positions.resized_positions(forward, new=old, old=new)
    np.testing.assert_allclose(back, np.arange(new), atol=1e-12)


def test_tensors_and_arrays_agree():
    """In a graph, with a number of voxels that is a tensor."""
    drawn = tf.function(
        lambda old: positions.resized_positions(
            tf.range(9, dtype=tf.float32), new=9, old=old
        )
    )
    for old in (4.0, 7.0):
        expected = positions.resized_positions(
            np.arange(9, dtype=np.float32), new=9, old=np.float32(old)
        )
        np.testing.assert_allclose(drawn(tf.constant(old)), expected, atol=1e-6)


@pytest.mark.parametrize(
    ("new", "old", "expected"),
    [
        (8, 4, [0, 0, 1, 1, 2, 2, 3, 3]),
        # Halfway between two voxels, the higher one.
        (2, 4, [1, 3]),
        (3, 4, [0, 2, 3]),
        (1, 4, [2]),
    ],
)
def test_nearest_voxels_by_hand(new, old, expected):
    assert positions.nearest_voxels(new, old).tolist() == expected


@pytest.mark.parametrize(("new", "old"), [(31, 9), (10, 27), (50, 11)])
def test_nearest_voxels_are_simpleitks(new, old):
    """For sizes where no voxel is halfway between two."""
    image = sitk.GetImageFromArray(np.arange(old, dtype=np.int32)[:, None])
    found = sitk.Resample(
        image,
        [1, new],
        sitk.Transform(),
        sitk.sitkNearestNeighbor,
        [0, positions.resized_positions(0, new=new, old=old)],
        [1, old / new],
    )
    expected = sitk.GetArrayFromImage(found)[:, 0]
    np.testing.assert_array_equal(positions.nearest_voxels(new, old), expected)
