import math

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.input.augmentation import intensity
from u2net_tf.interpolation.matrices import interpolation_matrix

SIZE = (9, 12, 10)
# Name of the probability, of the range, of what is drawn, and what means none.
PARTS = (
    ("blur", "blur_sigma_voxels", "blur_sigma_voxels", 0),
    ("brightness", "brightness", "brightness", 1),
    ("contrast", "contrast", "contrast", 1),
    ("low_resolution", "low_resolution_zoom", "zoom", 1),
    ("gamma_inverted", "gamma", "gamma_inverted", 1),
    ("gamma", "gamma", "gamma", 1),
)
ALL = tuple(part[0] for part in PARTS)


def switched_on(*names, probability=1.0, **ranges):
    chances = {f"{name}_probability": probability for name in names}
    return AugmentationConfig(**chances, **ranges)


def make_image(channels=2, seed=0, size=SIZE):
    generator = np.random.default_rng(seed)
    return generator.normal(1, 2, (*size, channels)).astype(np.float32)


def make_drawn(channels=2, **chosen):
    """What `draw_intensity` returns, chosen; the other parts do nothing."""
    drawn = intensity.draw_intensity(
        channels, AugmentationConfig(), tf.constant([1, 2])
    )
    return drawn._replace(
        **{key: tf.constant(value, tf.float32) for key, value in chosen.items()}
    )


# Each change, against float64.


def test_noise_has_the_standard_deviation_and_is_the_seed_s():
    image = tf.constant(make_image(size=(20, 30, 40)))
    seed = tf.constant([3, 4])
    noise = intensity.apply_noise(image, tf.constant(0.3), seed) - image
    assert np.std(noise) == pytest.approx(0.3, rel=0.02)
    assert abs(np.mean(noise)) < 0.01
    # Not the same in both modalities.
    assert (
        abs(np.corrcoef(noise[..., 0].numpy().flat, noise[..., 1].numpy().flat)[0, 1])
        < 0.05
    )
    again = intensity.apply_noise(image, tf.constant(0.3), seed) - image
    np.testing.assert_array_equal(noise, again)
    other = intensity.apply_noise(image, tf.constant(0.3), tf.constant([3, 5])) - image
    assert np.any(noise != other)


@pytest.mark.parametrize("sigma", [0.5, 0.83, 1.0])
@pytest.mark.parametrize("largest", [1.0, 2.0])
def test_blur_is_scipys(sigma, largest):
    plane = make_image()[..., 0]
    expected = scipy.ndimage.gaussian_filter(
        plane.astype(np.float64), sigma, mode="reflect", radius=math.ceil(4 * largest)
    )
    found = intensity.apply_blur(
        tf.constant(plane), tf.constant(sigma), largest=largest
    )
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_blur_of_a_patch_shorter_than_the_gaussian():
    plane = make_image(size=(3, 1, 5))[..., 0]
    expected = scipy.ndimage.gaussian_filter(
        plane.astype(np.float64), 1.0, mode="reflect", radius=4
    )
    found = intensity.apply_blur(tf.constant(plane), tf.constant(1.0), largest=1.0)
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_contrast_stretches_about_the_mean_within_the_range():
    plane = make_image()[..., 0].astype(np.float64)
    for factor in (0.75, 1.25):
        expected = np.clip(
            (plane - plane.mean()) * factor + plane.mean(), plane.min(), plane.max()
        )
        found = intensity.apply_contrast(
            tf.constant(plane, tf.float32), tf.constant(factor)
        )
        np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.max(found) == np.float32(plane.max())


@pytest.mark.parametrize("exponent", [0.7, 1.0, 1.5])
def test_gamma_keeps_mean_and_deviation(exponent):
    plane = make_image()[..., 0].astype(np.float64)
    powers = ((plane - plane.min()) / np.ptp(plane)) ** exponent
    expected = (powers - powers.mean()) / powers.std() * plane.std() + plane.mean()
    found = intensity.apply_gamma(tf.constant(plane, tf.float32), tf.constant(exponent))
    np.testing.assert_allclose(found, expected, atol=2e-5)
    if exponent == 1:
        np.testing.assert_allclose(found, plane, atol=1e-5)


def test_gamma_of_a_constant_is_the_constant():
    plane = tf.fill(SIZE, 3.0)
    found = intensity.apply_gamma(plane, tf.constant(0.7))
    np.testing.assert_array_equal(found, plane)


@pytest.mark.parametrize("zoom", [0.5, 0.62, 0.9, 0.05])
def test_low_resolution_takes_the_nearest_voxels_and_cubics_between(zoom):
    plane = make_image()[..., 0]
    expected = plane.astype(np.float64)
    for axis, size in enumerate(SIZE):
        coarse = max(1, round(size * zoom))
        taken = np.floor((np.arange(coarse) + 0.5) * size / coarse).astype(int)
        matrix = interpolation_matrix(size, coarse, "cubic")
        small = np.take(expected, taken, axis)
        expected = np.moveaxis(np.tensordot(matrix, small, (1, axis)), 0, axis)
    found = intensity.apply_low_resolution(tf.constant(plane), tf.constant(zoom))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_no_zoom_is_the_image():
    plane = tf.constant(make_image()[..., 0])
    found = intensity.apply_low_resolution(plane, tf.constant(1.0))
    np.testing.assert_allclose(found, plane, atol=1e-5)


# All of them, for each modality, in their order.


def one_by_one(plane, values):
    """The changes in their order, by the functions that are tested above."""
    plane = intensity.apply_blur(plane, values["blur_sigma_voxels"], largest=1.0)
    plane = plane * values["brightness"]
    plane = intensity.apply_contrast(plane, values["contrast"])
    plane = intensity.apply_low_resolution(plane, values["zoom"])
    plane = -intensity.apply_gamma(-plane, values["gamma_inverted"])
    return intensity.apply_gamma(plane, values["gamma"])


CHOSEN = {
    "blur_sigma_voxels": (0.6, 0.9),
    "brightness": (0.8, 1.2),
    "contrast": (1.2, 0.8),
    "zoom": (0.6, 0.7),
    "gamma_inverted": (1.3, 0.8),
    "gamma": (0.75, 1.4),
}


def test_every_modality_has_its_own_and_the_order_is_fixed():
    image = tf.constant(make_image())
    drawn = make_drawn(noise_std=0.2, **CHOSEN)
    found = intensity.apply_intensity(image, switched_on("noise", *ALL), drawn)
    noisy = intensity.apply_noise(image, drawn.noise_std, drawn.noise_seed)
    for channel in range(2):
        values = {key: tf.constant(both[channel]) for key, both in CHOSEN.items()}
        expected = one_by_one(noisy[..., channel], values)
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


@pytest.mark.parametrize(("name", "_", "key", "none"), PARTS)
def test_a_part_changes_only_the_modality_that_it_is_drawn_for(name, _, key, none):
    image = tf.constant(make_image())
    values = (none, CHOSEN[key][1])
    drawn = make_drawn(**{key: values})
    found = intensity.apply_intensity(image, switched_on(name), drawn)
    np.testing.assert_array_equal(found[..., 0], image[..., 0])
    assert np.abs(found[..., 1] - image[..., 1]).max() > 0.01
    # A part without a probability is not even there.
    found = intensity.apply_intensity(image, AugmentationConfig(), drawn)
    assert found is image


def test_noise_that_is_not_drawn_changes_nothing():
    image = tf.constant(make_image())
    drawn = make_drawn(noise_std=0.0)
    found = intensity.apply_intensity(image, switched_on("noise"), drawn)
    np.testing.assert_array_equal(found, image)


def test_the_inverted_gamma_is_that_of_the_inverted_image():
    """It stretches the other end of the range."""
    plane = tf.reshape(tf.linspace(0.0, 1.0, 1000), (10, 10, 10))
    drawn = make_drawn(1, gamma_inverted=(1.5,))
    found = intensity.apply_intensity(
        plane[..., None], switched_on("gamma_inverted"), drawn
    )
    share = np.linspace(0, 1, 1000)
    powers = -((1 - share) ** 1.5)
    expected = (powers - powers.mean()) / powers.std() * share.std() + 0.5
    np.testing.assert_allclose(tf.reshape(found, -1), expected, atol=1e-5)


# Drawing.


def draws(augmentation, count=1500, channels=2):
    def draw(number):
        seed = tf.stack([tf.constant(8, tf.int64), number])
        return intensity.draw_intensity(channels, augmentation, seed)._asdict()

    dataset = tf.data.Dataset.range(count).map(draw)
    (found,) = dataset.batch(count).as_numpy_iterator()
    return found


@pytest.fixture(scope="module")
def drawn():
    return draws(switched_on("noise", *ALL, probability=0.3))


def assert_share(hits, share):
    tolerance = 4.5 * math.sqrt(share * (1 - share) / len(hits))
    assert abs(hits.mean() - share) < tolerance


def assert_uniform(values, low, high):
    assert low <= values.min() < low + 0.03 * (high - low)
    assert high - 0.03 * (high - low) < values.max() <= high
    tolerance = 4.5 * (high - low) / math.sqrt(12 * len(values))
    assert abs(values.mean() - (low + high) / 2) < tolerance


@pytest.mark.parametrize(("_", "limits", "key", "none"), PARTS)
def test_how_often_and_how_much(drawn, _, limits, key, none):
    happens = drawn[key] != none
    for channel in range(2):
        assert_share(happens[:, channel], 0.3)
    # Each modality for itself.
    assert_share(happens.all(axis=1), 0.09)
    assert_uniform(drawn[key][happens], *getattr(AugmentationConfig(), limits))


def test_how_often_and_how_much_noise(drawn):
    happens = drawn["noise_std"] > 0
    assert_share(happens, 0.3)
    assert_uniform(drawn["noise_std"][happens] ** 2, 0, 0.1)
    assert len(np.unique(drawn["noise_seed"], axis=0)) == len(happens)


def test_parts_are_drawn_independently(drawn):
    keys = [part[2] for part in PARTS]
    happens = [drawn[key][:, 0] != none for (*_, key, none) in PARTS]
    happens.append(drawn["noise_std"] > 0)
    correlation = np.corrcoef(happens) - np.eye(len(happens))
    assert np.abs(correlation).max() < 4.5 / math.sqrt(len(happens[0])), keys


@pytest.mark.parametrize(("name", "limits", "key", "_"), PARTS)
def test_ranges_and_probabilities_are_each_their_own(name, limits, key, _):
    chosen = switched_on(name, **{limits: (0.3, 0.4)})
    found = draws(chosen, 200, channels=1)
    assert_uniform(found[key][:, 0], 0.3, 0.4)
    for other, _, other_key, none in PARTS:
        if other != name:
            assert (found[other_key] == none).all()


def test_variance_of_the_noise_is_that_of_the_settings():
    chosen = switched_on("noise", noise_variance=(0.04, 0.04))
    np.testing.assert_allclose(draws(chosen, 3)["noise_std"], 0.2, rtol=1e-6)


def test_seed_alone_decides_inside_of_a_dataset_and_outside(drawn):
    chosen = switched_on("noise", *ALL, probability=0.3)
    for number in range(20):
        seed = tf.constant([8, number], tf.int64)
        outside = intensity.draw_intensity(2, chosen, seed)._asdict()
        for key, value in outside.items():
            np.testing.assert_array_equal(value, drawn[key][number])


def test_applied_inside_of_a_dataset_it_is_what_it_is_outside():
    chosen = switched_on("noise", *ALL).with_changes(gamma_probability=0.5)
    images = np.stack([make_image(seed=seed) for seed in range(3)])
    changes = intensity.draw_intensity(2, chosen, tf.constant([1, 1]))

    def apply(image):
        return intensity.apply_intensity(image, chosen, changes)

    dataset = tf.data.Dataset.from_tensor_slices(images).map(apply)
    assert dataset.element_spec.shape == (*SIZE, 2)
    for image, found in zip(images, dataset, strict=True):
        np.testing.assert_allclose(found, apply(tf.constant(image)), atol=1e-5)
