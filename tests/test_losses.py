import re

import numpy as np
import pytest
import scipy.special
import tensorflow as tf

from u2net_tf import losses


def draw(num_classes=3, shape=(2, 3, 4, 2), present=None, seed=0):
    generator = np.random.default_rng(seed)
    labels = generator.integers(present or num_classes, size=shape)
    return labels, 2.0 * generator.normal(size=(*shape, num_classes))


def jaccard_loss(wrong, foreground):
    """1 - |A ∩ B| / |A ∪ B| if exactly the voxels `wrong` are mislabelled."""
    if not np.any(wrong):
        return 0.0
    hits = np.sum(foreground & ~wrong)
    union = np.sum(foreground | wrong)
    return 1.0 - hits / union


def lovasz(labels, logits):
    """The Lovász extension from its definition, set by set."""
    labels = labels.ravel()
    probabilities = scipy.special.softmax(logits, axis=-1)
    probabilities = probabilities.reshape(len(labels), -1)
    total = 0.0
    for number, column in enumerate(probabilities.T):
        foreground = labels == number
        errors = np.where(foreground, 1.0 - column, column)
        wrong, previous = np.zeros(len(labels), bool), 0.0
        for voxel in np.argsort(-errors):
            wrong[voxel] = True
            current = jaccard_loss(wrong, foreground)
            total += errors[voxel] * (current - previous)
            previous = current
    return total / probabilities.shape[1]


def focal(labels, logits, gamma, factor_logits=None):
    """The focal loss from its formula; the factor may come from other logits."""
    factor_logits = logits if factor_logits is None else factor_logits

    def of_label(values):
        return np.take_along_axis(values, labels[..., np.newaxis], -1)

    miss = 1.0 - of_label(scipy.special.softmax(factor_logits, axis=-1))
    return -np.mean(miss**gamma * of_label(scipy.special.log_softmax(logits, axis=-1)))


def gradient(loss, logits):
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        value = loss(logits)
    return tape.gradient(value, logits).numpy()


def finite_differences(loss, logits, step=1e-6):
    found = np.empty_like(logits)
    for index in np.ndindex(*logits.shape):
        change = np.zeros_like(logits)
        change[index] = step
        found[index] = (loss(logits + change) - loss(logits - change)) / (2 * step)
    return found


class TestLovaszSoftmax:
    @pytest.mark.parametrize("num_classes", [2, 3])
    @pytest.mark.parametrize("present", [1, 2])
    def test_is_the_lovasz_extension_of_the_jaccard_loss(self, num_classes, present):
        labels, logits = draw(num_classes, present=present)
        found = losses.lovasz_softmax(labels, logits)
        np.testing.assert_allclose(found, lovasz(labels, logits), rtol=1e-12)

    @pytest.mark.parametrize("present", [2, 3])
    def test_gradient_is_finite_differences(self, present):
        labels, logits = draw(shape=(1, 2, 3, 2), present=present)
        np.testing.assert_allclose(
            gradient(lambda x: losses.lovasz_softmax(labels, x), logits),
            finite_differences(lambda x: lovasz(labels, x), logits),
            atol=1e-8,
        )

    def test_by_hand(self):
        # Class 1: errors 0.8 (background) and 0.4 (foreground). {0.8} wrong: hits 1,
        # union 2, loss 1/2; both: loss 1. Class 0: the same with the labels swapped.
        labels = np.array([0, 1]).reshape(1, 1, 1, 2)
        logits = np.log([[0.2, 0.8], [0.4, 0.6]]).reshape(1, 1, 1, 2, 2)
        # Class 0: {0.8} wrong is a foreground voxel: hits 0, union 1, loss 1.
        expected = ((0.8 * 0.5 + 0.4 * 0.5) + (0.8 * 1.0 + 0.4 * 0.0)) / 2
        np.testing.assert_allclose(losses.lovasz_softmax(labels, logits), expected)

    @pytest.mark.parametrize("num_classes", [2, 3])
    @pytest.mark.parametrize("present", [1, 2])
    @pytest.mark.parametrize("certainty", [1.0, 30.0])
    def test_float32_sorts_as_float64(self, num_classes, present, certainty):
        labels, logits = draw(num_classes, (2, 16, 16, 8), present)
        # With ties: every voxel occurs twice, and some errors are exactly 0 or 1.
        logits = np.float32(certainty * np.concatenate([logits, logits], axis=1))
        labels = np.concatenate([labels, labels[:, ::-1]], axis=1)
        single, double = (
            losses.lovasz_softmax(labels, tf.constant(logits, dtype))
            for dtype in (tf.float32, tf.float64)
        )
        np.testing.assert_allclose(single, double, rtol=1e-5)
        # Only the sum of the gradients of tied voxels is defined.
        totals = [
            gradient(lambda x: losses.lovasz_softmax(labels, x), logits.astype(dtype))
            for dtype in (np.float32, np.float64)
        ]
        totals = [np.sum(np.abs(total), axis=(0, 1, 2, 3)) for total in totals]
        np.testing.assert_allclose(*totals, rtol=1e-2, atol=1e-9)

    @pytest.mark.parametrize("num_classes", [2, 3])
    def test_gradient_in_float32_is_that_in_float64(self, num_classes):
        labels, logits = draw(num_classes, (2, 16, 16, 8))
        logits = logits.astype(np.float32)
        single, double = (
            gradient(lambda x: losses.lovasz_softmax(labels, x), logits.astype(dtype))
            for dtype in (np.float32, np.float64)
        )
        np.testing.assert_allclose(
            single, double, rtol=0, atol=1e-4 * np.abs(double).max()
        )

    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_runs_in_xla(self, dtype):
        labels, logits = draw()
        logits = tf.constant(logits, dtype)
        compiled = tf.function(losses.lovasz_softmax, jit_compile=True)
        np.testing.assert_allclose(
            compiled(labels, logits), losses.lovasz_softmax(labels, logits), rtol=1e-5
        )

    def test_the_batch_is_one_list_of_voxels(self):
        labels, logits = draw()
        apart = [losses.lovasz_softmax(labels[i], logits[i]) for i in range(2)]
        together = losses.lovasz_softmax(labels, logits)
        assert abs(float(together) - np.mean(apart)) > 1e-3

    def test_weights_stay_precise_with_many_voxels(self):
        foreground = np.random.default_rng(0).random((2, 300_000)) < 0.3
        seen = np.cumsum(foreground, axis=1, dtype=np.float64)
        left = seen[:, -1:] - seen
        union = seen[:, -1:] + np.arange(1, 300_001) - seen
        expected = np.diff(1.0 - left / union, axis=1, prepend=0.0)
        found = losses._jaccard_steps(tf.constant(foreground), tf.float32)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-12)


class TestFocal:
    @pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.5])
    def test_formula(self, gamma):
        labels, logits = draw()
        found = losses.focal(labels, logits, gamma=gamma)
        np.testing.assert_allclose(found, focal(labels, logits, gamma), rtol=1e-12)
        assert gamma != 2.0 or found == losses.focal(labels, logits)

    @pytest.mark.parametrize("detach", [True, False])
    @pytest.mark.parametrize("gamma", [0.0, 2.0])
    def test_gradient_is_finite_differences(self, gamma, detach):
        labels, logits = draw(shape=(1, 2, 3, 2))
        constant = logits if detach else None
        np.testing.assert_allclose(
            gradient(
                lambda x: losses.focal(labels, x, gamma=gamma, detach_factor=detach),
                logits,
            ),
            finite_differences(lambda x: focal(labels, x, gamma, constant), logits),
            atol=1e-8,
        )

    @pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
    @pytest.mark.parametrize("dtype", ["float32", "float64"])
    def test_certain_logits_have_finite_gradients(self, gamma, dtype):
        labels = np.array([0, 1]).reshape(1, 1, 1, 2)
        logits = np.array([[1e4, -1e4]] * 2, dtype).reshape(1, 1, 1, 2, 2)
        found = gradient(lambda x: losses.focal(labels, x, gamma=gamma), logits)
        assert np.all(np.isfinite(found))
        np.testing.assert_allclose(
            losses.focal(labels, logits, gamma=gamma), 1e4, rtol=1e-6
        )

    def test_rejects_a_negative_gamma(self):
        with pytest.raises(ValueError, match="Received: gamma=-1"):
            losses.focal(*draw(), gamma=-1)


def test_segmentation_loss_is_the_sum():
    labels, logits = draw()
    options = {"gamma": 1.0, "detach_factor": True}
    np.testing.assert_allclose(
        losses.segmentation_loss(labels, logits, **options),
        lovasz(labels, logits) + focal(labels, logits, 1.0),
    )
    np.testing.assert_allclose(
        gradient(lambda x: losses.segmentation_loss(labels, x, **options), logits),
        gradient(lambda x: losses.lovasz_softmax(labels, x), logits)
        + gradient(lambda x: losses.focal(labels, x, **options), logits),
    )
    np.testing.assert_allclose(
        losses.segmentation_loss(labels, logits),
        lovasz(labels, logits) + focal(labels, logits, 2.0),
    )


@pytest.mark.parametrize(
    "loss", [losses.lovasz_softmax, losses.focal, losses.segmentation_loss]
)
class TestEveryLoss:
    @pytest.mark.parametrize(
        ("dtype", "expected"), [("float16", "float32"), ("float64", "float64")]
    )
    def test_computes_in_float32_or_better(self, loss, dtype, expected):
        labels, logits = draw()
        assert loss(labels, tf.constant(logits, dtype)).dtype == expected

    def test_integer_types_and_unknown_shapes(self, loss):
        labels, logits = draw()
        specs = [
            tf.TensorSpec((None,) * 4, tf.uint8),
            tf.TensorSpec((None,) * 4 + (3,), tf.float64),
        ]
        compiled = tf.function(loss, input_signature=specs)
        np.testing.assert_allclose(
            compiled(labels.astype(np.uint8), logits), loss(labels, logits)
        )

    def test_rejects_labels_that_are_not_integers(self, loss):
        labels, logits = draw()
        with pytest.raises(ValueError, match="Received: labels.dtype=float64"):
            loss(labels.astype(np.float64), logits)

    def test_rejects_different_shapes(self, loss):
        labels, logits = draw()
        with pytest.raises(ValueError, match="Received: labels.shape="):
            loss(labels[:, 1:], logits)


@pytest.mark.parametrize("num_classes", [2, 3])
class TestIgnoredVoxels:
    """A loss is that of the other voxels alone, and these alone have a gradient."""

    @pytest.mark.parametrize("dtype", [np.float32, np.float64])
    @pytest.mark.parametrize("offset", [0, 200])
    @pytest.mark.parametrize(
        "loss", [losses.lovasz_softmax, losses.focal, losses.segmentation_loss]
    )
    def test_are_left_out(self, loss, num_classes, dtype, offset):
        labels, logits = draw(num_classes, (2, 6, 4, 5))
        logits = logits.astype(dtype)
        ignored = np.random.default_rng(1).random(labels.shape) < 0.4
        index = num_classes + offset
        marked = np.where(ignored, index, labels)
        kept = labels[~ignored].reshape(1, 1, 1, -1)
        kept_logits = logits[~ignored].reshape(1, 1, 1, -1, num_classes)
        tolerance = 1e-5 if dtype == np.float32 else 1e-12
        np.testing.assert_allclose(
            loss(marked, logits, ignore_index=index),
            loss(kept, kept_logits),
            rtol=tolerance,
        )
        found = gradient(lambda x: loss(marked, x, ignore_index=index), logits)
        assert not found[ignored].any()
        np.testing.assert_allclose(
            found[~ignored].ravel(),
            gradient(lambda x: loss(kept, x), kept_logits).ravel(),
            rtol=100 * tolerance,
            atol=tolerance,
        )

    def test_only_ignored_voxels(self, num_classes):
        labels, logits = draw(num_classes)
        labels = np.full_like(labels, num_classes)

        def loss(x):
            return losses.segmentation_loss(labels, x, ignore_index=num_classes)

        assert loss(logits) == 0
        assert not gradient(loss, logits).any()

    def test_an_absent_class_costs_its_largest_error_in_the_others(self, num_classes):
        labels, logits = draw(num_classes, present=1)
        labels[0] = num_classes
        probabilities = scipy.special.softmax(logits, axis=-1)[1]
        # Of class 0, all voxels are foreground: its loss is the mean of their errors.
        absent = [probabilities[..., k].max() for k in range(1, num_classes)]
        expected = (np.mean(1 - probabilities[..., 0]) + sum(absent)) / num_classes
        found = losses.lovasz_softmax(labels, logits, ignore_index=num_classes)
        np.testing.assert_allclose(found, expected)

    def test_runs_in_xla(self, num_classes):
        labels, logits = draw(num_classes)
        labels[0] = num_classes
        options = {"ignore_index": num_classes}
        compiled = tf.function(losses.segmentation_loss, jit_compile=True)
        np.testing.assert_allclose(
            compiled(labels, logits, **options),
            losses.segmentation_loss(labels, logits, **options),
        )

    @pytest.mark.parametrize(
        "loss", [losses.lovasz_softmax, losses.focal, losses.segmentation_loss]
    )
    def test_their_index_is_not_that_of_a_class(self, loss, num_classes):
        labels, logits = draw(num_classes)
        for index in (0, num_classes - 1):
            message = f"Received: ignore_index={index}, {num_classes} classes"
            with pytest.raises(ValueError, match=message):
                loss(labels, logits, ignore_index=index)
        for index in (-1, num_classes):
            found = loss(labels, logits, ignore_index=index)
            np.testing.assert_allclose(found, loss(labels, logits))


class TestRegions:
    """The loss of a region is that of two classes, whose probabilities are sums."""

    # Of one class, of several, and one whose order is not that of the classes.
    REGIONS = ((1,), (2, 3), (3, 1, 2))

    def logits_of_two(self, logits, region):
        probabilities = scipy.special.softmax(logits, axis=-1)
        inside = probabilities[..., list(region)].sum(axis=-1)
        return np.log(np.stack([1.0 - inside, inside], axis=-1))

    def expected(self, labels, logits, gamma=2.0):
        terms = []
        for region in self.REGIONS:
            two = (
                np.isin(labels, region).astype(int),
                self.logits_of_two(logits, region),
            )
            terms.append(lovasz(*two) + focal(*two, gamma))
        return np.mean(terms)

    @pytest.mark.parametrize("gamma", [0.0, 2.0])
    @pytest.mark.parametrize("present", [1, 2, 4])
    def test_are_averaged(self, gamma, present):
        labels, logits = draw(4, present=present)
        found = losses.region_loss(labels, logits, self.REGIONS, gamma=gamma)
        np.testing.assert_allclose(found, self.expected(labels, logits, gamma))

    def test_gradient_is_finite_differences(self):
        labels, logits = draw(4, (1, 2, 3, 2))
        np.testing.assert_allclose(
            gradient(lambda x: losses.region_loss(labels, x, self.REGIONS), logits),
            finite_differences(lambda x: self.expected(labels, x), logits),
            atol=1e-8,
        )

    def test_detached_factor_has_no_gradient(self):
        labels, logits = draw(4)

        def loss(x):
            two = tf.stack([tf.reduce_logsumexp(x[..., :2], -1), x[..., 2]], -1)
            return losses.segmentation_loss(labels // 2, two, detach_factor=True)

        labels, logits = np.minimum(labels, 2), logits[..., :3]
        np.testing.assert_allclose(
            gradient(
                lambda x: losses.region_loss(labels, x, [(2,)], detach_factor=True),
                logits,
            ),
            gradient(loss, logits),
        )

    def test_of_one_class_of_two_is_the_loss_of_the_classes(self):
        labels, logits = draw(2)
        np.testing.assert_allclose(
            losses.region_loss(labels, logits, [(1,)]),
            losses.segmentation_loss(labels, logits),
        )

    @pytest.mark.parametrize("index", [4, 255])
    def test_ignored_voxels_are_left_out(self, index):
        labels, logits = draw(4, (2, 6, 4, 5))
        ignored = np.random.default_rng(1).random(labels.shape) < 0.4
        marked = np.where(ignored, index, labels)
        kept = labels[~ignored].reshape(1, 1, 1, -1)
        kept_logits = logits[~ignored].reshape(1, 1, 1, -1, 4)

        def loss(x):
            return losses.region_loss(marked, x, self.REGIONS, ignore_index=index)

        expected = losses.region_loss(kept, kept_logits, self.REGIONS)
        np.testing.assert_allclose(loss(logits), expected)
        assert not gradient(loss, logits)[ignored].any()

    def test_certain_logits_have_a_finite_loss_and_gradient(self):
        labels, logits = draw(4)
        logits = np.float32(1e4 * logits)

        def loss(x):
            return losses.region_loss(labels, x, self.REGIONS)

        assert np.isfinite(loss(logits))
        assert np.isfinite(gradient(loss, logits)).all()

    def test_runs_in_xla(self):
        labels, logits = draw(4)
        compiled = tf.function(
            lambda *batch: losses.region_loss(*batch, self.REGIONS), jit_compile=True
        )
        np.testing.assert_allclose(
            compiled(labels, logits), losses.region_loss(labels, logits, self.REGIONS)
        )

    @pytest.mark.parametrize("region", [(), (0, 1, 2), (3,), (-1, 1)])
    def test_are_some_of_the_classes(self, region):
        message = re.escape(f"Received: {list(region)}")
        with pytest.raises(ValueError, match=message):
            losses.region_loss(*draw(3), [(1,), region])

    def test_at_least_one(self):
        with pytest.raises(ValueError, match="`regions` must contain at least one"):
            losses.region_loss(*draw(3), [])
