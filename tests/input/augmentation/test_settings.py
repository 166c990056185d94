import math

import pytest

from u2net_tf.config.augmentation import AugmentationConfig

NAMES = list(AugmentationConfig.settings())
PROBABILITIES = [name for name in NAMES if name.endswith("_probability")]
RANGES = [name for name in NAMES if name not in PROBABILITIES]
MOVES = {"elastic_probability", "rotation_probability", "scaling_probability"}


def test_everything_but_mirroring_is_off_by_default():
    augmentation = AugmentationConfig()
    on = [name for name in PROBABILITIES if getattr(augmentation, name) != 0]
    assert on == ["mirror_probability"]
    assert not augmentation.moves_voxels
    assert not augmentation.changes_intensities


@pytest.mark.parametrize("name", PROBABILITIES)
def test_each_transform_is_enabled_by_its_probability(name):
    augmentation = AugmentationConfig(**{name: 0.01})
    assert augmentation.moves_voxels == (name in MOVES)
    changes = name not in MOVES and name != "mirror_probability"
    assert augmentation.changes_intensities == changes


@pytest.mark.parametrize("value", [-0.1, 1.1, float("nan")])
@pytest.mark.parametrize("name", PROBABILITIES)
def test_probabilities_are_checked(name, value):
    with pytest.raises(ValueError, match=rf"(?s){name}.*input_value={value}"):
        AugmentationConfig(**{name: value})


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", [(0.9, 0.8), (-400.0, 1.0)])
def test_ranges_are_checked(name, value):
    with pytest.raises(ValueError, match=rf"{name}`: expected \(lowest, highest\)"):
        AugmentationConfig(**{name: value})


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("value", [(0.9,), (0.5, 0.6, 0.7), [0.5, 0.6], "0.5,0.6", 1.0])
def test_ranges_are_pairs(name, value):
    with pytest.raises(ValueError, match=name):
        AugmentationConfig(**{name: value})


@pytest.mark.parametrize("name", RANGES)
def test_ranges_may_start_at_0_if_0_changes_nothing(name):
    if name == "elastic_sigma_mm":
        with pytest.raises(ValueError, match=f"{name}`: .* both at least 1 and"):
            AugmentationConfig(elastic_sigma_mm=(0.9, 2))
    elif name in ("elastic_alpha", "noise_variance", "rotation_degrees"):
        assert getattr(AugmentationConfig(**{name: (0, 1)}), name) == (0, 1)
    else:
        with pytest.raises(ValueError, match=f"{name}`: .* both above 0"):
            AugmentationConfig(**{name: (0, 1)})


@pytest.mark.parametrize("name", RANGES)
@pytest.mark.parametrize("highest", [math.inf, math.nan, 1e7])
def test_ranges_have_a_finite_upper_limit(name, highest):
    words = f"{name}`: .* and at most "
    if not math.isfinite(highest):
        words = rf"(?s){name}\.1.*finite"
    with pytest.raises(ValueError, match=words):
        AugmentationConfig(**{name: (1, highest)})


def test_smoothness_may_vary_tenfold():
    """With a wider range, the lattice of a deformation could exceed the patch."""
    assert AugmentationConfig(elastic_sigma_mm=(2, 20)).elastic_sigma_mm == (2, 20)
    with pytest.raises(ValueError, match=r"sigma_mm`: .* 10 times .*: \(2.0, 20.5\)"):
        AugmentationConfig(elastic_sigma_mm=(2, 20.5))


def test_upper_limits():
    with pytest.raises(ValueError, match="scale`: .* at most 10"):
        AugmentationConfig(scale=(1, 11))
    with pytest.raises(ValueError, match="blur_sigma_voxels`: .* at most 100"):
        AugmentationConfig(blur_sigma_voxels=(1, 101))
    with pytest.raises(ValueError, match="zoom`: .* at most 1. Received: .0.5, 1.1."):
        AugmentationConfig(low_resolution_zoom=(0.5, 1.1))
    with pytest.raises(ValueError, match="degrees`: .* at most 360"):
        AugmentationConfig(rotation_degrees=(0, 361))
