import dataclasses
import functools

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.input import cropping
from u2net_tf.input.augmentation import intensity, mirroring, spatial
from u2net_tf.input.augmentation.warp import Warp
from u2net_tf.input.patch_transform import make_patch_transform
from u2net_tf.networks.ops.resizing import resize_image, resize_labels
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.labels import Label

DOMAIN = Domain(
    name="Task90_Thick",
    raw_dir="raw",
    modalities=("T2", "ADC"),
    labels=(Label("background", (0,)), Label("organ", (1,))),
    spacing_mm=(3.0, 1.0, 1.5),
    median_shape=(10, 14, 12),
    patch_size=(6, 9, 8),
    pools=(1, 0, 1),
    batch_size=2,
    mirror_axes=("z", "x"),
)
SIZE = (8, 9, 12)
START = (2, 3, 1)
MOVING = AugmentationConfig(
    elastic_probability=0.3, rotation_probability=0.3, scaling_probability=0.3
)
CHANGING = AugmentationConfig(noise_probability=0.5, gamma_probability=0.5)


@functools.cache
def make_fields():
    generator = np.random.default_rng(0)
    image = generator.uniform(-1, 1, (10, 14, 12, 2)).astype(np.float16)
    labels = generator.integers(0, 2, image.shape[:3]).astype(np.uint8)
    return {"image": tf.constant(image), "labels": tf.constant(labels)}


@pytest.fixture(scope="module")
def fields():
    return make_fields()


@functools.cache
def warped_patches(method="linear"):
    """Patches, some of them warped; cached, because warping takes long to compile."""
    return run(make_fields(), MOVING, method=method)


def run(fields, augmentation, count=6, *, method="linear", probability=0.5, size=SIZE):
    """Patches for `count` seeds, made inside tf.data."""
    augmentation = augmentation.with_changes(mirror_probability=probability)
    transform = make_patch_transform(
        DOMAIN, size, method=method, augmentation=augmentation
    )

    def make(number):
        seed = tf.stack([tf.constant(4, tf.int64), number])
        mirror = tf.random.split(seed, 2)[1]
        return transform(fields, tf.constant(START), mirror, seed)

    dataset = tf.data.Dataset.range(count).map(make)
    image, labels = dataset.element_spec
    assert image == tf.TensorSpec((*size, 2), tf.float32)
    assert labels == tf.TensorSpec(size, tf.uint8)
    return list(dataset.as_numpy_iterator())


def seeds_of(number):
    seed = tf.constant([4, number], tf.int64)
    return seed, tf.random.split(seed, 2)[1]


def without_augmentation(
    fields, number, *, method="linear", probability=0.5, size=SIZE
):
    """The patch for a seed, only cropped, mirrored and resized."""
    _, mirror = seeds_of(number)
    mirrored = mirroring.draw_mirroring(DOMAIN.mirror_axes, probability, mirror)
    image, labels = cropping.crop_patch(fields, tf.constant(START), DOMAIN.patch_size)
    image = mirroring.apply_mirroring(tf.cast(image, tf.float32), mirrored)
    labels = mirroring.apply_mirroring(labels, mirrored)
    image = resize_image(image[None], size, method=method)[0]
    return image.numpy(), resize_labels(labels[None], size)[0].numpy()


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("method", ["linear", "cubic"])
@pytest.mark.parametrize("probability", [0.0, 0.5, 1.0])
def test_without_augmentation_it_is_cropped_mirrored_and_resized(
    fields, method, probability
):
    options = {"method": method, "probability": probability}
    found = run(fields, AugmentationConfig(), 4, **options)
    for number, patch in enumerate(found):
        assert_same(patch, without_augmentation(fields, number, **options))


@pytest.mark.parametrize(
    "method", ["linear", pytest.param("cubic", marks=pytest.mark.slow)]
)
def test_patches_without_movement_are_cropped_and_others_warped(fields, method):
    grid = spatial.PatchGrid(DOMAIN.patch_size, SIZE, DOMAIN.spacing_mm)
    warped = Warp(grid, MOVING, method)
    moved = []
    for number, patch in enumerate(warped_patches(method)):
        seed, mirror = seeds_of(number)
        mirrored = mirroring.draw_mirroring(DOMAIN.mirror_axes, 0.5, mirror)
        drawn = spatial.draw_spatial(
            grid, MOVING, mirrored, tf.random.fold_in(seed, tf.constant(1, tf.int64))
        )
        moved.append(bool(drawn.moves))
        expected = without_augmentation(fields, number, method=method)
        if moved[-1]:
            assert np.abs(patch[0] - expected[0]).max() > 1e-3
            first = tf.constant(START)
            box = cropping.crop_box(fields, warped.box_start(first), warped.box_size)
            expected = warped(*box, drawn)
        assert_same(patch, expected)
    assert 0 < sum(moved) < len(moved)


@pytest.mark.slow
def test_intensities_change_after_voxels_have_moved(fields):
    both = MOVING.with_changes(noise_probability=0.5, gamma_probability=0.5)
    plain = warped_patches()
    for number, (image, labels) in enumerate(run(fields, both)):
        seed, _ = seeds_of(number)
        changes = intensity.draw_intensity(
            2, both, tf.random.fold_in(seed, tf.constant(2, tf.int64))
        )
        expected = intensity.apply_intensity(plain[number][0], both, changes)
        np.testing.assert_allclose(image, expected, atol=1e-5)
        np.testing.assert_array_equal(labels, plain[number][1])


def test_intensities_change_without_movement(fields):
    plain = run(fields, AugmentationConfig())
    changed = run(fields, CHANGING)
    same = [np.array_equal(a[0], b[0]) for a, b in zip(plain, changed, strict=True)]
    assert 0 < sum(same) < len(same)


def test_without_a_resize(fields):
    found = run(fields, AugmentationConfig(), 2, size=DOMAIN.patch_size)
    for number, patch in enumerate(found):
        assert_same(patch, without_augmentation(fields, number, size=DOMAIN.patch_size))


# The path of patches that do not move, and the single interpolation of the others.
AUGMENTATIONS = {
    "cropped": AugmentationConfig(mirror_probability=1),
    "warped": AugmentationConfig(
        mirror_probability=1, scaling_probability=1, scale=(1.0, 1.0)
    ),
}


def make_patch(image, labels, patch_size, size, start, *, method, path):
    """A patch of `DOMAIN`, always mirrored along x only."""
    domain = dataclasses.replace(
        DOMAIN,
        patch_size=patch_size,
        mirror_axes=("x",),
        # Converted exactly to millimetres and back: labels are halfway between voxels.
        spacing_mm=(2.0, 1.0, 4.0),
    )
    transform = make_patch_transform(
        domain, size, method=method, augmentation=AUGMENTATIONS[path]
    )
    fields = {
        "image": tf.constant(np.stack(image, axis=-1), tf.float16),
        "labels": tf.constant(labels, tf.uint8),
    }
    image, labels = transform(fields, tf.constant(start), *seeds_of(0)[::-1])
    return image.numpy(), labels.numpy()


@pytest.mark.parametrize("path", AUGMENTATIONS)
def test_a_mirrored_and_resized_ramp_by_hand(path):
    """Voxels encode their position; half as many along z, twice as many along x."""
    z, y, x = np.indices((9, 6, 8))
    found, labels = make_patch(
        (10 * z + x, y),
        10 * z + x,
        patch_size=(4, 3, 4),
        size=(2, 3, 8),
        start=(2, 1, 1),
        method="linear",
        path=path,
    )
    # Slices 2 and 3 are merged, and 4 and 5; voxels 1 to 4 along x are reversed and
    # sampled a quarter off their centres, the outermost without leaving the patch.
    row = [29, 28.75, 28.25, 27.75, 27.25, 26.75, 26.25, 26]
    expected = [[row] * 3, [[value + 20 for value in row]] * 3]
    np.testing.assert_allclose(found[..., 0], expected, atol=1e-4)
    expected = [[[1] * 8, [2] * 8, [3] * 8]] * 2
    np.testing.assert_allclose(found[..., 1], expected, atol=1e-5)
    # If two slices are at the same distance, the later one is used.
    row = [34, 34, 33, 33, 32, 32, 31, 31]
    expected = [[row] * 3, [[value + 20 for value in row]] * 3]
    np.testing.assert_array_equal(labels, expected)


@pytest.mark.parametrize("path", AUGMENTATIONS)
def test_a_cubic_impulse_between_voxels_by_hand(path):
    """Keys' cubic halfway between voxels: -1/16, 9/16, 9/16, -1/16."""
    impulse = np.zeros((10, 3, 12))
    # Voxel 4 of 8 along z and 3 of 8 along x of the patch, which mirroring maps to 4.
    impulse[5, 2, 6] = 256
    found, _ = make_patch(
        (impulse, -impulse),
        np.zeros(impulse.shape),
        patch_size=(8, 1, 8),
        size=(4, 1, 4),
        start=(1, 2, 3),
        method="cubic",
        path=path,
    )
    # Half as many voxels are at 0.5, 2.5, 4.5 and 6.5.
    expected = [[0, 0, 0, 0], [0, 1, -9, 0], [0, -9, 81, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(found[:, 0, :, 0], expected, atol=1e-3)
    np.testing.assert_allclose(-found[:, 0, :, 1], expected, atol=1e-3)
