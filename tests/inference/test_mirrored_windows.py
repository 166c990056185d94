"""Test-time mirroring."""

import dataclasses
import logging

import numpy as np
import pytest
import toy

from u2net_tf.config.inference import WindowConfig
from u2net_tf.inference.mirroring import MirroredBackend
from u2net_tf.inference.predictor import Predictor
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan

ALONG = {"z": 1.0, "y": 10.0, "x": 100.0}


class Ramp:
    """A backend that multiplies windows by a function of the position in the window."""

    fingerprint, checkpoint, is_exported = "weights", "step-3", True

    def __init__(self, *mirror_axes):
        domain = dataclasses.replace(toy.ONE, mirror_axes=mirror_axes)
        self.spec = ModelSpec(plan=Plan((toy.TWO, domain)), pools=(1, 1, 1))
        self.calls = []

    def predict_windows(self, windows, domain, *, few=False):
        assert windows.flags.c_contiguous
        self.calls.append((domain, few))
        positions = np.meshgrid(*map(np.arange, windows.shape[1:4]), indexing="ij")
        factors = sum(a * p for a, p in zip(ALONG.values(), positions, strict=True))
        predicted = windows * factors[..., np.newaxis].astype(np.float32)
        predicted.flags.writeable = False
        return predicted


def draw_windows():
    return np.random.default_rng(0).random((2, 3, 4, 5, 1), np.float32)


@pytest.mark.parametrize("axes", ["x", "z", "yx", "zx", "zyx"])
def test_mean_over_all_mirror_images(axes):
    """Along mirrored axes, the mean of a ramp and its mirror image is its middle."""
    backend = Ramp(*axes)
    windows = draw_windows()
    before = windows.copy()
    found = MirroredBackend(backend).predict_windows(windows, 1, few=True)
    factors = np.zeros(windows.shape[1:])
    for axis, (name, slope) in enumerate(ALONG.items()):
        size = windows.shape[1 + axis]
        shape = [size if each == axis else 1 for each in range(4)]
        ramp = np.full(size, (size - 1) / 2) if name in axes else np.arange(size)
        factors += slope * ramp.reshape(shape)
    np.testing.assert_allclose(found, windows * factors, rtol=1e-6)
    assert found.dtype == np.float32
    np.testing.assert_array_equal(windows, before)
    assert backend.calls == [(1, True)] * 2 ** len(axes)


def test_a_domain_without_mirror_axes_is_predicted_once(caplog):
    backend = Ramp("x")
    mirrored = MirroredBackend(backend)
    for _ in range(2):
        found = mirrored.predict_windows(draw_windows(), 0)
        np.testing.assert_array_equal(found, backend.predict_windows(draw_windows(), 0))
    assert len(backend.calls) == 4
    (warning,) = caplog.records
    assert warning.levelno == logging.WARNING
    assert warning.getMessage() == (
        "Task92_Two has no mirror axes in the plan of step-3: test-time mirroring has "
        "no effect"
    )


def test_a_predictor_mirrors_if_its_settings_request_it():
    image = np.zeros((8, 8, 8, 1), np.float32)
    domain = dataclasses.replace(toy.ONE, labels=toy.ONE.labels[:2], modalities=("a",))
    keys = set()
    for requested, num_calls in ((False, 1), (True, 2)):
        backend = Ramp("x")
        backend.spec = ModelSpec(plan=Plan((domain,)), pools=(1, 1, 1))
        predicted = []

        def predict_windows(windows, index, *, few=False, into=predicted):
            into.append(windows)
            shape = (*windows.shape[:4], domain.num_classes)
            return np.full(shape, 0.5, np.float32)

        backend.predict_windows = predict_windows
        settings = WindowConfig(test_time_mirroring=requested)
        predictor = Predictor.of_settings(backend, settings)
        predictor.classes(image, 0)
        assert len(predicted) == num_calls
        assert predictor.spec is backend.spec
        assert predictor.checkpoint == "step-3"
        assert predictor.backend.is_exported
        keys.add(predictor.key(0, []))
    assert len(keys) == 2
