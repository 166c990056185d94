import numpy as np
import pytest

from u2net_tf.volumes import components


@pytest.fixture
def mask():
    """Components of 6, 3 and 1 voxels; the second is connected by corners."""
    mask = np.zeros((5, 6, 7), bool)
    mask[0, 0:2, 0:3] = True
    mask[4, 4, 1] = True
    for i in range(3):
        mask[i + 2, i + 2, i + 4] = True
    return mask


def test_sizes_descend(mask):
    assert components.component_sizes(mask).tolist() == [6, 3, 1]


def test_empty_mask_has_no_components():
    empty = np.zeros((3, 4, 5), bool)
    assert components.component_sizes(empty).tolist() == []
    assert not components.keep_largest(empty, 1).any()


@pytest.mark.parametrize(
    ("count", "voxels"), [(0, 0), (1, 6), (2, 9), (3, 10), (9, 10)]
)
def test_largest_are_kept(mask, count, voxels):
    kept = components.keep_largest(mask, count)
    assert kept.shape == mask.shape
    assert kept.dtype == bool
    assert kept.sum() == voxels
    assert not (kept & ~mask).any()
    assert kept[0, 0, 0] == (count > 0)


def test_touching_the_border(mask):
    kept = components.keep_largest(mask[::-1, ::-1, ::-1], 1)
    assert kept[-1, -2:, -3:].all()


def test_each_class_has_its_own_count(mask):
    labels = np.zeros((2, *mask.shape[1:]), np.uint8)
    labels = np.concatenate([mask * 1, mask * 2, mask * 3]).astype(np.uint8)
    before = labels.copy()
    cleaned = components.clean_labels(labels, (1, 1, 2, 0))
    assert np.bincount(cleaned.ravel())[1:].tolist() == [6, 9, 10]
    np.testing.assert_array_equal(labels, before)
    assert cleaned.dtype == np.uint8


def test_foreground_comes_first():
    """A class next to others is kept, although it is larger elsewhere."""
    labels = np.zeros((3, 4, 9), np.uint8)
    labels[0, 0, :4] = 1
    labels[0, 1, :2] = 2
    labels[2, 3, 6:] = 2
    each = components.clean_labels(labels, (0, 1, 1))
    assert each[0, 1].tolist() == [0] * 9
    both = components.clean_labels(labels, (0, 1, 1), keep_foreground_components=1)
    np.testing.assert_array_equal(both[0], labels[0])
    assert not both[1:].any()
    only = components.clean_labels(labels, (0, 0, 0), keep_foreground_components=1)
    np.testing.assert_array_equal(only, both)
    two = components.clean_labels(labels, (0, 0, 0), keep_foreground_components=2)
    np.testing.assert_array_equal(two, labels)


def test_foreground_of_an_empty_label_map():
    empty = np.zeros((3, 4, 5), np.uint8)
    found = components.clean_labels(empty, (0, 1), keep_foreground_components=1)
    np.testing.assert_array_equal(found, empty)


def test_background_and_absent_classes_are_unchanged():
    labels = np.zeros((3, 3, 3), np.int32)
    labels[0, 0, 0] = 2
    cleaned = components.clean_labels(labels, (1, 1, 1))
    np.testing.assert_array_equal(cleaned, labels)
