import types

import numpy as np
import pytest
import tensorflow as tf
import toy
from recorded_progress import RecordedProgress

from u2net_tf.config.inference import WindowConfig
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.inference.backends import keras
from u2net_tf.inference.backends.keras import KerasBackend
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks import ops

SPEC = ModelSpec(plan=toy.PLAN, pools=(1, 1, 1))


def network(patches, *, domain, training):
    """Returns as many logits as the domain has classes."""
    assert not training
    return tf.repeat(patches[..., :1], SPEC.plan.domains[domain].num_classes, axis=-1)


@pytest.fixture
def model_dir(monkeypatch, tmp_path):
    """A folder with a checkpoint of `network`, and the recorded calls that load it."""
    loaded = []

    def load(folder, *, precision, checkpoint, prune_to):
        loaded.append((folder, precision, checkpoint, prune_to))
        return SPEC, network, str(tmp_path / "step-1")

    monkeypatch.setattr(keras, "load_network", load)
    (tmp_path / "step-1.index").write_bytes(b"one")
    return tmp_path, loaded


class TestFromModelDir:
    def test_passes_settings_on(self, model_dir):
        folder, loaded = model_dir
        backend = KerasBackend.from_model_dir(
            "here", precision="mixed_bfloat16", checkpoint="best", prune_to=2
        )
        KerasBackend.from_model_dir("there")
        assert loaded == [
            ("here", "mixed_bfloat16", "best", 2),
            ("there", "float32", "newest", None),
        ]
        assert backend.spec is SPEC
        assert backend.network is network
        assert backend.checkpoint == str(folder / "step-1")

    def test_fingerprint_changes_with_weights_and_precision(self, model_dir):
        found = [KerasBackend.from_model_dir("here").fingerprint]
        assert KerasBackend.from_model_dir("here").fingerprint == found[0]
        half = KerasBackend.from_model_dir("here", precision="mixed_float16")
        found.append(half.fingerprint)
        (model_dir[0] / "step-1.index").write_bytes(b"two")
        found.append(KerasBackend.from_model_dir("here").fingerprint)
        pruned = KerasBackend.from_model_dir("here", prune_to=1)
        found.append(pruned.fingerprint)
        assert len(set(found)) == 4


class TestPredictWindows:
    @pytest.mark.parametrize("domain", [0, 1])
    def test_are_probabilities_of_the_domain(self, domain):
        plan = SPEC.plan.domains[domain]
        shape = (2, *plan.patch_size, plan.num_modalities)
        found = KerasBackend(network, SPEC).predict_windows(
            np.zeros(shape, np.float32), domain
        )
        assert found.shape == (2, *plan.patch_size, plan.num_classes)
        np.testing.assert_allclose(found, 1 / plan.num_classes, rtol=1e-6)


@pytest.mark.parametrize(
    ("checkpoint", "dtype", "hint"),
    [
        ("step-1", "float32", "Set half `precision`, or use"),
        ("step-1", "float16", "Use"),
        # A network that is being trained.
        ("", "float32", "Use"),
    ],
)
def test_half_precision_is_recommended_only_where_it_helps(
    monkeypatch, checkpoint, dtype, hint
):
    def exhausted(windows, domain):
        raise tf.errors.ResourceExhaustedError(None, None, "OOM")

    model = types.SimpleNamespace(compute_dtype=dtype)
    backend = KerasBackend(model, SPEC, checkpoint=checkpoint)
    monkeypatch.setattr(backend, "_segment", exhausted)
    monkeypatch.setattr(backend, "_warned", lambda domain: None)
    with pytest.raises(StoppedError, match=rf"OOM\. {hint} a device with more memory$"):
        backend.predict_windows(np.zeros((1, 8, 8, 8, 1), np.float32), 0, few=True)


@pytest.mark.parametrize("few", [False, True])
def test_memory_that_does_not_suffice(few):
    def exhausted(patches, *, domain, training):
        # More bytes than any machine has addresses.
        return patches[..., :1] + tf.reduce_sum(tf.random.uniform([1 << 60]))

    backend = KerasBackend(exhausted, SPEC)
    windows = np.zeros((2, 8, 8, 8, 1), np.float32)
    words = "^expected enough memory for 2 windows of 8 × 8 × 8 voxels. Received: OOM"
    with pytest.raises(StoppedError, match=words):
        backend.predict_windows(windows, 0, few=few)


def test_predictor_uses_the_settings(model_dir):
    progress = RecordedProgress()
    settings = WindowConfig(
        precision="mixed_bfloat16",
        checkpoint="best",
        overlap=0.75,
        batch_size=2,
        skip_empty=False,
        prune_to=3,
    )
    predictor = keras.load_predictor("here", settings, progress=progress)
    assert model_dir[1] == [("here", "mixed_bfloat16", "best", 3)]
    assert (predictor.overlap, predictor.batch_size) == (0.75, 2)
    assert not predictor.skip_empty
    assert keras.load_predictor("here", WindowConfig()).skip_empty
    size = SPEC.plan.domains[0].patch_size
    predictor.classes(np.zeros((*size, 1), np.float32), 0)
    assert progress.counts == [("windows", "window", 1)]


def test_model_of_a_domain(monkeypatch, tmp_path):
    folders = {"one": tmp_path, "two": tmp_path / "two"}
    monkeypatch.setattr(keras, "models_by_domain", lambda model_dir: folders)
    assert keras.find_model(tmp_path, "two") == tmp_path / "two"
    with pytest.raises(InputError, match="`domain`: expected one of one, two"):
        keras.find_model(tmp_path, "three")


def test_few_windows_are_neither_traced_nor_compiled(monkeypatch):
    spec, real = toy.make_model(architecture="unet_sharp", depth=1, gates="both")
    windows = np.random.default_rng(0).standard_normal((2, 8, 8, 8, 1), np.float32)
    backend = KerasBackend(real, spec, gate_threshold=0.5)
    with ops.use_implementation("plain"):
        expected = backend.predict_windows(windows, 0)
    monkeypatch.setattr(backend, "_traced", None)
    found = backend.predict_windows(windows, 0, few=True)
    np.testing.assert_allclose(found, expected, atol=1e-5)
