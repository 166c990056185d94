import numpy as np
import pytest

from u2net_tf.evaluation.metrics import annotated_only, dice, false_positive_ml


def row(*values, dtype=np.uint8):
    """A volume of a single row of voxels."""
    return np.array(values, dtype).reshape(1, 1, -1)


class TestDice:
    def test_by_hand(self):
        # Reference 2 voxels, prediction 3, both 2: 2 · 2 / (2 + 3).
        found = dice(row(0, 1, 1, 0, 0), row(0, 1, 1, 1, 0), num_classes=2)
        np.testing.assert_array_equal(found, [0.8])
        assert found.dtype == np.float64

    def test_each_class_separately(self):
        reference = row(0, 1, 1, 2, 2, 3)
        prediction = row(1, 1, 0, 2, 2, 2)
        # 1: 2·1 / (2 + 2); 2: 2·2 / (2 + 3); 3: missed.
        found = dice(reference, prediction, num_classes=4)
        np.testing.assert_array_equal(found, [0.5, 0.8, 0.0])

    def test_is_symmetric(self):
        generator = np.random.default_rng(0)
        one, other = generator.integers(0, 4, (2, 5, 6, 7))
        np.testing.assert_array_equal(
            dice(one, other, num_classes=4), dice(other, one, num_classes=4)
        )

    def test_equal_masks_score_one_and_disjoint_masks_zero(self):
        mask = row(0, 1, 2)
        np.testing.assert_array_equal(dice(mask, mask, num_classes=3), [1, 1])
        np.testing.assert_array_equal(
            dice(mask, mask[..., ::-1], num_classes=3), [1, 0]
        )

    def test_a_class_in_neither_mask_is_nan(self):
        found = dice(row(0, 0, 2), row(0, 0, 2), num_classes=4)
        np.testing.assert_array_equal(found, [np.nan, 1, np.nan])

    def test_a_class_in_one_mask_only_scores_zero(self):
        found = dice(row(0, 1), row(0, 0), num_classes=3)
        np.testing.assert_array_equal(found, [0, np.nan])
        found = dice(row(0, 0), row(2, 0), num_classes=3)
        np.testing.assert_array_equal(found, [np.nan, 0])

    def test_the_types_may_differ(self):
        reference, prediction = row(0, 255), row(255, 255, dtype=np.int64)
        found = dice(reference, prediction, num_classes=256)
        assert found.shape == (255,)
        assert found[-1] == pytest.approx(2 / 3)

    def test_excludes_the_background(self):
        assert dice(row(0), row(0), num_classes=1).shape == (0,)


class TestAnnotatedOnly:
    def test_both_are_background_where_the_reference_is_ignored(self):
        found = annotated_only(row(3, 1, 2, 3, 0), row(1, 1, 2, 0, 2), 3)
        np.testing.assert_array_equal(found, [row(0, 1, 2, 0, 0), row(0, 1, 2, 0, 2)])
        assert [mask.dtype for mask in found] == [np.uint8, np.uint8]

    def test_without_an_ignore_label(self):
        masks = row(3, 1), row(1, 1)
        found = annotated_only(*masks, None)
        assert found[0] is masks[0]
        assert found[1] is masks[1]

    def test_shapes_must_agree(self):
        for index in (None, 3):
            with pytest.raises(ValueError, match="expected equal shapes"):
                annotated_only(row(0, 1), row(0), index)


class TestFalsePositiveVolume:
    def test_for_classes_missing_from_the_reference(self):
        reference, prediction = row(0, 1, 1, 0, 0), row(2, 1, 2, 2, 0)
        found = false_positive_ml(reference, prediction, num_classes=4, voxel_ml=0.1)
        # 1 is in the reference; 2 is not, and is predicted in three voxels; 3 is in
        # neither.
        np.testing.assert_allclose(found, [np.nan, 0.3, 0])

    def test_excludes_the_background(self):
        found = false_positive_ml(row(0), row(0), num_classes=1, voxel_ml=1)
        assert found.shape == (0,)


class TestErrors:
    def test_different_shapes(self):
        with pytest.raises(ValueError, match=r"\(1, 1, 2\), prediction \(1, 1, 3\)"):
            dice(row(0, 0), row(0, 0, 0), num_classes=2)

    @pytest.mark.parametrize("name", ["reference", "prediction"])
    @pytest.mark.parametrize("value", [-1, 3])
    def test_an_invalid_class_index(self, name, value):
        masks = {"reference": row(0, 1), "prediction": row(0, 1)}
        masks[name] = row(0, value, dtype=np.int32)
        with pytest.raises(ValueError, match=f"{name}: expected class indices from 0"):
            dice(**masks, num_classes=3)
