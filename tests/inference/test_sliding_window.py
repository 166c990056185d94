import numpy as np
import pytest

from u2net_tf.inference.sliding_window import (
    blending_weights,
    predict_volume,
    window_starts,
)


def draw(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def echo(windows):
    """Predicts its input."""
    return windows


class TestWindowStarts:
    @pytest.mark.parametrize(
        ("size", "patch", "stride", "starts"),
        [
            (4, 4, 2, [0]),
            (6, 4, 2, [0, 2]),
            (8, 4, 2, [0, 2, 4]),
            (7, 4, 2, [0, 2, 3]),  # the last lies flush with the border
            (5, 4, 4, [0, 1]),
            (8, 4, 4, [0, 4]),
            (4, 1, 1, [0, 1, 2, 3]),
        ],
    )
    def test_by_eye(self, size, patch, stride, starts):
        assert window_starts(size, patch, stride) == starts

    @pytest.mark.parametrize("patch", range(1, 9))
    @pytest.mark.parametrize("stride", range(1, 9))
    def test_every_voxel_is_covered(self, patch, stride):
        if stride > patch:
            return
        for size in range(patch, 25):
            starts = window_starts(size, patch, stride)
            covered = {start + i for start in starts for i in range(patch)}
            assert covered == set(range(size))
            assert starts == sorted(set(starts))

    @pytest.mark.parametrize(("size", "patch", "stride"), [(3, 4, 1), (4, 4, 0)])
    def test_errors(self, size, patch, stride):
        with pytest.raises(ValueError, match=f"size={size}, patch={patch}, stride="):
            window_starts(size, patch, stride)


class TestBlendingWeights:
    def test_by_eye(self):
        # Two voxels lie 0.5 and two 1.5 from the middle; the corner (of a patch one
        # voxel thin) lies √(0.5² + 0.5² + 2²) from it.
        corner = np.sqrt(4.5)
        expected = 1 - np.array([1.5, 0.5, 0.5, 1.5]) / corner
        np.testing.assert_allclose(
            blending_weights((1, 1, 4))[0, 0], expected, rtol=1e-6
        )
        # The same along the other axes.
        np.testing.assert_allclose(
            blending_weights((4, 1, 1))[:, 0, 0], expected, rtol=1e-6
        )
        np.testing.assert_allclose(
            blending_weights((1, 4, 1))[0, :, 0], expected, rtol=1e-6
        )

    def test_fall_linearly_with_the_euclidean_distance(self):
        weights = blending_weights((5, 7, 9))
        assert weights[2, 3, 4] == 1
        z, y, x = np.indices(weights.shape)
        distance = np.sqrt((z - 2) ** 2 + (y - 3) ** 2 + (x - 4) ** 2)
        slope = (1 - weights[2, 3, 0]) / 4
        np.testing.assert_allclose(weights, 1 - slope * distance, atol=1e-6)

    @pytest.mark.parametrize("size", [(1, 1, 1), (2, 2, 2), (1, 8, 3), (20, 192, 192)])
    def test_are_positive_and_symmetric(self, size):
        weights = blending_weights(size)
        assert weights.shape == size
        assert weights.dtype == np.float32
        assert weights.min() > 0
        assert weights.max() <= 1
        for axis in range(3):
            np.testing.assert_array_equal(weights, np.flip(weights, axis))


class TestPredictVolume:
    def test_by_eye(self):
        # One row of six voxels, windows of four: 0–3 and 2–5. The first predicts 0,
        # the second 1; where they meet, the nearer centre counts more.
        calls = []

        def number(windows):
            calls.append(windows)
            return np.full((*windows.shape[:4], 1), len(calls) - 1, np.float32)

        row = np.arange(6, dtype=np.float32).reshape(1, 1, 6, 1)
        blended = predict_volume(row, number, patch_size=(1, 1, 4), num_classes=1)
        seen = [call.ravel().tolist() for call in calls]
        assert seen == [[0, 1, 2, 3], [2, 3, 4, 5]]
        outer, inner = blending_weights((1, 1, 4))[0, 0, :2]
        share = outer / (outer + inner)
        np.testing.assert_allclose(
            blended.ravel(), [0, 0, share, 1 - share, 1, 1], rtol=1e-6
        )

    def test_windows_of_a_square(self):
        # A 4 × 4 square, windows of 2 × 2 side by side.
        square = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
        seen = []

        def look(windows):
            seen.extend(window.ravel().tolist() for window in windows)
            return windows

        predict_volume(square, look, patch_size=(1, 2, 2), num_classes=1, overlap=0)
        assert seen == [
            [0, 1, 4, 5],
            [2, 3, 6, 7],
            [8, 9, 12, 13],
            [10, 11, 14, 15],
        ]

    @pytest.mark.parametrize("overlap", [0.0, 0.3, 0.5, 0.75])
    @pytest.mark.parametrize(
        "shape", [(4, 4, 4), (5, 7, 9), (4, 11, 6), (3, 4, 9), (1, 2, 3), (13, 1, 4)]
    )
    def test_an_echo_gives_the_volume_back(self, shape, overlap):
        # Odd sizes, sizes below the patch: every voxel is covered and in its place.
        image = draw((*shape, 2))
        predicted = predict_volume(
            image, echo, patch_size=(4, 4, 4), num_classes=2, overlap=overlap
        )
        assert predicted.shape == image.shape
        assert predicted.dtype == np.float32
        np.testing.assert_allclose(predicted, image, atol=1e-5)

    def test_a_constant_stays_one(self):
        def constant(windows):
            return np.broadcast_to(np.float32([0.2, 0.5, 0.3]), (*windows.shape[:4], 3))

        predicted = predict_volume(
            draw((9, 6, 7, 1)), constant, patch_size=(4, 4, 4), num_classes=3
        )
        expected = np.broadcast_to([0.2, 0.5, 0.3], predicted.shape)
        np.testing.assert_allclose(predicted, expected, rtol=1e-6)

    def test_a_larger_overlap_has_more_windows(self):
        def count(overlap):
            calls = []
            predict_volume(
                draw((1, 1, 16, 1)),
                lambda windows: calls.append(1) or windows,
                patch_size=(1, 1, 4),
                num_classes=1,
                overlap=overlap,
            )
            return len(calls)

        assert [count(o) for o in (0.0, 0.5, 0.75, 0.99)] == [4, 7, 13, 13]

    @pytest.mark.parametrize("batch_size", [2, 3, 100])
    def test_the_batch_size_changes_nothing(self, batch_size):
        image, sizes = draw((9, 6, 7, 1)), []

        def double(windows):
            sizes.append(len(windows))
            return np.concatenate([windows, windows**2], axis=-1)

        arguments = {"patch_size": (4, 4, 4), "num_classes": 2}
        single = predict_volume(image, double, **arguments)
        num_windows = len(sizes)
        sizes.clear()
        batched = predict_volume(image, double, **arguments, batch_size=batch_size)
        np.testing.assert_array_equal(batched, single)
        assert sum(sizes) == num_windows
        assert max(sizes) == min(batch_size, num_windows)

    def test_padding_is_each_modality_s_minimum_on_both_sides(self):
        image = np.stack([np.arange(2, 4), np.arange(7, 9)], axis=-1)[None, None]
        seen = []
        predict_volume(
            image.astype(np.float32),
            lambda windows: seen.append(windows) or windows,
            patch_size=(1, 1, 5),
            num_classes=2,
        )
        (window,) = seen
        assert window[0, 0, 0, :, 0].tolist() == [2, 2, 3, 2, 2]
        assert window[0, 0, 0, :, 1].tolist() == [7, 7, 8, 7, 7]

    def test_the_volume_is_left_as_it_was(self):
        image = draw((5, 3, 4, 1))
        before = image.copy()
        predict_volume(image, lambda w: w * 0, patch_size=(4, 4, 4), num_classes=1)
        np.testing.assert_array_equal(image, before)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"overlap": 1.0}, "overlap: .* Received: 1.0"),
            ({"overlap": -0.1}, "overlap: .* Received: -0.1"),
            ({"batch_size": 0}, "batch_size: .* Received: 0"),
            ({"num_classes": 2}, r"shape \(1, 4, 4, 4, 2\).* \(1, 4, 4, 4, 1\)"),
        ],
    )
    def test_errors(self, changes, words):
        arguments = {"patch_size": (4, 4, 4), "num_classes": 1, **changes}
        with pytest.raises(ValueError, match=words):
            predict_volume(draw((4, 4, 4, 1)), echo, **arguments)
