"""Opening models of every format by their path."""

import dataclasses
import logging
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
import toy
from recorded_progress import RecordedProgress

onnx = pytest.importorskip("onnx", reason="needs the extra `export`")
pytest.importorskip("openvino", reason="needs the extra `export`")
pytest.importorskip("onnxruntime", reason="needs the extra `export`")
# `packed` imports onnx itself.
import packed  # noqa: E402

from u2net_tf.config.exporting import ExportConfig  # noqa: E402
from u2net_tf.config.inference import WindowConfig  # noqa: E402
from u2net_tf.errors import InputError, StoppedError  # noqa: E402
from u2net_tf.exporting.export_model import export_model  # noqa: E402
from u2net_tf.exporting.openvino_model import save_openvino  # noqa: E402
from u2net_tf.inference import predictor as predictor_module  # noqa: E402
from u2net_tf.inference.backends.opening import (  # noqa: E402
    open_ensemble,
    open_model,
)
from u2net_tf.inference.ensemble import EnsembleBackend  # noqa: E402
from u2net_tf.inference.mirroring import MirroredBackend  # noqa: E402
from u2net_tf.models.exported import (  # noqa: E402
    EXPORT,
    METADATA_PREFIX,
    ExportedDomain,
    to_texts,
)
from u2net_tf.models.loading import save_model  # noqa: E402
from u2net_tf.models.trained import find_trained  # noqa: E402
from u2net_tf.plan.domains import Plan  # noqa: E402

NAMES = (toy.ONE.name, toy.TWO.name)
ROOT = pathlib.Path(__file__).parents[3]
FREED = """
import gc
import os
import signal
import sys

from u2net_tf.inference.backends.opening import open_model

signal.signal(signal.SIGINT, signal.default_int_handler)
path, *names = sys.argv[1:]
opened = [open_model(path).predictor(name) for name in names]
# The first one first.
while opened:
    del opened[0]
    gc.collect()
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


def describe(index, **changes):
    described = ExportedDomain.of_model(packed.SPEC, index, fingerprint="f")
    texts = to_texts([described]) | changes
    return {METADATA_PREFIX + name: text for name, text in texts.items()}


def make_onnx(index, **changes):
    model = packed.make_graph(index)
    onnx.helper.set_model_props(model, describe(index, **changes))
    return model


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A model as a model file, as ONNX files and as OpenVINO models."""
    folder = tmp_path_factory.mktemp("models")
    packed.write(folder / "organs.u2net", packed.make_members())
    for name in ("onnx", "openvino"):
        (folder / name).mkdir()
    for index, name in enumerate(NAMES):
        model = make_onnx(index)
        onnx.save(model, folder / "onnx" / f"{name}.onnx")
        save_openvino(model, folder / "openvino" / f"{name}.xml")
    return folder


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, *toy.make_model())
    return folder


@pytest.fixture(scope="module")
def saved_model(model_dir, tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved") / "1"
    export_model(ExportConfig(model_dir=str(model_dir), output=str(folder)))
    return folder


FILES_AND_RUNTIMES = [
    ("organs.u2net", "openvino"),
    ("organs.u2net", "onnxruntime"),
    ("onnx", "openvino"),
    ("onnx", "onnxruntime"),
    ("openvino", "openvino"),
]


class TestWithoutTensorFlow:
    @pytest.mark.parametrize("index", [0, 1])
    @pytest.mark.parametrize(("name", "runtime"), FILES_AND_RUNTIMES)
    def test_probabilities(self, models, name, runtime, index):
        model = open_model(models / name, runtime=runtime)
        assert model.domains == model.plan.names == NAMES
        assert model.runtime == runtime
        predictor = model.predictor(NAMES[index])
        assert model.predictor(NAMES[index]) is predictor
        assert predictor.domains == predictor.plan.names == (NAMES[index],)
        domain = predictor.plan.domains[0]
        shape = (*domain.patch_size, domain.num_modalities)
        patch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        found = predictor.probabilities(patch, 0)
        np.testing.assert_allclose(found, packed.compute(index, patch), atol=1e-5)

    @pytest.mark.parametrize(("name", "runtime"), FILES_AND_RUNTIMES)
    def test_several_windows_at_once(self, models, name, runtime):
        domain = toy.ONE
        volume = np.random.default_rng(1).standard_normal((20, 9, 8, 1), np.float32)
        for batch_size in (1, 2):
            settings = WindowConfig(batch_size=batch_size)
            model = open_model(models / name, settings, runtime=runtime)
            predictor = model.predictor(domain.name)
            assert predictor.batch_size == batch_size
            found = predictor.probabilities(volume, 0)
            expected = packed.compute(0, volume)
            np.testing.assert_allclose(found, expected, atol=1e-5)

    def test_a_signal_after_openvino_models_were_freed(self, models):
        """Freeing an `openvino.Core` would leave a freed stack for signal handlers."""
        done = subprocess.run(
            [sys.executable, "-c", FREED, str(models / "openvino"), *NAMES],
            cwd=ROOT,
            capture_output=True,
            encoding="utf-8",
        )
        assert (done.returncode, done.stdout) == (0, "interrupted\n"), done.stderr

    def test_key_names_weights_and_runtime(self, models):
        fingerprints = {
            open_model(models / name, runtime=runtime)
            .predictor(toy.ONE.name)
            .backend.fingerprint
            for name, runtime in FILES_AND_RUNTIMES[:4]
        }
        assert len(fingerprints) == 4

    @pytest.mark.parametrize(
        ("kind", "changed"), [("onnx", ".onnx"), ("openvino", ".bin")]
    )
    def test_key_depends_on_the_weights_themselves(
        self, models, tmp_path, kind, changed
    ):
        """Programs that convert a model, to int8 for example, copy its metadata."""
        folder = shutil.copytree(models / kind, tmp_path / "copy")
        keys = {
            open_model(each).predictor(toy.ONE.name).backend.fingerprint
            for each in (models / kind, folder)
        }
        assert len(keys) == 1
        path = (folder / toy.ONE.name).with_suffix(changed)
        if kind == "onnx":
            model = onnx.load(path)
            (tensor, *_) = model.graph.initializer
            halved = onnx.numpy_helper.to_array(tensor) / 2
            tensor.CopyFrom(onnx.numpy_helper.from_array(halved, tensor.name))
            onnx.save(model, path)
        else:
            path.write_bytes(path.read_bytes()[::-1])
        keys.add(open_model(folder).predictor(toy.ONE.name).backend.fingerprint)
        assert len(keys) == 2

    def test_one_file(self, models):
        model = open_model(models / "onnx" / f"{toy.TWO.name}.onnx")
        assert model.domains == (toy.TWO.name,)

    def test_the_runtime_is_logged(self, models, caplog):
        with caplog.at_level(logging.INFO, "absl"):
            open_model(models / "organs.u2net")
        (line,) = caplog.messages
        assert line.endswith("organs.u2net: a model file, run by openvino")

    def test_windows_are_those_of_the_settings(self, models):
        settings = WindowConfig(
            overlap=0.25,
            skip_empty=False,
            keep_foreground_components=2,
            keep_components=3,
        )
        model = open_model(models / "organs.u2net", settings)
        predictor = model.predictor(toy.ONE.name)
        assert predictor.overlap == 0.25
        assert not predictor.skip_empty
        assert predictor.keep_foreground_components == 2
        assert predictor.keep_components == 3


class TestEnsembles:
    @pytest.fixture
    def uniform(self, tmp_path):
        """A model of the first domain whose classes are equally probable."""
        model = make_onnx(0)
        for tensor in model.graph.initializer:
            zeros = np.zeros_like(onnx.numpy_helper.to_array(tensor))
            tensor.CopyFrom(onnx.numpy_helper.from_array(zeros, tensor.name))
        onnx.save(model, tmp_path / "uniform.onnx")
        return tmp_path / "uniform.onnx"

    def test_mean_of_models_of_different_formats(self, models, uniform, caplog):
        progress = RecordedProgress()
        with caplog.at_level(logging.INFO, "absl"):
            model = open_ensemble(
                [models / "organs.u2net", uniform],
                WindowConfig(overlap=0.25),
                runtime="onnxruntime",
                progress=progress,
            )
        assert model.domains == (toy.ONE.name,)
        line = f"{toy.TWO.name}: not a domain of all models, left out"
        assert line in caplog.messages
        assert model.path == f"{models / 'organs.u2net'}, {uniform}"
        assert model.runtime == "onnxruntime"
        predictor = model.predictor(toy.ONE.name)
        assert predictor.overlap == 0.25
        shape = (*toy.ONE.patch_size, 1)
        patch = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        expected = (packed.compute(0, patch) + 1 / toy.ONE.num_classes) / 2
        found = predictor.probabilities(patch, 0)
        np.testing.assert_allclose(found, expected, atol=1e-5)
        assert progress.counts == [("windows", "window", 1)]

    def test_windows_are_mirrored_once(self, models, uniform):
        model = open_ensemble(
            [models / "onnx", uniform], WindowConfig(test_time_mirroring=True)
        )
        backend = model.predictor(toy.ONE.name).backend
        assert isinstance(backend, EnsembleBackend)
        assert [type(each) for each in backend.members] == [MirroredBackend] * 2

    def test_a_single_model_is_no_ensemble(self, models):
        progress = RecordedProgress()
        model = open_ensemble(
            [models / "onnx"], runtime="onnxruntime", progress=progress
        )
        assert model.domains == NAMES
        predictor = model.predictor(toy.ONE.name)
        assert not isinstance(predictor.backend, EnsembleBackend)
        predictor.classes(np.zeros((*toy.ONE.patch_size, 1), np.float32), 0)
        assert len(progress.bars) == 1

    @pytest.mark.parametrize(
        ("names", "words"),
        [
            ([], "`model`: expected paths of distinct models. Received: none"),
            (
                ["onnx", "onnx"],
                "`model`: expected paths of distinct models. Received: ",
            ),
            (
                ["onnx", "onnx/../onnx"],
                "`model`: expected paths of distinct models. Received: ",
            ),
            (["onnx", "no"], "/no: expected a folder of a model, a file"),
            (
                [f"onnx/{name}.onnx" for name in NAMES],
                "`model`: expected models with a common domain. Received: domains "
                "Task91_One, Task92_Two",
            ),
        ],
    )
    def test_models_that_are_no_ensemble(self, models, names, words):
        with pytest.raises(InputError) as error:
            open_ensemble([models / name for name in names])
        assert words in str(error.value)
        with pytest.raises(InputError) as error:
            open_ensemble([models / name for name in names], where="`path`")
        assert words.replace("`model`", "`path`") in str(error.value)

    def test_an_empty_path_is_not_the_working_directory(self, models, monkeypatch):
        """The comma at the end of a list, for example."""
        monkeypatch.chdir(models / "onnx")
        with pytest.raises(
            InputError, match='paths of distinct models. Received: .*, ""$'
        ):
            open_ensemble([str(models / "organs.u2net"), ""])

    def test_the_same_model_by_name_and_by_path(self):
        name = "hippocampus"
        with pytest.raises(InputError, match="^`model`: expected paths of distinct"):
            open_ensemble([name, find_trained(name)])

    def test_different_domains_of_the_same_name(self, models, tmp_path):
        domain = dataclasses.replace(toy.ONE, spacing_mm=(1.0, 1.0, 3.0))
        spec = dataclasses.replace(packed.SPEC, plan=Plan((domain, toy.TWO)))
        texts = to_texts([ExportedDomain.of_model(spec, 0, fingerprint="g")])
        model = packed.make_graph(0)
        onnx.helper.set_model_props(
            model, {METADATA_PREFIX + name: text for name, text in texts.items()}
        )
        other = tmp_path / "other.onnx"
        onnx.save(model, other)
        opened = open_ensemble([models / "onnx", other])
        with pytest.raises(InputError) as error:
            opened.predictor(toy.ONE.name)
        assert str(error.value) == (
            f"{other}: expected the spacing of Task91_One in {models / 'onnx'}, "
            "(1.0, 1.0, 1.0), to average their probabilities. Received: (1.0, 1.0, 3.0)"
        )


class TestRejects:
    def message(self, path, settings=None, **options):
        with pytest.raises(InputError) as error:
            open_model(path, settings, **options)
        return str(error.value)

    def test_a_runtime_for_other_files(self, models, model_dir):
        found = self.message(models / "openvino", runtime="onnxruntime")
        assert found.startswith("`runtime`: expected openvino for ")
        found = self.message(models / "organs.u2net", runtime="tensorflow")
        assert "`runtime`: expected openvino or onnxruntime for " in found
        found = self.message(model_dir, runtime="openvino")
        assert found.startswith("`runtime`: expected tensorflow for ")
        assert "Export it: `python -m u2net_tf.export`" in found

    @pytest.mark.parametrize(
        ("hidden", "names"),
        [
            (("openvino", "onnxruntime"), "openvino or onnxruntime"),
            (("openvino",), None),
        ],
    )
    def test_no_runtime(self, models, monkeypatch, hidden, names):
        for name in hidden:
            monkeypatch.setitem(sys.modules, name, None)
        if names is None:
            model = open_model(models / "organs.u2net")
            assert model.runtime == "onnxruntime"
            names = "openvino"
            options = {"runtime": "openvino"}
        else:
            options = {}
        with pytest.raises(StoppedError) as error:
            open_model(models / "organs.u2net", **options)
        assert str(error.value).startswith(f"{names} is required to run ")
        assert str(error.value).endswith("but not installed: pip install openvino")

    def test_an_unknown_domain(self, models):
        model = open_model(models / "organs.u2net")
        with pytest.raises(InputError) as error:
            model.predictor("x")
        expected = f"`domain`: expected one of {', '.join(NAMES)}. Received: x"
        assert str(error.value) == expected

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"precision": "mixed_bfloat16"}, "`precision`: expected float32 with "),
            ({"checkpoint": "best"}, "`checkpoint`: expected newest with "),
            ({"gate_threshold": 0.5}, "`gate_threshold`: expected none with "),
            ({"prune_to": 1}, "`prune_to`: expected no value, since only unet_sh"),
        ],
    )
    def test_settings_fixed_at_export(self, models, changes, words):
        found = self.message(models / "organs.u2net", WindowConfig(**changes))
        assert found.startswith(words)

    def test_depth_of_an_exported_unet_sharp(self, tmp_path):
        spec = toy.make_model(architecture="unet_sharp", depth=2, pools=(1, 1, 1))[0]
        model = make_onnx(
            0, **to_texts([ExportedDomain.of_model(spec, 0, fingerprint="f")])
        )
        path = tmp_path / "sharp.onnx"
        onnx.save(model, path)
        # The full network was exported.
        found = self.message(path, WindowConfig(prune_to=1))
        assert found.startswith("`prune_to`: expected none or 2, the depth with ")
        # The head on X^{0,2} is the one that was exported.
        open_model(path, WindowConfig(prune_to=2))

    def test_a_missing_path(self, tmp_path):
        for name in ("x", "x.u2net", "x.onnx", "x.xml"):
            found = self.message(tmp_path / name)
            assert found.startswith(f"{tmp_path / name}: expected a folder of a model")
            assert found.endswith("Received: no such file")

    def test_another_file(self, tmp_path):
        (tmp_path / "model.pt").touch()
        found = self.message(tmp_path / "model.pt")
        assert "a file (.u2net, .onnx, .xml), or the name of a model" in found
        assert found.endswith("(hippocampus). Received: a different kind of file")

    def test_files_of_several_formats(self, tmp_path):
        for name in ("a.onnx", "b.xml"):
            (tmp_path / name).touch()
        found = self.message(tmp_path)
        assert "expected exported models of one format. Received: a.onnx" in found

    def test_two_files_of_a_domain(self, models, tmp_path):
        for name in ("a.onnx", "b.onnx"):
            onnx.save(make_onnx(0), tmp_path / name)
        found = self.message(tmp_path)
        assert f"expected one file for {toy.ONE.name}. Received: a.onnx and b" in found

    @pytest.mark.parametrize("name", ["organs.u2net", f"onnx/{NAMES[0]}.onnx"])
    def test_a_truncated_file(self, models, tmp_path, name):
        content = (models / name).read_bytes()
        path = tmp_path / (models / name).name
        path.write_bytes(content[: len(content) // 2])
        assert self.message(path).startswith(f"{path}: expected ")

    def test_a_damaged_xml_and_missing_weights(self, models, tmp_path):
        text = (models / "openvino" / f"{NAMES[0]}.xml").read_text()
        path = tmp_path / "model.xml"
        path.write_text(text[:200])
        assert "expected an OpenVINO model written by" in self.message(path)
        path.write_text(text)
        found = self.message(path)
        assert "model.bin: expected the weights of model.xml. Received: no" in found
        path.with_suffix(".bin").write_bytes(b"short")
        with pytest.raises(InputError, match="expected a model that OpenVINO runs"):
            open_model(path).predictor(NAMES[0])

    def test_weights_that_onnxruntime_cannot_read(self, tmp_path):
        model = make_onnx(0)
        model.graph.initializer[0].raw_data = b"short"
        path = tmp_path / "model.onnx"
        path.write_bytes(model.SerializeToString())
        for runtime, name in (("onnxruntime",) * 2, ("openvino", "OpenVINO")):
            opened = open_model(path, runtime=runtime)
            with pytest.raises(InputError, match=f"a model that {name} runs"):
                opened.predictor(NAMES[0])

    def test_a_file_of_another_program(self, tmp_path):
        path = tmp_path / "model.onnx"
        onnx.save(packed.make_graph(0), path)
        found = self.message(path)
        assert "one without a description of its domains" in found

    def test_a_newer_format(self, tmp_path):
        path = tmp_path / "model.onnx"
        text = describe(0)[METADATA_PREFIX + EXPORT].replace(
            '"format": 1', '"format": 99', 1
        )
        onnx.save(make_onnx(0, **{EXPORT: text}), path)
        found = self.message(path)
        assert f"{path}: export: format: expected an integer from 1 to 1" in found


class TestTensorFlow:
    # Exports, loads and traces networks.
    @pytest.mark.slow
    def test_a_folder_and_a_saved_model_agree(
        self, model_dir, saved_model, plain_implementation
    ):
        models = [open_model(path) for path in (model_dir, saved_model)]
        for name in NAMES:
            found = []
            for model in models:
                assert model.runtime == "tensorflow"
                assert model.domains == model.plan.names == NAMES
                predictor = model.predictor(name)
                index = predictor.plan.index(name)
                domain = predictor.plan.domains[index]
                shape = (9, *domain.patch_size[1:], domain.num_modalities)
                draw = np.random.default_rng(0)
                volume = draw.standard_normal(shape).astype(np.float32)
                found.append(predictor.probabilities(volume, index))
            np.testing.assert_allclose(*found, atol=1e-5)

    def test_a_damaged_saved_model(self, tmp_path):
        folder = tmp_path / "saved"
        (folder / "assets").mkdir(parents=True)
        text = describe(0)[METADATA_PREFIX + EXPORT]
        (folder / "assets" / "export.json").write_text(text)
        (folder / "saved_model.pb").write_bytes(b"damaged")
        with pytest.raises(InputError, match="a SavedModel that TensorFlow loads"):
            open_model(folder).predictor(NAMES[0])

    def test_a_saved_model_of_another_program(self, tmp_path):
        (tmp_path / "saved_model.pb").touch()
        with pytest.raises(InputError, match="without a description of its domains"):
            open_model(tmp_path)

    def test_no_model(self, tmp_path):
        with pytest.raises(InputError, match=r"written by `python -m u2net_tf\.train`"):
            open_model(tmp_path)


def test_few_windows_are_recognized(monkeypatch):
    """Only the scan and the number of scans decide, not earlier predictions."""
    received = []

    class Backend:
        spec = packed.SPEC
        fingerprint = checkpoint = ""

        def predict_windows(self, windows, domain, *, few=False):
            received.append(few)
            return np.ones((*windows.shape[:4], 2), np.float32)

    predictor = predictor_module.Predictor(Backend())
    # Three windows of 8³ voxels.
    image = np.zeros((16, 8, 8, 1), np.float32)
    monkeypatch.setattr(predictor_module, "_FEW_VOXELS", 2 * 3 * 8**3)
    for num_scans, few in ((1, True), (2, True), (3, False), (None, False)):
        received.clear()
        predictor._predict_volume(image, 0, num_scans=num_scans)
        assert received == [few] * 3
