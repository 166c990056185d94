import math

import numpy as np
import pytest
import tensorflow as tf
from expected_warp import expected_coordinates, make_spatial

from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.input.augmentation import elastic, spatial
from u2net_tf.input.augmentation.spatial import PatchGrid
from u2net_tf.interpolation.matrices import interpolation_matrix

ON = AugmentationConfig(
    elastic_probability=0.3, rotation_probability=0.3, scaling_probability=0.5
)
ALWAYS = AugmentationConfig(
    elastic_probability=1, rotation_probability=1, scaling_probability=1
)
THICK = PatchGrid((4, 9, 7), (8, 9, 14), (5.0, 2.0, 1.0))
PLAIN = PatchGrid((5, 7, 7), (5, 7, 7), (1.0, 1.0, 1.0))
NOT_MIRRORED = (False, False, False)


def voxel_coordinates(grid, **chosen):
    drawn = make_spatial(grid, ON, **chosen)
    found = spatial.coordinates(grid, ON, drawn)
    return np.stack([np.broadcast_to(along, grid.size) for along in found])


def index(grid):
    """Voxel offsets from the centre of a grid that is not resized."""
    assert grid.size == grid.patch_size
    axes = [np.arange(size) - (size - 1) / 2 for size in grid.size]
    return np.stack(np.meshgrid(*axes, indexing="ij"))


# Coordinates, by hand.


def test_without_transforms_it_is_the_patch_itself():
    np.testing.assert_array_equal(voxel_coordinates(PLAIN), index(PLAIN))


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirroring_flips_one_axis(axis):
    mirrored = [number == axis for number in range(3)]
    expected = index(PLAIN)
    expected[axis] *= -1
    np.testing.assert_array_equal(voxel_coordinates(PLAIN, mirrored=mirrored), expected)


def test_a_quarter_turn_maps_y_to_x():
    z, y, x = index(PLAIN)
    found = voxel_coordinates(PLAIN, degrees=90)
    np.testing.assert_allclose(found, [z, -x, y], atol=1e-6)


def test_a_quarter_turn_of_thick_slices_is_in_millimetres():
    grid = PatchGrid((3, 5, 9), (3, 5, 9), (5.0, 2.0, 1.0))
    z, y, x = index(grid)
    # A voxel at 4 mm along x comes from 4 mm along y, two voxels.
    found = voxel_coordinates(grid, degrees=90)
    np.testing.assert_allclose(found, [z, -x / 2, y * 2], atol=1e-5)


def test_any_rotation_keeps_distances_in_millimetres():
    spacing = np.array(THICK.spacing_mm)[:, None, None, None]
    still, rotated = voxel_coordinates(THICK), voxel_coordinates(THICK, degrees=37)
    length, expected = (np.linalg.norm(p * spacing, axis=0) for p in (rotated, still))
    np.testing.assert_allclose(length, expected, atol=1e-5)
    assert abs(rotated - still).max() > 1


def test_scale_multiplies_the_field_of_view():
    for grid in (PLAIN, THICK):
        found = voxel_coordinates(grid, scale=1.25)
        np.testing.assert_allclose(found, 1.25 * voxel_coordinates(grid), rtol=1e-6)


def test_displacements_are_in_millimetres_along_each_axis():
    moved = voxel_coordinates(THICK, std_mm=1.5, seed=3) - voxel_coordinates(THICK)
    positions = THICK.positions_mm()
    drawn = make_spatial(THICK, ON, std_mm=1.5, seed=3)
    points = [elastic.lattice(along, ON.elastic_sigma_mm) for along in positions]
    field = elastic.displacements(drawn.noise, positions, points, 11.0, 1.5)
    expected = field / np.array(THICK.spacing_mm)[:, None, None, None]
    np.testing.assert_allclose(moved, expected, atol=1e-5)
    assert abs(moved[0]).max() > 0.01


def test_the_coordinates_include_the_resize():
    old = np.arange(9.0)
    for size in (5, 9, 20):
        grid = PatchGrid((9, 9, 9), (size, 9, 9), (3.0, 1.0, 1.0))
        expected = interpolation_matrix(size, 9, "linear") @ old
        found = voxel_coordinates(grid)[0][:, 0, 0] + 4
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("grid", [PLAIN, THICK])
@pytest.mark.parametrize("seed", [0, 1])
def test_all_transforms_together(grid, seed):
    chosen = {
        "mirrored": (True, False, True),
        "degrees": -123,
        "scale": 0.8,
        "std_mm": 2,
        "sigma_mm": 12.5,
        "seed": seed,
    }
    expected = expected_coordinates(grid, ON, make_spatial(grid, ON, **chosen))
    np.testing.assert_allclose(voxel_coordinates(grid, **chosen), expected, atol=1e-5)


# Extents of the patch.


@pytest.mark.slow
def test_extents_contain_every_coordinate():
    for grid in (PLAIN, THICK, PatchGrid((20, 30, 90), (16, 16, 16), (4.0, 1.0, 0.5))):
        largest = spatial.largest_extent(grid, ALWAYS)

        def extents(seed, grid=grid):
            drawn = spatial.draw_spatial(
                grid, ALWAYS, tf.constant(NOT_MIRRORED), tf.stack([seed, 2])
            )
            found = spatial.coordinates(grid, ALWAYS, drawn)
            reached = [tf.reduce_max(tf.abs(along)) for along in found]
            return spatial.needed_extent(grid, drawn), tf.stack(reached)

        dataset = tf.data.Dataset.range(60).map(extents).batch(60)
        ((needed, reached),) = dataset.as_numpy_iterator()
        assert needed.shape == reached.shape == (60, 3)
        assert np.all(reached <= needed + 1e-4)
        assert np.all(needed <= largest + 1e-4)


@pytest.mark.parametrize("name", ["elastic", "rotation", "scaling"])
def test_the_largest_extent_grows_with_each_transform(name):
    grid = PatchGrid((8, 9, 40), (8, 9, 40), (2.0, 1.0, 1.0))
    nothing = spatial.largest_extent(grid, AugmentationConfig())
    np.testing.assert_allclose(nothing, [3.5, 4, 19.5])
    found = spatial.largest_extent(
        grid, AugmentationConfig(**{f"{name}_probability": 0.1})
    )
    std = elastic.displacement_std(750, 10)
    expected = {
        "elastic": [3.5 + 2 * std, 4 + 4 * std, 19.5 + 4 * std],
        "rotation": [3.5, math.hypot(4, 19.5), math.hypot(4, 19.5)],
        "scaling": [3.5 * 1.25, 5, 19.5 * 1.25],
    }[name]
    np.testing.assert_allclose(found, expected)


def test_the_needed_extent_depends_on_the_draw():
    grid = PatchGrid((8, 9, 40), (8, 9, 40), (2.0, 1.0, 1.0))

    def needed(**chosen):
        return spatial.needed_extent(grid, make_spatial(grid, ON, **chosen))

    np.testing.assert_allclose(needed(), [3.5, 4, 19.5])
    np.testing.assert_allclose(needed(degrees=90), [3.5, 19.5, 4], rtol=1e-5)
    np.testing.assert_allclose(needed(scale=0.8), [2.8, 3.2, 15.6], rtol=1e-6)
    np.testing.assert_allclose(needed(std_mm=0.5), [4.5, 6, 21.5], rtol=1e-6)


# Drawing.


def draws(augmentation, count=2000, mirrored=NOT_MIRRORED):
    def draw(number):
        seed = tf.stack([tf.constant(9, tf.int64), number])
        drawn = spatial.draw_spatial(PLAIN, augmentation, tf.constant(mirrored), seed)
        return drawn._asdict()

    dataset = tf.data.Dataset.range(count).map(draw)
    (found,) = dataset.batch(count).as_numpy_iterator()
    return found


@pytest.fixture(scope="module")
def drawn():
    return draws(ON)


def test_frequency_of_each_transform(drawn):
    happens = {
        "displacement_std_mm": (drawn["displacement_std_mm"] > 0, 0.3),
        "angle": (drawn["angle"] != 0, 0.3),
        "scale": (drawn["scale"] != 1, 0.5),
        # The transforms are independent.
        "moves": (drawn["moves"], 1 - 0.7 * 0.7 * 0.5),
    }
    for name, (found, expected) in happens.items():
        tolerance = 4.5 * math.sqrt(expected * (1 - expected) / len(found))
        assert abs(found.mean() - expected) < tolerance, name
    moves = (drawn["angle"] != 0) | (drawn["scale"] != 1)
    moves |= drawn["displacement_std_mm"] > 0
    np.testing.assert_array_equal(drawn["moves"], moves)


def assert_uniform(values, low, high):
    assert low <= values.min() < low + 0.02 * (high - low)
    assert high - 0.02 * (high - low) < values.max() <= high
    tolerance = 4.5 * (high - low) / math.sqrt(12 * len(values))
    assert abs(values.mean() - (low + high) / 2) < tolerance


def test_ranges_of_each_transform(drawn):
    assert_uniform(drawn["angle"][drawn["angle"] != 0], -math.pi, math.pi)
    assert_uniform(drawn["scale"][drawn["scale"] != 1], 0.75, 1.25)
    assert_uniform(drawn["elastic_sigma_mm"], 10, 13)
    deformed = drawn["displacement_std_mm"] > 0
    sigma = drawn["elastic_sigma_mm"][deformed]
    one = elastic.displacement_std(1, sigma)
    assert_uniform(drawn["displacement_std_mm"][deformed] / one, 0, 750)
    assert drawn["noise"].std() == pytest.approx(1, abs=0.01)


@pytest.mark.parametrize(
    ("name", "values", "key", "limits"),
    [
        ("rotation_degrees", (10.0, 20.0), "angle", np.radians([10, 20])),
        ("scale", (1.1, 1.4), "scale", (1.1, 1.4)),
        ("elastic_sigma_mm", (4.0, 5.0), "elastic_sigma_mm", (4, 5)),
    ],
)
def test_ranges_are_used(name, values, key, limits):
    found = draws(ALWAYS.with_changes(**{name: values}), 300)[key]
    assert_uniform(found, *limits)


def test_alpha_is_used():
    chosen = ALWAYS.with_changes(
        elastic_alpha=(100.0, 100.0), elastic_sigma_mm=(5.0, 5.0)
    )
    found = draws(chosen, 3)["displacement_std_mm"]
    np.testing.assert_allclose(found, elastic.displacement_std(100, 5), rtol=1e-6)


@pytest.mark.parametrize("name", ["elastic", "rotation", "scaling"])
def test_a_transform_with_probability_0_never_happens(name):
    chosen = ALWAYS.with_changes(**{f"{name}_probability": 0})
    found = draws(chosen, 100)
    key, none = {
        "elastic": ("displacement_std_mm", 0),
        "rotation": ("angle", 0),
        "scaling": ("scale", 1),
    }[name]
    assert (found[key] == none).all()


def test_nothing_is_drawn_for_a_deformation_with_probability_0():
    """The other draws and the coordinates stay the same, at any spacing."""
    grid = PatchGrid((5, 7, 7), (5, 7, 7), (100.0, 100.0, 1.0))
    chosen = AugmentationConfig(rotation_probability=1, scaling_probability=1)
    rarely = chosen.with_changes(elastic_probability=1e-9)
    seed = tf.constant([9, 3], tf.int64)

    def draw(augmentation):
        mirrored = tf.constant((False, True, False))
        return spatial.draw_spatial(grid, augmentation, mirrored, seed)

    found, expected = draw(chosen), draw(rarely)
    assert found.noise.shape == (3, 0, 0, 0)
    assert expected.noise.shape == spatial.elastic_noise_shape(grid, rarely)
    assert expected.noise.shape[1] == 49
    for name in set(found._fields) - {"noise"}:
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    np.testing.assert_array_equal(
        spatial.coordinates(grid, chosen, found),
        spatial.coordinates(grid, rarely, expected),
    )


def test_mirroring_is_passed_on():
    found = draws(ON, 3, mirrored=(False, True, False))["mirrored"]
    np.testing.assert_array_equal(found, [[False, True, False]] * 3)


def test_draws_depend_only_on_the_seed_inside_and_outside_a_dataset(drawn):
    again = draws(ON, 20)
    for number in range(20):
        seed = tf.constant([9, number], tf.int64)
        outside = spatial.draw_spatial(
            PLAIN, ON, tf.constant(NOT_MIRRORED), seed
        )._asdict()
        for key, value in outside.items():
            np.testing.assert_array_equal(value, again[key][number])
            np.testing.assert_array_equal(value, drawn[key][number])
    assert len(np.unique(drawn["elastic_sigma_mm"])) > 1900
