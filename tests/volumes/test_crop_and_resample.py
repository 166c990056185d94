import dataclasses

import numpy as np
import pytest

from u2net_tf.errors import InputError
from u2net_tf.interpolation.resample import resample
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.labels import Label
from u2net_tf.plan.preprocessing import IntensityStatistics, Preprocessing
from u2net_tf.volumes import crop_and_resample, intensities
from u2net_tf.volumes.restoration import Restoration


def make_domain(spacing_mm=(1, 1, 1), num_modalities=1, **settings):
    return Domain(
        name="Knee",
        raw_dir="/raw/Knee",
        modalities=("T1", "T2")[:num_modalities],
        labels=(Label("background", (0,)), Label("bone", (1,))),
        spacing_mm=spacing_mm,
        median_shape=(32, 32, 32),
        patch_size=(32, 32, 32),
        pools=(3, 3, 3),
        batch_size=2,
        preprocessing=Preprocessing(**settings),
    )


def ball(shape, spacing_mm, radius_mm):
    """Returns a mask of a ball in the centre, sampled at voxel centres."""
    axes = [
        (np.arange(size) - (size - 1) / 2) * spacing
        for size, spacing in zip(shape, spacing_mm, strict=True)
    ]
    z, y, x = np.meshgrid(*axes, indexing="ij")
    return z**2 + y**2 + x**2 <= radius_mm**2


def dice(a, b):
    return 2 * np.sum(a & b) / (a.sum() + b.sum())


class TestBox:
    def test_by_hand(self):
        image = np.zeros((10, 10, 10))
        image[4, 5:7, 9] = -1
        assert crop_and_resample.nonzero_box(image, margin_voxels=0) == (
            (4, 5, 9),
            (1, 2, 1),
        )
        assert crop_and_resample.nonzero_box(image, margin_voxels=2) == (
            (2, 3, 7),
            (5, 6, 3),
        )
        assert crop_and_resample.nonzero_box(image, margin_voxels=9) == (
            (0,) * 3,
            (10,) * 3,
        )

    def test_all_zero_is_an_error(self):
        with pytest.raises(
            ValueError, match="expected non-zero voxels. Received: zeros only"
        ):
            crop_and_resample.nonzero_box(np.zeros((2, 3, 4)), margin_voxels=5)


class TestRawBox:
    def test_by_hand(self):
        # Along z 3 voxels become 2, along y 4 become 4, along x 2 become 6.
        crop = crop_and_resample.ResampledCrop(
            (9,) * 3, (5, 1, 0), (3, 4, 2), (2, 4, 6)
        )
        box = (slice(0, 1), slice(1, 3), slice(2, 4))
        assert crop.raw_box(box) == (slice(5, 7), slice(2, 4), slice(0, 2))
        box = (slice(1, 2), slice(0, 4), slice(3, 6))
        assert crop.raw_box(box) == (slice(6, 8), slice(1, 5), slice(1, 2))

    @pytest.mark.parametrize("shape", [(7, 5, 3), (4, 9, 11), (1, 1, 1)])
    def test_of_the_complete_box_is_the_crop(self, shape):
        crop = crop_and_resample.ResampledCrop((20,) * 3, (3, 0, 8), (7, 4, 6), shape)
        box = tuple(slice(0, size) for size in shape)
        assert crop.raw_box(box) == crop.box


class TestResample:
    def test_shape_is_rounded_and_never_empty(self):
        found = crop_and_resample.resampled_shape((10, 3, 1), (1, 1, 1), (4, 2, 9))
        assert found == (2, 2, 1)

    @pytest.mark.parametrize(
        ("size", "spacing_mm", "target_mm", "expected"),
        [
            # 2.5, 3, 5.99 and less than one voxel.
            (10, 1, 4, 2),
            (10, 1.2, 4, 3),
            (599, 0.01, 1, 5),
            (3, 1, 9, 1),
            # Multiples that are inexact in floating point: both give
            # 2.9999999999999996.
            (3, 0.7, 0.7, 3),
            (2, 1.2, 0.8, 3),
            # 0.7 and 0.8 as stored in headers, and differences in the fourth decimal.
            (100, float(np.float32(0.7)), 0.7, 100),
            (100, 0.7999999, 0.8, 100),
            (100, 0.7996, 0.8, 100),
            (100, 0.7994, 0.8, 99),
            (100, 0.8, 0.8004, 100),
            (100, 0.8, 0.8006, 99),
        ],
    )
    def test_shape_truncated(self, size, spacing_mm, target_mm, expected):
        found = crop_and_resample.resampled_shape(
            (1, size, 1), (1, spacing_mm, 1), (1, target_mm, 1), rounding="truncate"
        )
        assert found == (1, expected, 1)

    def test_shape_cannot_be_truncated_at_microscopic_spacing(self):
        for pair in ((1e-4, 1), (1, 1e-4)):
            with pytest.raises(ValueError, match="at least 0.001 mm"):
                crop_and_resample.resampled_shape(
                    (9, 9, 9), (1, pair[0], 1), (1, pair[1], 1), rounding="truncate"
                )

    def test_unknown_rounding_is_an_error(self):
        with pytest.raises(ValueError, match="nearest or truncate. Received: 'up'"):
            crop_and_resample.resampled_shape((9,), (1,), (1,), rounding="up")


class TestStandardize:
    def test_against_numpy(self):
        image = np.random.default_rng(0).normal(300, 80, (9, 9, 9)).astype(np.float32)
        found = intensities.standardize(image, clip_percentiles=(5, 90))
        clipped = image.astype(float).clip(*np.percentile(image, (5, 90)))
        expected = (clipped - clipped.mean()) / clipped.std()
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert found.dtype == np.float32

    @pytest.mark.parametrize("outlier", [7.0, 9e9])
    def test_constant_between_percentiles_is_an_error(self, outlier):
        image = np.full((9, 9, 9), 7, np.float32)
        image[0, 0, 0] = outlier
        with pytest.raises(ValueError, match="Received: the constant 7"):
            intensities.standardize(image, clip_percentiles=(2, 98))

    def test_given_statistics_by_hand(self):
        image = np.array([[[-900, 10, 50, 60, 3000]]], np.float32)
        statistics = IntensityStatistics(low=10, high=90, mean=50, std=20)
        found = intensities.standardize_with(image, statistics)
        assert found.ravel().tolist() == [-2, -2, 0, 0.5, 2]
        assert found.dtype == np.float32
        assert image.ravel().tolist() == [-900, 10, 50, 60, 3000]

    @pytest.mark.parametrize("over", ["all", "positive"])
    def test_input_is_not_modified(self, over):
        image = np.arange(27, dtype=np.float32).reshape(3, 3, 3) - 9
        intensities.standardize(
            image, clip_percentiles=(10, 90), intensity_floor=-5, statistics_over=over
        )
        np.testing.assert_array_equal(image.ravel(), np.arange(27) - 9)

    def test_floor_by_hand(self):
        image = np.array([[[-3000, -1024, 0, 1024]]], np.float32)
        found = intensities.standardize(
            image, clip_percentiles=(0, 100), intensity_floor=-1024
        )
        # Mean -256; squares of -768, -768, 256, 1280.
        deviation = np.sqrt((2 * 768**2 + 256**2 + 1280**2) / 4)
        expected = np.array([-768, -768, 256, 1280]) / deviation
        np.testing.assert_allclose(found.ravel(), expected, rtol=1e-6)

    def test_floor_comes_before_percentiles(self):
        image = np.array([[[-3000, *range(9), 10]]], np.float32)
        found = intensities.standardize(
            image, clip_percentiles=(5, 100), intensity_floor=-2
        )
        # The fifth percentile is halfway between the first two values: -1, not -1500.
        values = np.array([-1, *range(9), 10], float)
        expected = (values - values.mean()) / values.std()
        np.testing.assert_allclose(found.ravel(), expected, rtol=1e-6)

    def test_statistics_over_positive_voxels_by_hand(self):
        image = np.array([[[-3000, -1024, -7, 0, 0, 2, 4]]], np.float32)
        found = intensities.standardize(
            image,
            clip_percentiles=(0, 100),
            intensity_floor=-1024,
            statistics_over="positive",
        )
        # 2 and 4 have mean 3 and deviation 1. Zeros stay zero.
        assert found.ravel().tolist() == [-1027, -1027, -10, 0, 0, -1, 1]
        assert found.dtype == np.float32

    def test_positive_voxels_are_selected_after_clipping(self):
        image = np.array([[[-5, -4, 8, 9, 9]]], np.float32)
        found = intensities.standardize(
            image, clip_percentiles=(50, 75), statistics_over="positive"
        )
        # Clipped to 8, 8, 8, 9, 9, which are all positive.
        expected = (np.array([8, 8, 8, 9, 9]) - 8.4) / np.sqrt(0.24)
        np.testing.assert_allclose(found.ravel(), expected, rtol=1e-5)

    def test_against_numpy_over_positive_voxels(self):
        rng = np.random.default_rng(0)
        image = rng.normal(-200, 900, (9, 9, 9)).round().astype(np.float32)
        image[3:5] = 0
        found = intensities.standardize(
            image,
            clip_percentiles=(2, 98),
            intensity_floor=-1024,
            statistics_over="positive",
        )
        exact = np.maximum(image.astype(float), -1024)
        exact = exact.clip(*np.percentile(exact, (2, 98)))
        positive = exact[exact > 0]
        expected = (exact - positive.mean()) / positive.std()
        expected[exact == 0] = 0
        np.testing.assert_allclose(found, expected, atol=1e-5)

    @pytest.mark.parametrize(
        ("values", "found"),
        [
            ([-9, -4, -1, 0], "Received: none between -9 and 0"),
            ([-1, 0, 6, 6], "stant 6"),
        ],
    )
    def test_constant_positive_voxels_are_an_error(self, values, found):
        image = np.array([[values]], np.float32)
        intensities.standardize(image, clip_percentiles=(0, 100))
        with pytest.raises(ValueError, match="expected intensities above 0") as error:
            intensities.standardize(
                image, clip_percentiles=(0, 100), statistics_over="positive"
            )
        assert found in str(error.value)

    def test_unknown_statistics_are_an_error(self):
        image = np.arange(4, dtype=np.float32).reshape(1, 2, 2)
        with pytest.raises(ValueError, match="all or positive. Received: 'nonzero'"):
            intensities.standardize(
                image, clip_percentiles=(0, 100), statistics_over="nonzero"
            )


class TestImage:
    def test_steps_in_order(self):
        rng = np.random.default_rng(0)
        image = np.zeros((2, 20, 20, 20), np.float32)
        image[0, 8:14, 6:16, 2:18] = rng.normal(50, 5, (6, 10, 16))
        image[1] = rng.normal(-3, 1, (20, 20, 20))
        domain = make_domain((1, 2, 1), 2, margin_voxels=1, clip_percentiles=(3, 80))
        found, crop = crop_and_resample.preprocess_image(image, (2, 1, 1), domain)
        assert crop == crop_and_resample.ResampledCrop(
            raw_shape=(20, 20, 20),
            crop_start=(7, 5, 1),
            crop_shape=(8, 12, 18),
            shape=(16, 6, 18),
        )
        assert crop.box == (slice(7, 15), slice(5, 17), slice(1, 19))
        assert found.shape == (16, 6, 18, 2)
        assert found.dtype == np.float32
        for channel in range(2):
            resampled = resample(
                image[channel, 7:15, 5:17, 1:19], (16, 6, 18), "bspline"
            )
            expected = intensities.standardize(resampled, clip_percentiles=(3, 80))
            np.testing.assert_array_equal(found[..., channel], expected)

    def test_statistics_of_one_modality(self):
        image = np.random.default_rng(0).normal(50, 20, (2, 9, 8, 7)).astype(np.float32)
        fixed = IntensityStatistics(low=30, high=80, mean=40, std=7)
        domain = make_domain((1, 1, 1), 2, margin_voxels=0, clip_percentiles=(3, 80))
        preprocessing = dataclasses.replace(
            domain.preprocessing, intensity_statistics=(None, fixed)
        )
        domain = dataclasses.replace(domain, preprocessing=preprocessing)
        found, _ = crop_and_resample.preprocess_image(image, (1, 1, 1), domain)
        first, second = image
        expected = intensities.standardize(first, clip_percentiles=(3, 80))
        np.testing.assert_array_equal(found[..., 0], expected)
        expected = (second.clip(30, 80) - 40) / 7
        np.testing.assert_allclose(found[..., 1], expected, rtol=1e-6)

    @pytest.mark.parametrize(
        ("values", "is_error"),
        [((0, 30), True), ((80, 99), True), ((55, 55), True), ((0, 31), False)],
    )
    def test_an_image_outside_the_limits_of_the_plan(self, values, is_error):
        image = np.full((1, 9, 8, 7), values[0], np.float32)
        image[0, 0, 0] = values[1]
        fixed = IntensityStatistics(low=30, high=80, mean=40, std=7)
        domain = make_domain((1, 1, 1), 1, margin_voxels=9)
        domain = dataclasses.replace(
            domain, preprocessing=Preprocessing(intensity_statistics=(fixed,))
        )
        if is_error:
            low, high = values
            with pytest.raises(
                InputError,
                match="modality 'T1': image: expected intensities that differ between "
                f"30 and 80, the limits of the plan. Received: intensities from {low} "
                f"to {high}",
            ):
                crop_and_resample.preprocess_image(image, (1, 1, 1), domain)
        else:
            crop_and_resample.preprocess_image(image, (1, 1, 1), domain)

    def test_settings_of_the_published_code(self):
        rng = np.random.default_rng(0)
        image = np.zeros((2, 11, 12, 14), np.float32)
        image[0, 1:10] = rng.normal(100, 300, (9, 12, 14))
        image[0, 3, 3] = -3024
        image[1] = rng.normal(40, 60, (11, 12, 14))
        domain = make_domain(
            (1, 1.5, 1.6),
            2,
            margin_voxels=0,
            intensity_floor=-300,
            statistics_over="positive",
            size_rounding="truncate",
        )
        found, crop = crop_and_resample.preprocess_image(image, (1, 1, 1), domain)
        # 9, 8 and 8.75 voxels.
        assert crop.crop_shape == (9, 12, 14)
        assert crop.shape == (9, 8, 8)
        for channel in range(2):
            exact = resample(image[channel, 1:10], (9, 8, 8), "bspline").astype(float)
            # The floor follows resampling: before, it would not affect the undershoot.
            exact[exact < -300] = -300
            exact = exact.clip(*np.percentile(exact, (2, 98)))
            positive = exact[exact > 0]
            expected = (exact - positive.mean()) / positive.std()
            np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)

    def test_modality_without_positive_voxels_is_reported(self):
        image = np.random.default_rng(0).random((2, 6, 6, 6)).astype(np.float32) + 1
        image[1] *= -1
        domain = make_domain((1, 1, 1), 2, statistics_over="positive")
        with pytest.raises(
            ValueError, match="modality 'T2': image: expected intensities"
        ):
            crop_and_resample.preprocess_image(image, (1, 1, 1), domain)

    @pytest.mark.parametrize("channel", [0, 1])
    def test_constant_modality_is_reported(self, channel):
        image = np.random.default_rng(0).random((2, 6, 6, 6)).astype(np.float32)
        image[channel] = 4
        with pytest.raises(ValueError, match=f"modality 'T{channel + 1}'"):
            crop_and_resample.preprocess_image(
                image, (1, 1, 1), make_domain((1, 1, 1), 2)
            )

    def test_all_zero_is_an_error(self):
        with pytest.raises(ValueError, match="Received: zeros only"):
            crop_and_resample.preprocess_image(
                np.zeros((1, 4, 4, 4), np.float32), (1, 1, 1), make_domain()
            )


def place(raw_shape, spacing_mm, target_mm, **settings):
    """Preprocesses an image that is zero at one border; returns the crop."""
    image = np.random.default_rng(0).normal(9, 1, (1, *raw_shape)).astype(np.float32)
    image[:, :, :7] = 0
    domain = make_domain(target_mm, margin_voxels=2, **settings)
    return crop_and_resample.preprocess_image(image, spacing_mm, domain)[1]


def restore(probabilities, crop, **options):
    """Returns classes and probabilities (z, y, x, K) on the raw grid."""
    restoration = Restoration(
        crop, probabilities.shape[-1], with_probabilities=True, **options
    )
    for plane in probabilities.copy():
        restoration.add(plane)
        # The array is not kept.
        plane[...] = np.nan
    return restoration.finish()


def restore_labels(labels, crop):
    return restore(np.eye(labels.max() + 1, dtype=np.float32)[labels], crop)[0]


def draw_probabilities(shape, num_classes):
    values = np.random.default_rng(0).random((*shape, num_classes), np.float32)
    return values / values.sum(axis=-1, keepdims=True)


class TestRestoration:
    CROPS = (
        # Finer, coarser and equal along one axis each, or away from all borders; a
        # single voxel.
        crop_and_resample.ResampledCrop((9, 9, 9), (1, 2, 0), (7, 5, 8), (4, 9, 8)),
        crop_and_resample.ResampledCrop((5, 6, 7), (0, 0, 0), (5, 6, 7), (9, 6, 2)),
        crop_and_resample.ResampledCrop((8, 8, 8), (2, 2, 2), (4, 5, 6), (1, 1, 1)),
        crop_and_resample.ResampledCrop((3, 1, 2), (0, 0, 0), (3, 1, 2), (3, 4, 2)),
    )

    @pytest.mark.parametrize("crop", CROPS)
    def test_probabilities_are_interpolated_linearly(self, crop):
        probabilities = draw_probabilities(crop.shape, 3)
        _, found = restore(probabilities, crop)
        expected = np.moveaxis(
            [
                resample(np.ascontiguousarray(channel), crop.crop_shape, "linear")
                for channel in np.moveaxis(probabilities, -1, 0)
            ],
            0,
            -1,
        )
        np.testing.assert_allclose(found[crop.box], expected, atol=1e-6)

    @pytest.mark.parametrize("crop", CROPS)
    def test_classes_are_the_most_likely_ones(self, crop):
        classes, found = restore(draw_probabilities(crop.shape, 4), crop)
        np.testing.assert_array_equal(classes, found.argmax(axis=-1))

    def test_ties_are_resolved_to_the_first_class(self):
        crop = self.CROPS[0]
        classes, _ = restore(np.full((*crop.shape, 3), 1 / 3, np.float32), crop)
        assert not classes.any()

    def test_by_hand(self):
        """Two planes become four, at -1/4 (constant), 1/4, 3/4 and 5/4 (constant)."""
        crop = crop_and_resample.ResampledCrop(
            (4, 1, 1), (0,) * 3, (4, 1, 1), (2, 1, 1)
        )
        planes = np.array([[1, 0], [0.2, 0.8]], np.float32).reshape(2, 1, 1, 2)
        classes, found = restore(planes, crop)
        np.testing.assert_allclose(found[:, 0, 0, 1], [0, 0.2, 0.6, 0.8], atol=1e-6)
        assert classes.ravel().tolist() == [0, 0, 1, 1]

    def test_probabilities_are_kept_on_request(self):
        crop = self.CROPS[0]
        restoration = Restoration(crop, 2)
        with pytest.raises(ValueError, match="expected all planes .* Received: 0"):
            restoration.finish()
        for plane in draw_probabilities(crop.shape, 2):
            restoration.add(plane)
        assert restoration.finish()[1] is None


class TestInverse:
    @pytest.mark.parametrize("raw_shape", [(40, 51, 46), (17, 64, 63)])
    @pytest.mark.parametrize("target_mm", [(1, 1, 1), (3, 0.8, 1.3), (0.7, 1.9, 1)])
    @pytest.mark.parametrize("rounding", ["nearest", "truncate"])
    def test_original_grid_exactly(self, raw_shape, target_mm, rounding):
        crop = place(raw_shape, (1, 1, 1), target_mm, size_rounding=rounding)
        labels = np.ones(crop.shape, np.uint8)
        restored = restore_labels(labels, crop)
        assert restored.shape == raw_shape
        assert restored.dtype == np.uint8
        expected = np.zeros(raw_shape)
        expected[crop.box] = 1
        np.testing.assert_array_equal(restored, expected)

    def test_labels_are_preserved_exactly_at_equal_spacing(self):
        crop = place((20, 31, 26), (2, 1.3, 1), (2, 1.3, 1))
        labels = np.zeros((20, 31, 26), np.uint8)
        labels[crop.box] = np.random.default_rng(1).integers(0, 5, crop.crop_shape)
        there = crop_and_resample.preprocess_labels(labels, crop)
        np.testing.assert_array_equal(there, labels[crop.box])
        back = restore_labels(there, crop)
        np.testing.assert_array_equal(back, labels)

    @pytest.mark.parametrize("spacing_mm", [(1, 1, 1), (2.5, 0.9, 0.9), (1, 1.4, 0.8)])
    @pytest.mark.parametrize("rounding", ["nearest", "truncate"])
    def test_blobs_are_preserved_at_different_spacing(self, spacing_mm, rounding):
        raw_shape = tuple(round(64 / size) for size in spacing_mm)
        crop = place(raw_shape, spacing_mm, (1.2, 0.7, 1.1), size_rounding=rounding)
        labels = ball(raw_shape, spacing_mm, 20).astype(np.uint8)
        there = crop_and_resample.preprocess_labels(labels, crop)
        back = restore_labels(there, crop)
        assert dice(back > 0, labels > 0) >= 0.97

    def test_probabilities(self):
        crop = place((20, 31, 26), (1, 1, 1), (1.5, 0.8, 1))
        uniform = np.full((*crop.shape, 4), 0.25, np.float32)
        _, restored = restore(uniform, crop)
        assert restored.shape == (20, 31, 26, 4)
        np.testing.assert_allclose(restored.sum(axis=-1), 1, atol=1e-6)
        np.testing.assert_allclose(restored[crop.box], 0.25, atol=1e-6)
        outside = np.ones((20, 31, 26), bool)
        outside[crop.box] = False
        np.testing.assert_array_equal(restored[outside], [[1, 0, 0, 0]] * outside.sum())

    def test_crop_round_trip_through_json(self):
        crop = place((20, 31, 26), (1, 1, 1), (1.5, 0.8, 1))
        assert crop_and_resample.ResampledCrop(**dataclasses.asdict(crop)) == crop
