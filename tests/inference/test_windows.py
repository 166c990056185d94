import functools
import itertools
import tracemalloc

import numpy as np
import pytest
from recorded_progress import RecordedProgress

from u2net_tf.inference.windows import blending_weights, predict_volume, window_starts


def draw(shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def echo(windows):
    """Predicts its input."""
    return windows


def softmax(windows):
    """Predicts six classes from two modalities."""
    logits = np.concatenate([windows, windows**2, np.cos(3 * windows)], axis=-1)
    values = np.exp(logits)
    return values / values.sum(axis=-1, keepdims=True)


def probabilities_of(*arguments, **options):
    return predict_volume(*arguments, **options, with_probabilities=True)[1]


def by_definition(image, predict, *, patch_size, num_classes, overlap):
    """Pads, predicts every window and divides by the sum of weights, in float64."""
    missing = [max(p - s, 0) for p, s in zip(patch_size, image.shape, strict=False)]
    widths = [(gap // 2, gap - gap // 2) for gap in missing]
    padded = np.stack(
        [np.pad(c, widths, constant_values=c.min()) for c in np.moveaxis(image, -1, 0)],
        axis=-1,
    )
    total = np.zeros((*padded.shape[:3], num_classes))
    weight_sum = np.zeros((*padded.shape[:3], 1))
    weights = weights_by_definition(patch_size)[..., None]
    starts = [
        window_starts(size, patch, max(1, round(patch * (1 - overlap))))
        for size, patch in zip(padded.shape, patch_size, strict=False)
    ]
    for corner in itertools.product(*starts):
        box = tuple(slice(c, c + p) for c, p in zip(corner, patch_size, strict=True))
        total[box] += predict(padded[box][None])[0] * weights
        weight_sum[box] += weights
    inner = tuple(
        slice(before, before + size)
        for (before, _), size in zip(widths, image.shape, strict=False)
    )
    return (total / weight_sum)[inner]


def weights_by_definition(patch_size):
    """Computes the weights voxel by voxel."""
    weights = np.empty(patch_size)
    corner = sum((size / 2) ** 2 for size in patch_size) ** 0.5
    for voxel in np.ndindex(*patch_size):
        square = sum(
            (index + 0.5 - size / 2) ** 2
            for index, size in zip(voxel, patch_size, strict=True)
        )
        weights[voxel] = 1 - square**0.5 / corner
    return weights


class TestWindowStarts:
    @pytest.mark.parametrize(
        ("size", "patch", "stride", "starts"),
        [
            (4, 4, 2, [0]),
            (6, 4, 2, [0, 2]),
            (8, 4, 2, [0, 2, 4]),
            (7, 4, 2, [0, 2, 3]),  # the last one is flush with the border
            (5, 4, 4, [0, 1]),
            (8, 4, 4, [0, 4]),
            (4, 1, 1, [0, 1, 2, 3]),
        ],
    )
    def test_known_values(self, size, patch, stride, starts):
        assert window_starts(size, patch, stride) == starts

    @pytest.mark.parametrize(
        ("patch", "stride"),
        [(patch, stride) for patch in range(1, 9) for stride in range(1, patch + 1)],
    )
    def test_every_voxel_is_covered(self, patch, stride):
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
    def test_known_values(self):
        # Two voxels are 0.5 and two 1.5 from the centre; the corner (of a patch one
        # voxel thick) is √(0.5² + 0.5² + 2²) from it.
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

    def test_of_a_square(self):
        # √½, √2½ and √4½ from the centre; a patch one voxel thick extends by half a
        # voxel on both sides, so that its corner is √(2² + 2² + ½²) away.
        expected = [
            [0.261, 0.450, 0.450, 0.261],
            [0.450, 0.754, 0.754, 0.450],
            [0.450, 0.754, 0.754, 0.450],
            [0.261, 0.450, 0.450, 0.261],
        ]
        np.testing.assert_allclose(blending_weights((1, 4, 4))[0], expected, atol=5e-4)

    @pytest.mark.parametrize("size", [(1, 1, 1), (4, 4, 4), (3, 8, 5), (16, 12, 20)])
    def test_voxel_by_voxel(self, size):
        np.testing.assert_allclose(
            blending_weights(size), weights_by_definition(size), rtol=0, atol=1e-7
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


class TestProbabilities:
    def test_known_values(self):
        # One row of six voxels, windows of four: 0–3 and 2–5. The first predicts 0,
        # the second 1; where they overlap, the nearer centre counts more.
        calls = []

        def number(windows):
            calls.append(windows)
            return np.full((*windows.shape[:4], 1), len(calls) - 1, np.float32)

        row = np.arange(6, dtype=np.float32).reshape(1, 1, 6, 1)
        blended = probabilities_of(row, number, patch_size=(1, 1, 4), num_classes=1)
        seen = [call.ravel().tolist() for call in calls]
        assert seen == [[0, 1, 2, 3], [2, 3, 4, 5]]
        outer, inner = blending_weights((1, 1, 4))[0, 0, :2]
        weight = outer / (outer + inner)
        np.testing.assert_allclose(
            blended.ravel(), [0, 0, weight, 1 - weight, 1, 1], rtol=1e-6
        )

    @pytest.mark.parametrize("batch_size", [1, 3])
    @pytest.mark.parametrize("overlap", [0, 0.3, 0.5, 0.75])
    @pytest.mark.parametrize("shape", [(9, 14, 11), (3, 14, 11), (21, 4, 5), (2, 3, 4)])
    def test_are_those_of_the_definition(self, shape, overlap, batch_size):
        options = {"patch_size": (4, 6, 5), "num_classes": 6, "overlap": overlap}
        image = draw((*shape, 2))
        found = probabilities_of(image, softmax, **options, batch_size=batch_size)
        expected = by_definition(image, softmax, **options)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)

    def test_windows_of_a_square(self):
        # A 4 × 4 square, windows of 2 × 2 side by side.
        square = np.arange(16, dtype=np.float32).reshape(1, 4, 4, 1)
        seen = []

        def record(windows):
            seen.extend(window.ravel().tolist() for window in windows)
            return windows

        probabilities_of(square, record, patch_size=(1, 2, 2), num_classes=1, overlap=0)
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
    def test_an_identity_network_reproduces_the_volume(self, shape, overlap):
        # Odd sizes, sizes below the patch: every voxel is covered and at its position.
        image = draw((*shape, 2))
        predicted = probabilities_of(
            image, echo, patch_size=(4, 4, 4), num_classes=2, overlap=overlap
        )
        assert predicted.shape == image.shape
        assert predicted.dtype == np.float32
        np.testing.assert_allclose(predicted, image, atol=1e-5)

    def test_a_constant_stays_constant(self):
        def constant(windows):
            return np.broadcast_to(np.float32([0.2, 0.5, 0.3]), (*windows.shape[:4], 3))

        predicted = probabilities_of(
            draw((9, 6, 7, 1)), constant, patch_size=(4, 4, 4), num_classes=3
        )
        expected = np.broadcast_to([0.2, 0.5, 0.3], predicted.shape)
        np.testing.assert_allclose(predicted, expected, rtol=1e-6)

    def test_a_larger_overlap_has_more_windows(self):
        def count(overlap):
            calls = []
            probabilities_of(
                draw((1, 1, 16, 1)),
                lambda windows: calls.append(1) or windows,
                patch_size=(1, 1, 4),
                num_classes=1,
                overlap=overlap,
            )
            return len(calls)

        assert [count(o) for o in (0.0, 0.5, 0.75, 0.99)] == [4, 7, 13, 13]

    @pytest.mark.parametrize("batch_size", [2, 3, 100])
    def test_the_batch_size_has_no_effect(self, batch_size):
        image, sizes = draw((9, 6, 7, 1)), []

        def double(windows):
            sizes.append(len(windows))
            return np.concatenate([windows, windows**2], axis=-1)

        arguments = {"patch_size": (4, 4, 4), "num_classes": 2}
        single = probabilities_of(image, double, **arguments)
        num_windows = len(sizes)
        sizes.clear()
        batched = probabilities_of(image, double, **arguments, batch_size=batch_size)
        np.testing.assert_array_equal(batched, single)
        assert sum(sizes) == num_windows
        assert max(sizes) == min(batch_size, num_windows)

    def test_padding_is_the_minimum_of_each_modality_on_both_sides(self):
        image = np.stack([np.arange(2, 4), np.arange(7, 9)], axis=-1)[None, None]
        seen = []
        probabilities_of(
            image.astype(np.float32),
            lambda windows: seen.append(windows) or windows,
            patch_size=(1, 1, 5),
            num_classes=2,
        )
        (window,) = seen
        assert window[0, 0, 0, :, 0].tolist() == [2, 2, 3, 2, 2]
        assert window[0, 0, 0, :, 1].tolist() == [7, 7, 8, 7, 7]

    def test_the_volume_is_not_changed(self):
        image = draw((5, 3, 4, 1))
        before = image.copy()
        probabilities_of(image, lambda w: w * 0, patch_size=(4, 4, 4), num_classes=1)
        np.testing.assert_array_equal(image, before)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"overlap": 1.0}, "overlap: .* Received: 1.0"),
            ({"overlap": -0.1}, "overlap: .* Received: -0.1"),
            ({"batch_size": 0}, "batch_size: .* Received: 0"),
            ({"num_classes": 0}, "num_classes: .* Received: 0"),
            ({"num_classes": 257}, "num_classes: .* Received: 257"),
            ({"num_classes": 2}, r"shape \(1, 4, 4, 4, 2\).* \(1, 4, 4, 4, 1\)"),
        ],
    )
    def test_errors(self, changes, words):
        arguments = {"patch_size": (4, 4, 4), "num_classes": 1, **changes}
        with pytest.raises(ValueError, match=words):
            probabilities_of(draw((4, 4, 4, 1)), echo, **arguments)


class TestClasses:
    @pytest.mark.parametrize("batch_size", [1, 4])
    @pytest.mark.parametrize("overlap", [0, 0.3, 0.75])
    @pytest.mark.parametrize("shape", [(23, 9, 11), (3, 14, 11), (4, 6, 5)])
    def test_are_the_same_whether_probabilities_are_kept(
        self, shape, overlap, batch_size
    ):
        predict = functools.partial(
            predict_volume,
            draw((*shape, 2)),
            softmax,
            patch_size=(4, 6, 5),
            num_classes=6,
            overlap=overlap,
            batch_size=batch_size,
        )
        classes, nothing = predict()
        again, probabilities = predict(with_probabilities=True)
        assert nothing is None
        assert classes.dtype == np.uint8
        assert len(np.unique(classes)) == 6
        np.testing.assert_array_equal(classes, again)
        np.testing.assert_array_equal(classes, probabilities.argmax(axis=-1))

    def test_ties_are_the_first_class(self):
        classes, _ = predict_volume(
            draw((4, 4, 4, 1)),
            lambda windows: np.repeat(windows * 0 + 0.5, 2, axis=-1),
            patch_size=(4, 4, 4),
            num_classes=2,
        )
        assert not classes.any()

    def test_class_255_of_256(self):
        last = np.eye(256, dtype=np.float32)[255]
        classes, _ = predict_volume(
            draw((2, 2, 3, 1)),
            lambda windows: np.broadcast_to(last, (*windows.shape[:4], 256)),
            patch_size=(2, 2, 2),
            num_classes=256,
        )
        assert (classes == 255).all()


class TestEmptyWindows:
    """Empty windows are certain background and are not predicted."""

    OPTIONS = {"patch_size": (4, 6, 5), "num_classes": 6}

    def make_image(self):
        """Noise in two opposite corners, 0 elsewhere."""
        image = np.zeros((13, 14, 11, 2), np.float32)
        image[:4, :5, :5] = draw((4, 5, 5, 2))
        image[-2:, -3:, -2:] = draw((2, 3, 2, 2))
        return image

    @pytest.mark.parametrize("batch_size", [1, 2, 100])
    @pytest.mark.parametrize("overlap", [0, 0.5, 0.7])
    def test_are_blended_as_certain_background(self, overlap, batch_size):
        image, sizes = self.make_image(), []
        options = {**self.OPTIONS, "overlap": overlap, "batch_size": batch_size}

        def predict(windows):
            sizes.append(len(windows))
            assert windows.any(axis=(1, 2, 3, 4)).all()
            return softmax(windows)

        def predict_all(windows):
            found = softmax(windows)
            found[~windows.any(axis=(1, 2, 3, 4))] = np.eye(6)[0]
            return found

        def is_empty(box):
            return not image[box].any()

        classes, found = predict_volume(
            image, predict, **options, is_empty=is_empty, with_probabilities=True
        )
        # Batches are filled with windows that are not empty.
        *filled, last = sizes
        assert set(filled) <= {batch_size}
        assert 0 < last <= batch_size
        expected = predict_volume(
            image, predict_all, **options, with_probabilities=True
        )
        np.testing.assert_array_equal(classes, expected[0])
        np.testing.assert_array_equal(found, expected[1])
        np.testing.assert_array_equal(
            predict_volume(image, predict, **options, is_empty=is_empty)[0], classes
        )
        # A voxel that only empty windows cover.
        assert found[6, 13, 0].tolist() == [1, 0, 0, 0, 0, 0]

    def test_are_predicted_without_a_test_for_empty_boxes(self):
        seen = []
        predict_volume(
            np.zeros((8, 6, 5, 2), np.float32),
            lambda windows: seen.append(windows) or softmax(windows),
            **self.OPTIONS,
        )
        assert len(seen) == 3

    def test_boxes_are_inside_the_image(self):
        # The window is deeper than the image and padded; the box is not.
        boxes = []
        predict_volume(
            draw((3, 9, 5, 2)),
            softmax,
            **self.OPTIONS,
            is_empty=lambda box: boxes.append(box) or False,
        )
        assert boxes == [
            (slice(0, 3), slice(0, 6), slice(0, 5)),
            (slice(0, 3), slice(3, 9), slice(0, 5)),
        ]

    def test_nothing_is_predicted_if_everything_is_empty(self):
        classes, found = predict_volume(
            draw((9, 9, 9, 2)),
            lambda windows: pytest.fail("a window was predicted"),
            **self.OPTIONS,
            is_empty=lambda box: True,
            with_probabilities=True,
        )
        assert not classes.any()
        np.testing.assert_allclose(found[..., 0], 1, rtol=1e-6)
        assert not found[..., 1:].any()


class TestMemory:
    """NumPy reports every array to `tracemalloc`."""

    PATCH = (16, 24, 24)
    NUM_CLASSES = 5
    WINDOW = 4 * 16 * 24 * 24  # bytes of one channel

    def peak(self, image, **options):
        def predict(windows):
            return np.full((*windows.shape[:4], self.NUM_CLASSES), 0.2, np.float32)

        tracemalloc.start()
        try:
            predict_volume(
                image,
                predict,
                patch_size=self.PATCH,
                num_classes=self.NUM_CLASSES,
                **options,
            )
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    @pytest.mark.parametrize("batch_size", [1, 3])
    @pytest.mark.parametrize("num_modalities", [1, 12])
    @pytest.mark.parametrize("shape", [(80, 60, 60), (80, 20, 60)])
    def test_is_the_accumulator_and_a_batch(self, shape, num_modalities, batch_size):
        image = np.zeros((*shape, num_modalities), np.float32)
        voxels = np.prod(shape)
        batch = batch_size * (num_modalities + self.NUM_CLASSES) * self.WINDOW
        # The weights of every class, the label map, and some kilobytes.
        others = self.NUM_CLASSES * self.WINDOW + voxels + 150_000
        per_plane = 4 * shape[1] * shape[2]
        deep = self.peak(image, batch_size=batch_size)
        assert deep < self.NUM_CLASSES * per_plane * 16 + batch + others
        # The sums of weights are as deep as a window.
        complete = self.peak(image, batch_size=batch_size, with_probabilities=True)
        sums = per_plane * 16
        assert complete < self.NUM_CLASSES * 4 * voxels + batch + others + sums

    def test_of_a_label_map_grows_by_one_byte_per_voxel(self):
        short, tall = (
            self.peak(np.zeros((depth, 60, 60, 1), np.float32)) for depth in (80, 160)
        )
        assert tall - short < 1.1 * 80 * 60 * 60


def test_progress_counts_the_windows():
    progress = RecordedProgress()
    predict_volume(
        draw((4, 4, 10, 1)),
        echo,
        patch_size=(4, 4, 4),
        num_classes=1,
        batch_size=3,
        # An empty window is not predicted, but counted.
        is_empty=lambda box: box[2].start == 2,
        progress=progress,
    )
    assert progress.counts == [("windows", "window", 4)]
    (bar,) = progress.bars
    # Drawn below the bar of the scans, and only if it takes long.
    assert not bar.leave
    assert bar.delay > 0
