import math

import numpy as np
import pytest
import scipy.ndimage
import tensorflow as tf

from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.input.augmentation import intensity
from u2net_tf.interpolation.matrices import interpolation_matrix

SIZE = (9, 12, 10)
# Name of the transform, its range and the drawn value, and the value without effect.
TRANSFORMS = (
    ("blur", "blur_sigma_voxels", "blur_sigma_voxels", 0),
    ("brightness", "brightness", "brightness", 1),
    ("contrast", "contrast", "contrast", 1),
    ("low_resolution", "low_resolution_zoom", "zoom", 1),
    ("gamma_inverted", "gamma", "gamma_inverted", 1),
    ("gamma", "gamma", "gamma", 1),
)
ALL_TRANSFORMS = tuple(part[0] for part in TRANSFORMS)


def enable(*names, probability=1.0, **ranges):
    probabilities = {f"{name}_probability": probability for name in names}
    return AugmentationConfig(**probabilities, **ranges)


def make_image(channels=2, seed=0, size=SIZE):
    generator = np.random.default_rng(seed)
    return generator.normal(1, 2, (*size, channels)).astype(np.float32)


def make_drawn(channels=2, **chosen):
    """What `draw_intensity` returns, with chosen values; the others have no effect."""
    drawn = intensity.draw_intensity(
        channels, AugmentationConfig(), tf.constant([1, 2])
    )
    return drawn._replace(
        **{key: tf.constant(value, tf.float32) for key, value in chosen.items()}
    )


# Each transform, compared with float64.


def test_noise_has_the_standard_deviation_and_depends_on_the_seed():
    image = tf.constant(make_image(size=(20, 30, 40)))
    seed = tf.constant([3, 4])
    noise = intensity.apply_noise(image, tf.constant(0.3), seed) - image
    assert np.std(noise) == pytest.approx(0.3, rel=0.02)
    assert abs(np.mean(noise)) < 0.01
    # Different in the two modalities.
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
def test_low_resolution_is_nearest_down_and_cubic_up_sampling(zoom):
    plane = make_image()[..., 0]
    expected = plane.astype(np.float64)
    for axis, size in enumerate(SIZE):
        coarse = max(1, round(size * zoom))
        nearest = np.floor((np.arange(coarse) + 0.5) * size / coarse).astype(int)
        matrix = interpolation_matrix(size, coarse, "cubic")
        small = np.take(expected, nearest, axis)
        expected = np.moveaxis(np.tensordot(matrix, small, (1, axis)), 0, axis)
    found = intensity.apply_low_resolution(tf.constant(plane), tf.constant(zoom))
    np.testing.assert_allclose(found, expected, atol=2e-5)


def test_a_zoom_of_one_is_the_image():
    plane = tf.constant(make_image()[..., 0])
    found = intensity.apply_low_resolution(plane, tf.constant(1.0))
    np.testing.assert_allclose(found, plane, atol=1e-5)


# All transforms, for each modality, in their order.


def apply_in_order(plane, values):
    """Applies the transforms in their order, with the functions tested above."""
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


def test_modalities_are_independent_and_the_order_is_fixed():
    image = tf.constant(make_image())
    drawn = make_drawn(noise_std=0.2, **CHOSEN)
    found = intensity.apply_intensity(image, enable("noise", *ALL_TRANSFORMS), drawn)
    noisy = intensity.apply_noise(image, drawn.noise_std, drawn.noise_seed)
    for channel in range(2):
        values = {key: tf.constant(both[channel]) for key, both in CHOSEN.items()}
        expected = apply_in_order(noisy[..., channel], values)
        np.testing.assert_allclose(found[..., channel], expected, atol=1e-5)


@pytest.mark.parametrize(("name", "_", "key", "none"), TRANSFORMS)
def test_a_transform_changes_only_the_modality_that_it_is_drawn_for(name, _, key, none):
    image = tf.constant(make_image())
    values = (none, CHOSEN[key][1])
    drawn = make_drawn(**{key: values})
    found = intensity.apply_intensity(image, enable(name), drawn)
    np.testing.assert_array_equal(found[..., 0], image[..., 0])
    assert np.abs(found[..., 1] - image[..., 1]).max() > 0.01
    # A transform without a probability is left out of the graph.
    found = intensity.apply_intensity(image, AugmentationConfig(), drawn)
    assert found is image


def test_noise_of_std_0_changes_nothing():
    image = tf.constant(make_image())
    drawn = make_drawn(noise_std=0.0)
    found = intensity.apply_intensity(image, enable("noise"), drawn)
    np.testing.assert_array_equal(found, image)


def test_inverted_gamma_is_gamma_of_the_inverted_image():
    """Inverted gamma stretches the other end of the range of intensities."""
    plane = tf.reshape(tf.linspace(0.0, 1.0, 1000), (10, 10, 10))
    drawn = make_drawn(1, gamma_inverted=(1.5,))
    found = intensity.apply_intensity(plane[..., None], enable("gamma_inverted"), drawn)
    values = np.linspace(0, 1, 1000)
    powers = -((1 - values) ** 1.5)
    expected = (powers - powers.mean()) / powers.std() * values.std() + 0.5
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
    return draws(enable("noise", *ALL_TRANSFORMS, probability=0.3))


def assert_fraction(hits, expected):
    tolerance = 4.5 * math.sqrt(expected * (1 - expected) / len(hits))
    assert abs(hits.mean() - expected) < tolerance


def assert_uniform(values, low, high):
    assert low <= values.min() < low + 0.03 * (high - low)
    assert high - 0.03 * (high - low) < values.max() <= high
    tolerance = 4.5 * (high - low) / math.sqrt(12 * len(values))
    assert abs(values.mean() - (low + high) / 2) < tolerance


@pytest.mark.parametrize(("_", "limits", "key", "none"), TRANSFORMS)
def test_frequency_and_range(drawn, _, limits, key, none):
    happens = drawn[key] != none
    for channel in range(2):
        assert_fraction(happens[:, channel], 0.3)
    # The modalities are independent.
    assert_fraction(happens.all(axis=1), 0.09)
    assert_uniform(drawn[key][happens], *getattr(AugmentationConfig(), limits))


def test_frequency_and_range_of_noise(drawn):
    happens = drawn["noise_std"] > 0
    assert_fraction(happens, 0.3)
    assert_uniform(drawn["noise_std"][happens] ** 2, 0, 0.1)
    assert len(np.unique(drawn["noise_seed"], axis=0)) == len(happens)


def test_transforms_are_drawn_independently(drawn):
    keys = [part[2] for part in TRANSFORMS]
    happens = [drawn[key][:, 0] != none for (*_, key, none) in TRANSFORMS]
    happens.append(drawn["noise_std"] > 0)
    correlation = np.corrcoef(happens) - np.eye(len(happens))
    assert np.abs(correlation).max() < 4.5 / math.sqrt(len(happens[0])), keys


@pytest.mark.parametrize(("name", "limits", "key", "_"), TRANSFORMS)
def test_ranges_and_probabilities_are_separate(name, limits, key, _):
    chosen = enable(name, **{limits: (0.3, 0.4)})
    found = draws(chosen, 200, channels=1)
    assert_uniform(found[key][:, 0], 0.3, 0.4)
    for other, _, other_key, none in TRANSFORMS:
        if other != name:
            assert (found[other_key] == none).all()


def test_noise_has_the_variance_of_the_settings():
    chosen = enable("noise", noise_variance=(0.04, 0.04))
    np.testing.assert_allclose(draws(chosen, 3)["noise_std"], 0.2, rtol=1e-6)


def test_draws_depend_only_on_the_seed_inside_and_outside_a_dataset(drawn):
    chosen = enable("noise", *ALL_TRANSFORMS, probability=0.3)
    for number in range(20):
        seed = tf.constant([8, number], tf.int64)
        outside = intensity.draw_intensity(2, chosen, seed)._asdict()
        for key, value in outside.items():
            np.testing.assert_array_equal(value, drawn[key][number])


def test_results_are_the_same_inside_and_outside_a_dataset():
    chosen = enable("noise", *ALL_TRANSFORMS).with_changes(gamma_probability=0.5)
    images = np.stack([make_image(seed=seed) for seed in range(3)])
    changes = intensity.draw_intensity(2, chosen, tf.constant([1, 1]))

    def apply(image):
        return intensity.apply_intensity(image, chosen, changes)

    dataset = tf.data.Dataset.from_tensor_slices(images).map(apply)
    assert dataset.element_spec.shape == (*SIZE, 2)
    for image, found in zip(images, dataset, strict=True):
        np.testing.assert_allclose(found, apply(tf.constant(image)), atol=1e-5)
