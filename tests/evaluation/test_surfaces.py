import math

import numpy as np
import pytest
import scipy.ndimage

from u2net_tf.evaluation.surfaces import surface_scores


def score(
    reference, prediction, *, spacing_mm=(1.0, 1.0, 1.0), tolerance_mm=1.0, **options
):
    """Scores masks."""
    (found,) = surface_scores(
        np.asarray(reference).astype(np.uint8),
        np.asarray(prediction).astype(np.uint8),
        num_classes=2,
        spacing_mm=spacing_mm,
        tolerance_mm=tolerance_mm,
        **options,
    )
    return found


def voxels(*positions, shape=(12, 12, 12)):
    mask = np.zeros(shape, bool)
    mask[tuple(np.transpose(positions))] = True
    return mask


@pytest.mark.parametrize(
    ("other", "distance_mm"),
    [((4, 1, 1), 6), ((1, 4, 1), 9), ((1, 1, 4), 15), ((3, 2, 1), 5)],
)
def test_distances_are_in_millimetres(other, distance_mm):
    """Voxels of 2 × 3 × 5 mm; the last two are at a right angle: 4 and 3 mm."""
    masks = voxels((1, 1, 1)), voxels(other)
    for pair in (masks, masks[::-1]):
        for tolerance_mm, agreeing in ((distance_mm, 1), (0.99 * distance_mm, 0)):
            found = score(*pair, spacing_mm=(2, 3, 5), tolerance_mm=tolerance_mm)
            assert found.hd95_mm == pytest.approx(distance_mm)
            assert found.surface_dice == agreeing


@pytest.mark.parametrize("size_mm", [0.3, 0.7, 1.1, 0.782])
def test_a_distance_equal_to_the_tolerance_agrees(size_mm):
    """One surface is a voxel away from the other one, at each of many coordinates."""
    planes = np.zeros((3, 3, 500), bool)
    planes[..., ::4] = True
    spacing_mm = (size_mm, size_mm, float(np.float32(size_mm)))
    masks = planes, np.roll(planes, 1, axis=-1)
    found = score(*masks, spacing_mm=spacing_mm, tolerance_mm=size_mm)
    assert found.surface_dice == 1
    found = score(*masks, spacing_mm=spacing_mm, tolerance_mm=0.999 * size_mm)
    assert found.surface_dice == 0


def test_a_false_voxel_far_away():
    """A line of nine voxels, and a tenth one 8 mm beyond its end in the prediction."""
    line = [(1, 1, x) for x in range(9)]
    shape = (3, 3, 20)
    masks = voxels(*line, shape=shape), voxels(*line, (1, 1, 16), shape=shape)
    for pair in (masks, masks[::-1]):
        found = score(*pair)
        assert found.surface_dice == pytest.approx(18 / 19)
        # The 95th percentile of ten values is 0.55 of the way from the ninth to the
        # last one; that of the other surface is 0.
        assert found.hd95_mm == pytest.approx(0.55 * 8)


def test_interior_voxels_do_not_count():
    """The surface of a cube of 5³ voxels has 5³ - 3³ of them."""
    cube = np.zeros((7, 7, 7), bool)
    cube[1:6, 1:6, 1:6] = True
    hollow = cube.copy()
    hollow[2:5, 2:5, 2:5] = False
    assert score(cube, hollow) == (0, 1)
    smaller = np.zeros_like(cube)
    smaller[2:5, 2:5, 2:5] = True
    # The surface of the smaller cube, 26 voxels, is 1 mm away from the other one, and
    # of the latter's 98 voxels, those of the six faces are: 6 · 9.
    found = score(cube, smaller)
    assert found.surface_dice == pytest.approx((26 + 54) / (26 + 98))
    # The most distant twelfth of the latter are the eight corners.
    assert found.hd95_mm == pytest.approx(math.sqrt(3))


def test_a_distance_equal_to_the_tolerance():
    """In float32, 3 · 0.3 mm are more than 0.9 mm."""
    masks = voxels((1, 1, 1)), voxels((1, 1, 4))
    found = score(*masks, spacing_mm=(1, 1, 0.3), tolerance_mm=0.9)
    assert np.float32(found.hd95_mm) > np.float32(0.9)
    assert found.surface_dice == 1


@pytest.mark.parametrize("size", [1, 2])
def test_a_mask_that_is_nothing_but_surface(size):
    mask = np.zeros((6, 6, 6), bool)
    mask[2 : 2 + size, 2 : 2 + size, 2 : 2 + size] = True
    assert score(mask, mask) == (0, 1)


def test_the_border_of_the_volume_is_a_surface():
    full = np.ones((3, 4, 5), bool)
    hole = full.copy()
    hole[1, 1:3, 1:4] = False
    assert score(full, hole) == (0, 1)


def test_empty_masks():
    empty, full = np.zeros((3, 3, 3)), np.ones((3, 3, 3))
    for pair in ((empty, full), (full, empty)):
        found = score(*pair)
        assert math.isnan(found.hd95_mm)
        assert found.surface_dice == 0
    assert all(math.isnan(value) for value in score(empty, empty))


def reference_scores(reference, prediction, index, spacing_mm, tolerance_mm):
    """The same by SciPy, without cropping."""
    cross = scipy.ndimage.generate_binary_structure(3, 1)
    surfaces = [
        mask & ~scipy.ndimage.binary_erosion(mask, cross)
        for mask in (reference == index, prediction == index)
    ]
    distances = [
        scipy.ndimage.distance_transform_edt(~other, sampling=spacing_mm)[surface]
        for surface, other in (surfaces, surfaces[::-1])
    ]
    agreeing = [np.count_nonzero(each <= tolerance_mm) for each in distances]
    return (
        max(np.percentile(each, 95) for each in distances),
        sum(agreeing) / sum(map(len, distances)),
    )


@pytest.mark.parametrize("seed", range(3))
def test_equal_to_scipy(seed):
    """On touching, ragged classes in several pieces, on anisotropic voxels."""
    generator = np.random.default_rng(seed)
    spacing_mm, tolerance_mm = (3.0, 0.7, 1.1), 1.9
    maps = [
        np.digitize(
            scipy.ndimage.gaussian_filter(generator.normal(size=(20, 30, 25)), 2),
            [-0.05, 0.02, 0.05],
        )
        for _ in range(2)
    ]
    found = surface_scores(
        *maps, num_classes=4, spacing_mm=spacing_mm, tolerance_mm=tolerance_mm
    )
    for index, scores in enumerate(found, start=1):
        expected = reference_scores(*maps, index, spacing_mm, tolerance_mm)
        np.testing.assert_allclose(scores, expected, rtol=1e-6)
        assert all(type(value) is float for value in scores)


class TestAnnotation:
    """Boxes through all three planes, of which some are annotated."""

    REFERENCE = np.zeros((3, 8, 8), bool)
    REFERENCE[:, 2:6, 2:6] = True
    PREDICTION = np.zeros((3, 8, 8), bool)
    PREDICTION[:, 2:6, 2:7] = True

    @pytest.mark.parametrize("kept", [[1], [0], [2], [0, 2]])
    def test_a_mask_has_no_surface_where_annotation_ends(self, kept):
        is_annotated = np.zeros((3, 8, 8), bool)
        is_annotated[kept] = True
        masks = self.REFERENCE & is_annotated, self.PREDICTION & is_annotated
        found = score(*masks, tolerance_mm=0, is_annotated=is_annotated)
        if kept == [1]:
            # Outlines of 12 and 14 voxels share two rows of four and two of the left.
            assert found.surface_dice == pytest.approx(2 * 10 / (12 + 14))
            assert found.hd95_mm == 1
            # Otherwise, all voxels of the plane are surface.
            plain = score(*masks, tolerance_mm=0)
            assert plain.surface_dice == pytest.approx((16 + 16) / 36)
        else:
            # The ends of the volume are surface, as they are where all is annotated.
            assert found == score(*masks, tolerance_mm=0)

    def test_all_voxels_annotated(self):
        masks = self.REFERENCE, self.PREDICTION
        found = score(*masks, is_annotated=np.ones((3, 8, 8), bool))
        assert found == score(*masks)

    def test_a_mask_without_a_surface(self):
        """It fills the annotated voxels, which do not touch the end of the volume."""
        is_annotated = voxels((4, 4, 4), (4, 4, 5))
        part = voxels((4, 4, 4))
        for pair in ((is_annotated, part), (part, is_annotated)):
            found = score(*pair, is_annotated=is_annotated)
            assert math.isnan(found.hd95_mm)
            assert found.surface_dice == 0
        found = score(is_annotated, is_annotated, is_annotated=is_annotated)
        assert math.isnan(found.hd95_mm)
        assert math.isnan(found.surface_dice)
