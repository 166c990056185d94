"""Exported files of earlier versions stay readable; see `exports.py`."""

import functools
import json
import shutil

import command_session
import exports
import make_artefacts as artefacts
import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from make_artefacts import ONE, THREE, TWO

from u2net_tf.certification.check_certificate import check
from u2net_tf.config.adapter_files import AdapterAddConfig
from u2net_tf.config.certificate import CertifyConfig
from u2net_tf.models import checksums
from u2net_tf.models.adapter_files import AdapterFile
from u2net_tf.models.adapter_models import add_adapters
from u2net_tf.models.exported_files import read_exported
from u2net_tf.models.loading import load_network
from u2net_tf.models.model_file import read_model_file
from u2net_tf.models.segmentation import segment_patches

pytestmark = pytest.mark.usefixtures("plain_implementation")

# Folder of exported files -> release whose models they were made from. Those of
# `format-1` were made from the models of 0.1.0 by a later version.
RELEASES = {artefacts.FOLDER / "format-1": artefacts.FOLDER / "0.1.0"}
RELEASES |= {
    folder: folder.parent
    for folder in sorted(artefacts.FOLDER.glob(f"[0-9]*/{exports.FOLDER}"))
}
each_release = pytest.mark.parametrize(
    ("folder", "release"), RELEASES.items(), ids=lambda path: path.name
)


def expected_logits(release, model, domain):
    with np.load(release / "expected" / "logits.npz") as logits:
        return logits[f"{model}/newest/{domain}"]


def test_files_of_format_1_are_unchanged():
    folder = artefacts.FOLDER / "format-1"
    written = json.loads((folder / "files.json").read_text())
    found = artefacts.list_files(folder)
    del found["files.json"]
    assert {name: row[0] for name, row in found.items()} == {
        name: row[0] for name, row in written.items()
    }


class TestAdapter:
    @each_release
    def test_gives_the_adapted_model(self, folder, release, tmp_path):
        add_adapters(
            AdapterAddConfig(
                model_dir=str(release / exports.SEPARABLE),
                input=(str(folder / exports.ADAPTER),),
                output_dir=str(tmp_path / "added"),
            )
        )
        spec, network, _ = load_network(tmp_path / "added")
        adapted, original, _ = load_network(release / exports.ADAPTED)
        assert spec.plan.names == adapted.plan.names == (ONE, TWO, THREE)
        assert checksums.of_trunk(network) == checksums.of_trunk(original)
        for index in range(3):
            assert checksums.of_domain_variables(
                network, index
            ) == checksums.of_domain_variables(original, index)
        _, found = artefacts.compute_logits(tmp_path / "added", "newest")
        known = expected_logits(release, "adapted", THREE)
        np.testing.assert_allclose(found[THREE], known, rtol=0, atol=2e-3)

    @each_release
    def test_float16(self, folder, release):
        full, half = (
            AdapterFile(folder / name)
            for name in (exports.ADAPTER, exports.HALF_ADAPTER)
        )
        assert (full.precision, half.precision) == ("float32", "float16")
        assert full.spec == half.spec
        assert full.metadata.licence == "CC-BY-4.0"
        rounded = half.read().variables
        for name, values in full.read().variables.items():
            np.testing.assert_array_equal(rounded[name], values.astype(np.float16))


@each_release
def test_certificate(folder, release):
    report = check(
        CertifyConfig(
            check=str(folder / exports.CERTIFICATE),
            before=str(release / exports.SEPARABLE),
            after=str(release / exports.ADAPTED),
        )
    )
    # In another build, the last bits of logits may differ.
    assert not report.is_refuted, report
    assert report.same_verdicts
    assert [(row.model, row.domain) for row in report.domains] == [
        *(("before", name) for name in (ONE, TWO)),
        *(("after", name) for name in (ONE, TWO, THREE)),
    ]


class TestModelFile:
    @each_release
    def test_description(self, folder, release):
        found = read_model_file(folder / exports.MODEL_FILE)
        assert found.plan.names == (TWO,)
        assert [(label.name, label.value) for label in found.labels[TWO]] == [
            ("value 0", 0),
            ("value 2", 2),
            ("rim", 4),
        ]
        (about,) = found.description.card.domains
        assert found.description.card.texts.intended_use == "Tests"
        summary = json.loads((release / "evaluation" / "summary.json").read_text())
        known = [row["mean"] for row in summary["classes"] if row["domain"] == TWO]
        assert [row.mean for row in about.evaluation.classes] == known

    @each_release
    def test_predicts_the_same(self, folder, release, tmp_path):
        pytest.importorskip("onnxruntime", reason="extra `export`")
        shutil.copy(folder / exports.MODEL_FILE, tmp_path)
        session = functools.partial(command_session.session, execution="eager")
        result = session(
            "u2net_tf.predict",
            {
                "": (
                    f"--model={tmp_path / exports.MODEL_FILE}",
                    f"--domain={TWO}",
                    f"--input={release / 'raw' / TWO / 'imagesTr' / 'two_0.nii.gz'}",
                    "--save_probabilities",
                    f"--output={tmp_path / 'predictions'}",
                )
            },
        )[""]
        assert result["status"] == 0, result
        found, known = (
            nib.load(each / "predictions" / "two_0_probabilities.nii.gz").get_fdata()
            for each in (tmp_path, release)
        )
        np.testing.assert_allclose(found, known, rtol=0, atol=2e-3)


@each_release
def test_onnx_file(folder, release):
    onnxruntime = pytest.importorskip("onnxruntime", reason="extra `export`")
    path = folder / exports.onnx_file(THREE)
    exported = read_exported(path, "onnx")[THREE]
    (domain,) = exported.domain.spec.plan.domains
    patch = artefacts.probe(domain.patch_size, domain.num_modalities)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (found,) = session.run(["probabilities"], {"patches": patch})
    spec, network, _ = load_network(release / exports.ADAPTED)
    index = spec.plan.index(THREE)
    known = segment_patches(network, spec, index, tf.constant(patch)).numpy()
    np.testing.assert_allclose(found, known, rtol=0, atol=2e-3)
