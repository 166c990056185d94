import dataclasses
import types

import numpy as np
import pytest
import toy

from tools.compare_gates import _read_thresholds, measure
from u2net_tf.errors import InputError

# Voxels of 0.05 ml, patches of four.
DOMAIN = dataclasses.replace(
    toy.ONE, spacing_mm=(2.0, 5.0, 5.0), patch_size=(1, 1, 4), pools=(0, 0, 1)
)
PREDICTOR = types.SimpleNamespace(
    spec=types.SimpleNamespace(plan=types.SimpleNamespace(domains=(DOMAIN,))),
    # Predicts the class wherever the image is bright.
    classes=lambda image, index: (image[..., 0] > 0.5).astype(np.uint8),
)


def record(labels, image):
    shape = (1, 1, len(labels))
    return types.SimpleNamespace(
        labels=np.array(labels, np.uint8).reshape(shape),
        image=np.array(image, np.float32).reshape(*shape, 1),
    )


def test_patches_and_scans_with_and_without_the_class():
    with_class = record([1, 1, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1, 1, 0, 0])
    without = record([0] * 4, [0, 0, 0, 1])
    (found,) = measure(PREDICTOR, 0, [with_class, without])
    # The last patch is flush with the border: voxels 5 to 8.
    assert found.patch_fp_ml == pytest.approx([0.1, 0.05])
    assert found.is_missed == [False, False]
    assert found.scan_fp_ml == pytest.approx([0.05])
    assert found.dice == pytest.approx([2 / 6])


def test_a_patch_in_which_no_class_voxel_is_predicted_is_missed():
    (found,) = measure(PREDICTOR, 0, [record([1, 0, 0], [0, 0, 0])])
    assert (found.is_missed, found.patch_fp_ml) == ([True], [])
    assert found.cells() == ("0", "–", "1", "1", "0", "–", "1", "0.00")


def test_thresholds():
    assert _read_thresholds(["0", "0.5", "1"]) == [0, 0.5, 1]
    assert _read_thresholds([]) == []


@pytest.mark.parametrize("texts", [["abc"], ["0.5", "1.1"], ["-0.1"], ["nan"]])
def test_invalid_thresholds_are_reported(texts):
    with pytest.raises(InputError, match="`thresholds`: expected numbers from 0 to 1"):
        _read_thresholds(texts)
