import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf
from expected_warp import (
    expected_coordinates,
    expected_image,
    expected_labels,
    make_spatial,
)

from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.errors import InputError
from u2net_tf.input import cropping
from u2net_tf.input.augmentation import mirroring, warp
from u2net_tf.input.augmentation.spatial import PatchGrid
from u2net_tf.networks.ops.resizing import resize_image, resize_labels

ON = AugmentationConfig(
    elastic_probability=1, rotation_probability=1, scaling_probability=1
)
SHAPE = (14, 18, 16)
THICK = PatchGrid((6, 9, 8), (8, 9, 12), (3.0, 1.0, 1.5))
METHODS = ("linear", "cubic")
# Cubic interpolation takes long to compile: by default, a single test covers it.
QUICK_METHODS = ("linear", pytest.param("cubic", marks=pytest.mark.slow))


def make_fields(shape=SHAPE, channels=2, dtype=np.float32, seed=0):
    generator = np.random.default_rng(seed)
    image = generator.uniform(-1, 1, (*shape, channels)).astype(dtype)
    return {
        "image": tf.constant(image),
        "labels": tf.constant(generator.integers(0, 5, shape).astype(np.uint8)),
    }


@functools.lru_cache
def made(grid, method):
    """Cached, because compiling takes most of the time of these tests."""
    return warp.Warp(grid, ON, method)


def crop_and_warp(fields, warped, patch_size, start, drawn):
    shape = tf.shape(fields["labels"])
    first = cropping.first_voxel(tf.constant(start), shape, patch_size)
    box = cropping.crop_box(
        fields, warped.box_start(first), warped.box_size, warped.unused_margin(drawn)
    )
    return warped(*box, drawn)


def run(fields, grid, method, start, **chosen):
    drawn = make_spatial(grid, ON, **chosen)
    return crop_and_warp(fields, made(grid, method), grid.patch_size, start, drawn)


def centre(shape, grid, start):
    """Centre of the patch in voxels of the volume, before a short volume is padded."""
    before = np.maximum(np.array(grid.patch_size) - shape, 0) // 2
    return np.array(start) - before + (np.array(grid.patch_size) - 1) / 2


def expect(fields, grid, method, start, **chosen):
    coordinates = expected_coordinates(grid, ON, make_spatial(grid, ON, **chosen))
    shape = fields["labels"].shape.as_list()
    coordinates = coordinates + centre(shape, grid, start)[:, None, None, None]
    image = expected_image(fields["image"].numpy(), coordinates, method)
    return image, expected_labels(fields["labels"].numpy(), coordinates), coordinates


CHOICES = (
    {"degrees": 33.0},
    {"scale": 1.23},
    {"scale": 0.77},
    {"std_mm": 1.5, "sigma_mm": 12.0},
    {
        "degrees": -140.0,
        "scale": 0.9,
        "std_mm": 2.0,
        "mirrored": (True, False, True),
    },
)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("chosen", CHOICES, ids=str)
def test_is_scipys_interpolation_at_the_coordinates(method, chosen):
    fields = make_fields()
    for start in ((4, 5, 4), (0, 9, 8)):
        image, labels = run(fields, THICK, method, start, **chosen)
        expected, nearest, coordinates = expect(fields, THICK, method, start, **chosen)
        assert image.dtype == tf.float32
        assert labels.dtype == tf.uint8
        np.testing.assert_allclose(image, expected, atol=1e-5)
        # Rounding decides halfway between two voxels.
        clear = (abs(coordinates % 1 - 0.5) > 1e-4).all(axis=0)
        assert clear.mean() > 0.5
        np.testing.assert_array_equal(labels.numpy()[clear], nearest[clear])


@pytest.mark.parametrize("method", QUICK_METHODS)
def test_identity_is_exactly_the_patch(method):
    fields = make_fields()
    grid = PatchGrid((6, 9, 8), (6, 9, 8), (3.0, 1.0, 1.5))
    for start in ((4, 5, 4), (0, 0, 0), (8, 9, 8)):
        image, labels = run(fields, grid, method, start)
        expected = cropping.crop_patch(fields, tf.constant(start), grid.patch_size)
        np.testing.assert_array_equal(image, expected[0])
        np.testing.assert_array_equal(labels, expected[1])


@pytest.mark.parametrize("method", QUICK_METHODS)
@pytest.mark.parametrize("mirrored", [(False, False, False), (True, False, True)])
def test_without_movement_it_is_cropped_mirrored_and_resized(method, mirrored):
    """The steps for a patch for which no transform is drawn."""
    fields = make_fields()
    # With these sizes no voxel is halfway between two, where mirroring would matter.
    grid = PatchGrid((6, 9, 8), (8, 13, 16), (3.0, 1.0, 1.5))
    start = tf.constant((4, 5, 4))
    found, found_labels = run(fields, grid, method, start, mirrored=mirrored)
    image, labels = cropping.crop_patch(fields, start, grid.patch_size)
    image = mirroring.apply_mirroring(image, tf.constant(mirrored))
    labels = mirroring.apply_mirroring(labels, tf.constant(mirrored))
    image = resize_image(image[None], grid.size, method=method)[0]
    labels = resize_labels(labels[None], grid.size)[0]
    if method == "cubic":
        # At the border, one repeats the outermost voxels of the patch, and the other
        # uses voxels of the volume.
        image, found = image[2:-2, 2:-2, 3:-3], found[2:-2, 2:-2, 3:-3]
    np.testing.assert_allclose(found, image, atol=1e-5)
    np.testing.assert_array_equal(found_labels, labels)


@pytest.mark.parametrize("method", QUICK_METHODS)
def test_a_ramp_stays_a_ramp(method):
    """Interpolation of a linear function is exact and shows the coordinates."""
    z, y, x = np.meshgrid(*map(np.arange, SHAPE), indexing="ij")
    ramps = np.stack([z, y, x], axis=-1).astype(np.float32)
    fields = make_fields() | {"image": tf.constant(ramps)}
    grid = PatchGrid((3, 5, 5), (3, 5, 5), (3.0, 1.0, 2.0))
    chosen = {"degrees": 30, "scale": 1.1, "std_mm": 0.4}
    image, _ = run(fields, grid, method, (5, 6, 5), **chosen)
    *_, coordinates = expect(fields, grid, method, (5, 6, 5), **chosen)
    np.testing.assert_allclose(
        np.moveaxis(image.numpy(), -1, 0), coordinates, atol=2e-5
    )


def test_an_impulse_by_hand():
    """One bright voxel, 2 mm along y from the centre, voxels 2 mm wide along x."""
    image = np.zeros((5, 11, 11, 1), np.float32)
    image[2, 7, 5] = 1
    labels = (image[..., 0] * 3).astype(np.uint8)
    fields = {"image": tf.constant(image), "labels": tf.constant(labels)}
    grid = PatchGrid((1, 7, 7), (1, 7, 7), (1.0, 1.0, 2.0))
    # Without movement: two voxels along y from the centre 3, 3.
    found, _ = run(fields, grid, "linear", (2, 2, 2))
    assert np.argwhere(found[0, ..., 0]).tolist() == [[5, 3]]
    # A quarter turn: 2 mm along -x or x, which is one voxel; along y it is now as wide
    # as voxels are along x, and has half the intensity at 1 mm from its centre.
    found, found_labels = run(fields, grid, "linear", (2, 2, 2), degrees=-90)
    expected = np.zeros((7, 7))
    expected[3, 4] = 1
    expected[[2, 4], 4] = 0.5
    np.testing.assert_allclose(found[0, ..., 0], expected, atol=1e-5)
    assert found_labels[0, 3, 4] == 3
    found, _ = run(fields, grid, "linear", (2, 2, 2), degrees=90)
    np.testing.assert_allclose(found[0, ..., 0], expected[:, ::-1], atol=1e-5)
    # 1.25 times the extent: 2 mm of the volume are 1.6 mm of the patch; voxels at 1.25
    # and 2.5 mm are 0.75 and 0.5 mm away.
    found, _ = run(fields, grid, "linear", (2, 2, 2), scale=1.25)
    np.testing.assert_allclose(found[0, 4:6, 3, 0], [0.25, 0.5], atol=1e-5)


def test_padding_is_the_minimum_of_each_modality_and_background():
    fields = make_fields((6, 9, 8))
    fields["labels"] = tf.ones((6, 9, 8), tf.uint8)
    grid = PatchGrid((6, 9, 8), (6, 9, 8), (3.0, 1.0, 1.5))
    image, labels = run(fields, grid, "linear", (0, 0, 0), scale=1.25, degrees=45)
    lowest = fields["image"].numpy().min(axis=(0, 1, 2))
    assert lowest[0] != lowest[1]
    np.testing.assert_allclose(image[0, 0, 0], lowest, rtol=1e-6)
    assert labels[0, 0, 0] == 0
    assert labels[3, 4, 4] == 1


@pytest.mark.parametrize("method", QUICK_METHODS)
@pytest.mark.parametrize("shape", [(2, 9, 3), (3, 2, 30), (1, 1, 1)])
def test_a_volume_shorter_than_the_patch(method, shape):
    fields = make_fields(shape)
    grid = PatchGrid((6, 9, 8), (6, 9, 8), (3.0, 1.0, 1.5))
    start = (0, 0, 5 if shape[2] > 8 else 0)
    still, still_labels = run(fields, grid, method, start)
    expected = cropping.crop_patch(fields, tf.constant(start), grid.patch_size)
    np.testing.assert_array_equal(still, expected[0])
    np.testing.assert_array_equal(still_labels, expected[1])
    chosen = {"degrees": 20, "scale": 1.2, "std_mm": 1}
    image, labels = run(fields, grid, method, start, **chosen)
    expected, nearest, coordinates = expect(fields, grid, method, start, **chosen)
    np.testing.assert_allclose(image, expected, atol=1e-5)
    clear = (abs(coordinates % 1 - 0.5) > 1e-4).all(axis=0)
    np.testing.assert_array_equal(labels.numpy()[clear], nearest[clear])


def test_labels_are_never_invented():
    fields = make_fields()
    fields["labels"] = fields["labels"] // 4 * 200
    for seed in range(5):
        chosen = {"degrees": 50 * seed, "scale": 0.8, "std_mm": 2, "seed": seed}
        _, labels = run(fields, THICK, "cubic", (4, 5, 4), **chosen)
        assert set(np.unique(labels)) <= {0, 200}


@pytest.mark.parametrize("method", QUICK_METHODS)
def test_half_precision_is_read_exactly_and_returned_as_float32(method):
    fields = make_fields(dtype=np.float16)
    single = fields | {"image": tf.cast(fields["image"], tf.float32)}
    found, _ = run(fields, THICK, method, (4, 5, 4), degrees=30)
    expected, _ = run(single, THICK, method, (4, 5, 4), degrees=30)
    assert found.dtype == tf.float32
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.slow
def test_shapes_are_static_and_values_the_same_inside_a_dataset():
    fields = make_fields()
    crop = functools.partial(
        crop_and_warp, warped=made(THICK, "linear"), patch_size=THICK.patch_size
    )
    drawn = make_spatial(THICK, ON, degrees=30)

    def augment(degrees):
        rotated = drawn._replace(angle=degrees)
        unknown_shapes = {
            key: tf.raw_ops.PlaceholderWithDefault(input=value, shape=shape)
            for (key, value), shape in zip(
                fields.items(), ([None, None, None, 2], [None] * 3), strict=True
            )
        }
        return crop(unknown_shapes, start=(4, 5, 4), drawn=rotated)

    angles = tf.constant([0.3, 2.0])
    dataset = tf.data.Dataset.from_tensor_slices(angles).map(augment)
    image_spec, labels_spec = dataset.element_spec
    assert image_spec.shape == (*THICK.size, 2)
    assert labels_spec.shape == THICK.size
    for angle, (image, labels) in zip(angles, dataset, strict=True):
        outside = crop(fields, start=(4, 5, 4), drawn=drawn._replace(angle=angle))
        np.testing.assert_array_equal(image, outside[0])
        np.testing.assert_array_equal(labels, outside[1])


def test_method_is_checked():
    with pytest.raises(ValueError, match="method: expected one of .*'nearest'"):
        warp.Warp(THICK, ON, "nearest")


def test_a_box_that_exceeds_the_memory_is_refused():
    """Its size is checked before anything is allocated."""
    much = AugmentationConfig(elastic_probability=1, elastic_alpha=(0, 1e6))
    with pytest.raises(
        InputError, match="`elastic_alpha`.*at most 536870912 voxels. Received: "
    ):
        warp.Warp(THICK, much, "linear")
    grid = PatchGrid((600, 600, 600), (600, 600, 600), (1.0, 1.0, 1.0))
    scaled = AugmentationConfig(scaling_probability=1, scale=(1, 1.4))
    # 599 · 1.4 = 838.6 between the outermost voxels, rounded up, plus neighbours.
    with pytest.raises(InputError, match=r"Received: \d{9}, a box of \(844, 844, 84"):
        warp.Warp(grid, scaled, "linear")
    warp.Warp(grid, AugmentationConfig(scaling_probability=1), "linear")


def test_a_lattice_that_exceeds_the_memory_is_refused():
    """Its size is checked before anything is drawn."""
    grid = PatchGrid((128, 128, 128), (128, 128, 128), (2.5, 2.5, 2.5))
    # (127 · 2.5 + 6 · 10) mm, rounded up, plus one.
    with pytest.raises(
        InputError,
        match="`elastic_sigma_mm`: .* at most 33554432 random numbers. Received: "
        rf"{3 * 379**3}, three lattices of \(379, 379, 379\) points 1 mm apart",
    ):
        warp.Warp(
            grid,
            AugmentationConfig(elastic_probability=0.3, elastic_sigma_mm=(1, 10)),
            "linear",
        )
    # Lattices of 190³ points.
    warp.Warp(
        grid,
        AugmentationConfig(elastic_probability=0.3, elastic_sigma_mm=(2, 10)),
        "linear",
    )


def test_a_box_is_no_larger_than_possible_draws_need():
    """A patch that is only scaled does not need the box of a rotation."""
    grid = dataclasses.replace(THICK, spacing_mm=(1.0, 1.0, 1.0))

    def box_size(name, method="linear"):
        chosen = AugmentationConfig(**{f"{name}_probability": 1})
        return warp.Warp(grid, chosen, method).box_size

    # Half extents 2.5, 4, 3.5 times 1.25, or the diagonal 5.3, rounded up (5 to 6, to
    # allow for rounding errors), plus a neighbour on each side.
    assert box_size("scaling") == (12, 16, 14)
    assert box_size("rotation") == (10, 16, 16)
    assert box_size("rotation", "cubic") == (12, 18, 18)


def test_unneeded_voxels_are_not_used():
    grid = dataclasses.replace(THICK, spacing_mm=(1.0, 1.0, 1.0))
    warped = warp.Warp(grid, ON, "linear")
    still = warped.unused_margin(make_spatial(grid, ON))
    large = warped.unused_margin(make_spatial(grid, ON, scale=1.25))
    # 2.5, 4 and 3.5 voxels to each side, or 3.1, 5 and 4.4, rounded up: to allow for
    # rounding errors, 4 to 5 and 5 to 6.
    np.testing.assert_array_equal(still - large, [1, 1, 1])
