"""Ensembles: the mean of several models' probabilities."""

import dataclasses

import numpy as np
import pytest
import toy

from u2net_tf import machine
from u2net_tf.config.inference import ReadingConfig, WindowConfig
from u2net_tf.errors import InputError
from u2net_tf.inference import case_memory
from u2net_tf.inference.ensemble import (
    EnsembleBackend,
    combine,
    require_distinct,
    require_same_domain,
    require_same_ignore_label,
)
from u2net_tf.inference.memory_budget import MemoryBudget
from u2net_tf.inference.predictor import Predictor
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.labels import Label
from u2net_tf.plan.preprocessing import Preprocessing


class Constant:
    """A backend whose probability of class 1 is constant."""

    def __init__(self, value, *domains, base_channels=2, is_exported=False):
        self.value = np.float32(value)
        plan = Plan(domains or (toy.ONE,))
        self.spec = ModelSpec(plan=plan, pools=(1, 1, 1), base_channels=base_channels)
        self.fingerprint = f"f{value}"
        self.checkpoint = f"model-{value}/step-1"
        self.is_exported = is_exported
        self.calls = []

    def predict_windows(self, windows, domain, *, few=False):
        self.calls.append((domain, few))
        shape = windows.shape[:4]
        one = np.broadcast_to(self.value, shape)
        return np.stack([1 - one, one], axis=-1)


def test_mean_of_the_probabilities():
    """The second model has the domain at another index."""
    members = [Constant(0.1), Constant(0.2, toy.TWO, toy.ONE), Constant(0.9)]
    backend = EnsembleBackend(members)
    windows = np.zeros((2, 8, 8, 8, 1), np.float32)
    for _ in range(2):
        found = backend.predict_windows(windows, 0, few=True)
        np.testing.assert_allclose(found[..., 1], 0.4, rtol=1e-6)
        np.testing.assert_allclose(found[..., 0], 0.6, rtol=1e-6)
    assert found.dtype == np.float32
    assert [each.calls[0] for each in members] == [(0, True), (1, True), (0, True)]


def test_an_ensemble_is_recorded_as_all_its_members():
    one, two = Constant(0.1), Constant(0.2, is_exported=True)
    backend = EnsembleBackend([one, two])
    assert backend.spec is one.spec
    assert backend.checkpoint == "model-0.1/step-1, model-0.2/step-1"
    assert backend.is_exported
    assert not EnsembleBackend([one, one]).is_exported
    ensembles = ([one], [two], [one, two])
    assert len({EnsembleBackend(each).fingerprint for each in ensembles}) == 3


def test_the_largest_network_counts(monkeypatch):
    monkeypatch.setattr(machine, "resident_bytes", lambda: 0)
    large = Constant(0.2, toy.TWO, toy.ONE, base_channels=64)
    backend = EnsembleBackend([Constant(0.1), large])
    predictor = Predictor(backend, batch_size=3)
    taken = MemoryBudget.of_process([(predictor, 0)], ReadingConfig()).taken_gb
    assert taken == case_memory.network_bytes(large.spec, 1, 3) / 1e9


def test_every_exported_network_counts(monkeypatch):
    """Their runtimes keep the memory of a network after its last window."""
    monkeypatch.setattr(machine, "resident_bytes", lambda: 0)
    exported = Constant(0.1, base_channels=4, is_exported=True)
    # Of this architecture, an exported network takes more memory.
    exported.spec = dataclasses.replace(
        exported.spec, architecture="unet_sharp", depth=2
    )
    large = Constant(0.2, base_channels=64)
    backend = EnsembleBackend([exported, Constant(0.3), large, exported])
    taken = MemoryBudget.of_process([(Predictor(backend), 0)], ReadingConfig()).taken_gb
    one = case_memory.network_bytes(exported.spec, 0, 1, is_exported=True)
    assert one > case_memory.network_bytes(exported.spec, 0, 1)
    other = case_memory.network_bytes(large.spec, 0, 1)
    assert taken == pytest.approx((2 * one + other) / 1e9)


def test_the_same_model_by_several_paths(tmp_path, monkeypatch):
    """Relative, with a slash at the end, and through a link."""
    monkeypatch.chdir(tmp_path)
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
    (tmp_path / "link").symlink_to("one")
    for same in ("one", "one/", tmp_path / "two" / ".." / "one", "link"):
        with pytest.raises(InputError) as error:
            require_distinct("`model`", ["two", tmp_path / "one", same])
        assert str(error.value) == (
            "`model`: expected paths of distinct models. "
            f"Received: two, {tmp_path / 'one'}, {same}"
        )
    require_distinct("`model`", ["two", "one"])


def test_a_copy_of_a_model():
    """It would count twice, like a model that is given by two paths."""
    copy = Constant(0.2)
    copy.fingerprint, copy.checkpoint = "f0.1", "copy/step-1"
    predictors = [Predictor(each) for each in (Constant(0.1), Constant(0.2), copy)]
    with pytest.raises(InputError) as error:
        combine(predictors, WindowConfig())
    assert str(error.value) == (
        "copy/step-1: expected another model than model-0.1/step-1. "
        "Received: a copy of it"
    )
    assert len(combine(predictors[:2], WindowConfig()).backend.members) == 2


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"modalities": ("MRI",)}, r"the modalities of .* in one, \('CT',\), .*\('MRI"),
        ({"spacing_mm": (1.0, 1.0, 2.0)}, "the spacing of Task91_One in one"),
        ({"patch_size": (8, 8, 16)}, "the patch size of Task91_One in one"),
        (
            {"preprocessing": Preprocessing(margin_voxels=3)},
            r"the preprocessing\.margin_voxels of .* in one, 5, to .* Received: 3$",
        ),
        (
            {"labels": (toy.ONE.labels[0], Label("organ", (2,)))},
            "the label values of .*one.*Received: .*2",
        ),
        (
            {"labels": (toy.ONE.labels[0], Label("tumour", (1,)))},
            "the classes of .*organ.* Received: .*tumour",
        ),
    ],
)
def test_models_of_another_input_or_other_classes(changes, words):
    other = dataclasses.replace(toy.ONE, **changes)
    with pytest.raises(InputError, match=f"^three: expected {words}"):
        require_same_domain(["one", "two", "three"], [toy.ONE, toy.ONE, other])


def test_models_of_another_ignore_label():
    """They can predict together, but not be scored."""
    nine, ten = (dataclasses.replace(toy.ONE, ignore_label=label) for label in (9, 10))
    require_same_domain(["one", "two"], [nine, ten])
    require_same_ignore_label(["one", "two"], [nine, nine])
    require_same_ignore_label(["one"], [nine])
    for first, second, words in (
        (nine, ten, "9, .* Received: 10"),
        (toy.ONE, nine, "none, .* Received: 9"),
        (nine, toy.ONE, "9, .* Received: none"),
    ):
        words = rf"^three: expected the ignore label of {toy.ONE.name} in one, {words}$"
        with pytest.raises(InputError, match=words):
            require_same_ignore_label(["one", "two", "three"], [first, first, second])


def test_models_may_differ_in_cases_and_postprocessing():
    other = dataclasses.replace(
        toy.ONE,
        raw_dir="elsewhere",
        train=("a",),
        test=(),
        keep_foreground_components=1,
        mirror_axes=(),
        batch_size=1,
    )
    require_same_domain(["one", "two"], [toy.ONE, other])
