"""Thumbnails: their slice, orientation, size and labels."""

import nibabel as nib
import numpy as np
import pytest

from u2net_tf.visualization import thumbnails
from u2net_tf.visualization.thumbnails import MAX_PIXELS, UNLISTED, make_thumbnail
from u2net_tf.volumes import nifti


@pytest.fixture
def make(tmp_path):
    """Makes a thumbnail of an image and a label map (x, y, z), saved as files."""

    def make(
        image,
        labels=None,
        values=(0, 1),
        spacing=(1, 1, 3),
        labels_spacing=None,
        **options,
    ):
        def save(name, array, size):
            affine = np.diag([*size, 1.0])
            nib.save(nib.Nifti1Image(array, affine), tmp_path / name)
            return tmp_path / name

        volume = nifti.load_image(save("i.nii", image.astype(np.float32), spacing))
        if labels is not None:
            path = save("l.nii", labels.astype(np.uint8), labels_spacing or spacing)
            labels = nifti.load_labels(path)
        return make_thumbnail(volume, labels, values, **options)

    return make


def ramp(shape):
    return np.indices(shape).sum(axis=0) + 1.0


def test_the_slice_with_most_labels_in_radiological_orientation(make):
    labels = np.zeros((20, 16, 8))
    labels[12:18, 11:14, 5] = 1
    labels[2:4, 2:4, 1:4] = 1
    found = make(ramp(labels.shape), labels)
    assert (found.index, found.num_slices, found.has_labels) == (5, 8, True)
    assert found.grey.shape == found.classes.shape == (16, 20)
    rows, columns = np.nonzero(found.classes)
    # The front (high y) on top, the patient's right (high x) on the left.
    assert (rows.min(), rows.max()) == (16 - 14, 16 - 12)
    assert (columns.min(), columns.max()) == (20 - 18, 20 - 13)
    assert found.grey[0, 0] > found.grey[-1, -1]


def test_voxels_without_annotation_are_background(make):
    labels = np.zeros((20, 16, 8))
    labels[12:18, 11:14, 5] = 1
    labels[..., 6:] = labels[:5, :5, 5] = 9
    found = make(ramp(labels.shape), labels, ignore_label=9)
    assert found.index == 5
    assert np.unique(found.classes).tolist() == [0, 1]
    assert make(ramp(labels.shape), labels).index == 6


def test_middle_slice_without_labels_or_with_another_grid(make):
    image, labels = ramp((6, 5, 9)), np.zeros((6, 5, 9))
    assert (make(image, labels).index, make(image, labels).has_labels) == (4, True)
    labels[1, 1, 1] = 1
    for found in (make(image), make(image, labels, labels_spacing=(1, 1, 2))):
        assert (found.index, found.has_labels) == (4, False)
        assert not found.classes.any()


def test_classes_are_numbered_and_unlisted_values_marked(make):
    labels = np.zeros((6, 5, 2))
    labels[1, 1, 1], labels[2, 2, 1], labels[3, 3, 1] = 4, 7, 9
    found = make(ramp(labels.shape), labels, values=(0, 4, 9))
    assert sorted(set(found.classes.ravel().tolist())) == [0, 1, 2, UNLISTED]


@pytest.mark.parametrize("spacing", [(1, 1, 3), (1, 2.5, 1)])
def test_large_slices_are_reduced_in_proportion_without_losing_labels(make, spacing):
    labels = np.zeros((2 * MAX_PIXELS + 9, 40, 2))
    labels[77, 20, 1] = 1
    image = np.zeros(labels.shape)
    image[:6] = 30
    found = make(image, labels, spacing=spacing)
    rows, columns = found.grey.shape
    assert (rows, columns) == (40, -(-labels.shape[0] // 3))
    assert found.aspect == pytest.approx(spacing[1] / (3 * spacing[0]))
    assert (found.classes > 0).sum() == 1
    # The patient's left is on the right; a pixel is the mean of its voxels.
    assert (found.grey[0, -2:] == 255).all()


def test_non_finite_voxels_are_dark(make):
    image = ramp((6, 5, 2))
    image[3, 3, 1], image[2, 2, 1] = np.nan, np.inf
    found = make(image)
    assert found.grey[5 - 1 - 3, 6 - 1 - 3] == 0
    assert make(np.full((6, 5, 2), np.nan)).grey.max() == 0


def test_round_trip(make, tmp_path):
    found = make(ramp((6, 5, 4)), ramp((6, 5, 4)) > 9)
    thumbnails.save_thumbnail(tmp_path / "a.npz", found)
    read = thumbnails.load_thumbnail(tmp_path / "a.npz")
    for name, value in vars(found).items():
        np.testing.assert_array_equal(getattr(read, name), value)
        assert type(getattr(read, name)) is type(value)
