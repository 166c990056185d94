"""Exporting a model folder to a folder in another format."""

import dataclasses
import errno
import json
import os

import keras
import numpy as np
import pytest
import tensorflow as tf
from converted import draw_patches, run_tensorflow
from killed_writer import leave_temporary_file
from packed import make_graph
from toy import ONE, TWO, make_model

from u2net_tf.config.exporting import ExportConfig
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.export_packages import import_package
from u2net_tf.exporting import export_model as module
from u2net_tf.exporting import saved_model
from u2net_tf.exporting.export_model import export_model
from u2net_tf.exporting.openvino_model import save_openvino
from u2net_tf.inference.backends.keras import KerasBackend
from u2net_tf.inference.predictor import Predictor
from u2net_tf.models.exported import from_texts
from u2net_tf.models.loading import save_model
from u2net_tf.networks import ops
from u2net_tf.plan.domains import Plan


@pytest.fixture(scope="module")
def model():
    # With some initial weights, the network predicts a single class.
    keras.utils.set_random_seed(0)
    return make_model()


@pytest.fixture(scope="module")
def model_dir(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, *model)
    return folder


@pytest.fixture(scope="module")
def saved(model_dir, tmp_path_factory):
    """Folder of a SavedModel of one of two domains, with volumes."""
    output = tmp_path_factory.mktemp("out") / "1"
    exported = export_model(
        ExportConfig(
            model_dir=str(model_dir),
            output=str(output),
            domains=(TWO.name,),
            volumes=True,
            overlap=0.25,
        )
    )
    assert exported.names == (f"segment_{TWO.name}", f"segment_volume_{TWO.name}")
    assert exported.domains == (TWO.name,)
    return output


@pytest.fixture(scope="module")
def loaded(saved):
    return tf.saved_model.load(saved)


class TestSavedModel:
    def test_patches(self, model, loaded):
        spec, network = model
        patches = draw_patches(spec, 1)
        segment = loaded.signatures[f"segment_{TWO.name}"]
        found = segment(patches=tf.constant(patches))["probabilities"]
        expected = run_tensorflow(spec, network, 1, patches)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6)

    # Larger than a window, with a last window that is shifted; smaller along one axis.
    @pytest.mark.parametrize(
        "size", [pytest.param((7, 13, 9), marks=pytest.mark.slow), (3, 9, 10)]
    )
    def test_volumes(self, model, loaded, size):
        spec, network = model
        volume = np.random.default_rng(1).standard_normal((*size, 2)).astype(np.float32)
        segment = loaded.signatures[f"segment_volume_{TWO.name}"]
        found = segment(volume=tf.constant(volume))["classes"]
        with ops.use_implementation("plain"):
            predictor = Predictor(KerasBackend(network, spec), overlap=0.25)
            expected = predictor.classes(volume, 1)
        assert found.dtype == tf.uint8
        np.testing.assert_array_equal(found, expected)
        assert len(np.unique(expected)) > 1

    def test_weights_of_other_domains_are_left_out(self, model, saved):
        _, network = model
        shapes = dict(tf.train.list_variables(str(saved / "variables" / "variables")))
        numbers = sum(
            np.prod(shape, dtype=int)
            for name, shape in shapes.items()
            if name.startswith("weights/")
        )
        used = network.variables_used_by(1)
        assert numbers == sum(variable.value.shape.num_elements() for variable in used)

    def test_needs_neither_xla_nor_gradients(self, loaded):
        for segment in loaded.signatures.values():
            definition = segment.graph.as_graph_def()
            functions = definition.library.function
            nodes = [*definition.node]
            nodes += [node for function in functions for node in function.node_def]
            assert not any("xla" in node.op.lower() for node in nodes)
            for holder in (*nodes, *functions):
                assert not holder.attr["_XlaMustCompile"].b
            assert not any("internal_grad" in one.signature.name for one in functions)

    def test_describes_itself(self, saved):
        texts = {
            path.stem: path.read_text(encoding="utf-8")
            for path in (saved / "assets").iterdir()
        }
        assert texts.keys() == {"export", "plan", "labels"}
        (found,) = from_texts(texts, saved)
        assert found.name == TWO.name
        assert json.loads(texts["plan"])["domains"][0]["name"] == TWO.name
        for case in (*ONE.train, *TWO.train):
            assert not any(case in text for text in texts.values())


class TestRejects:
    def export(self, model_dir, tmp_path, **changes):
        config = {"model_dir": str(model_dir), "output": str(tmp_path / "out")}
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(InputError) as error:
            export_model(ExportConfig(**{**config, **changes}))
        assert sorted(tmp_path.rglob("*")) == before
        return str(error.value)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"domains": ("x",)}, "`domains`: expected some of "),
            ({"domains": (ONE.name, ONE.name)}, "`domains`: expected distinct values"),
            ({"checkpoint": "step-7"}, "`checkpoint`: expected newest, best or one of"),
            ({"prune_to": 1}, "`prune_to`: expected no value, since only unet_sharp"),
            ({"volumes": True, "format": "onnx"}, "`volumes`: expected false, as"),
            ({"overlap": 0.5}, "`overlap`: expected no value without `volumes`"),
        ],
    )
    def test_settings(self, model_dir, tmp_path, changes, words):
        assert words in self.export(model_dir, tmp_path, **changes)

    def test_no_model(self, tmp_path):
        found = self.export(tmp_path / "none", tmp_path)
        assert "expected a model written by `python -m u2net_tf.train`" in found

    def test_output_that_is_not_empty(self, model_dir, tmp_path):
        (tmp_path / "out").mkdir()
        (tmp_path / "out" / "x").touch()
        found = self.export(model_dir, tmp_path)
        assert "out: expected a new or empty folder. Received: x" in found

    def test_output_that_is_a_file(self, model_dir, tmp_path):
        (tmp_path / "out").touch()
        found = self.export(model_dir, tmp_path)
        assert "expected a new or empty folder. Received: a file" in found

    def test_any_size_with_resized_patches(self, tmp_path):
        folder = tmp_path / "model"
        save_model(folder, *make_model(domains=(ONE, TWO), patch_size=(8, 8, 8)))
        found = self.export(folder, tmp_path, any_size=True)
        assert (
            "`any_size`: expected false, as patches of Task92_Two, (4, 8, 8), are "
            "resized to (8, 8, 8) for the network. Received: true" in found
        )

    def test_a_failure_leaves_nothing_behind(self, model_dir, tmp_path, monkeypatch):
        def fail(sources, folder, **options):
            folder.mkdir()
            (folder / "half").touch()
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module, "save_saved_model", fail)
        output = tmp_path / "new" / "out"
        config = ExportConfig(model_dir=str(model_dir), output=str(output))
        with pytest.raises(OSError, match="No space left on device: .*out'"):
            export_model(config)
        assert not list(tmp_path.iterdir())

    def test_a_mount_point(self, model_dir, tmp_path, monkeypatch):
        (tmp_path / "out").mkdir()
        monkeypatch.setattr(os.path, "ismount", lambda path: path.name == "out")
        found = self.export(model_dir, tmp_path)
        assert "folder. Received: a mount point. Give a new folder in it" in found

    def test_a_link_to_an_empty_folder(self, model_dir, tmp_path, monkeypatch):
        def save(sources, folder, **options):
            folder.mkdir()
            (folder / "saved").touch()
            return []

        monkeypatch.setattr(module, "save_saved_model", save)
        target, output = tmp_path / "target", tmp_path / "out"
        target.mkdir()
        output.symlink_to(target)
        left = leave_temporary_file(target)
        export_model(ExportConfig(model_dir=str(model_dir), output=str(output)))
        assert output.is_symlink()
        assert (target / "saved").is_file()
        assert not left.exists()

    @pytest.mark.parametrize("names", [("x", "volume_x"), ("volume_x", "x")])
    def test_equal_signatures(self, model, tmp_path, names):
        spec, network = model
        domains = [
            dataclasses.replace(domain, name=name)
            for domain, name in zip(spec.plan.domains, names, strict=True)
        ]
        spec = dataclasses.replace(spec, plan=Plan(tuple(domains)))
        sources = [saved_model.Source(network, spec, index, "") for index in (0, 1)]
        words = "`domains`: .* Received: two with the signature segment_volume_x"
        with pytest.raises(InputError, match=words):
            saved_model.save_saved_model(sources, tmp_path / "out", overlap=0.5)
        assert not list(tmp_path.iterdir())

    def test_errors_of_tensorflow(self, tmp_path, monkeypatch):
        """TensorFlow reports a full disk by an error of its own."""

        def save(*given, **options):
            message = "x.tempstate; No space left on device [Op:SaveV2]"
            raise tf.errors.ResourceExhaustedError(None, None, message)

        monkeypatch.setattr(tf.saved_model, "save", save)
        monkeypatch.setattr(saved_model, "to_texts", lambda domains: {})
        with pytest.raises(OSError, match="No space left on device$") as caught:
            saved_model.save_saved_model([], tmp_path / "x")
        assert caught.value.errno == errno.ENOSPC

    def test_errors_of_openvino(self, tmp_path):
        pytest.importorskip("openvino", reason="extra `export`")
        (tmp_path / "file").touch()
        with pytest.raises(OSError, match="an error of OpenVINO: "):
            save_openvino(make_graph(0), tmp_path / "file" / "x.xml")


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tf2onnx", None)
    with pytest.raises(StoppedError, match=r"tf2onnx is required .*u2net-tf\[export\]"):
        import_package("tf2onnx")
