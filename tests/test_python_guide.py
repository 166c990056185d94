"""The code in docs/python.md runs."""

import pathlib
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import toy

pytest.importorskip("onnx", reason="needs the extra `export`")
pytest.importorskip("openvino", reason="needs the extra `export`")
# `packed` imports onnx itself.
import packed  # noqa: E402

from tests.volumes import dicom_files  # noqa: E402
from u2net_tf.models.build import build_network  # noqa: E402
from u2net_tf.models.loading import save_model  # noqa: E402
from u2net_tf.models.spec import ModelSpec  # noqa: E402

GUIDE = pathlib.Path(__file__).parents[1] / "docs" / "python.md"
BLOCKS = re.findall(r"```python\n(.*?)```", GUIDE.read_text(encoding="utf-8"), re.S)
# The guide's names of domains -> those of the model that the test makes.
DOMAINS = {"Task04_Hippocampus": toy.ONE.name, "Task05_Prostate": toy.TWO.name}


def write_inputs(folder, plan):
    packed.write(folder / "organs.u2net", packed.make_members())
    spec = ModelSpec(plan=plan, pools=(1, 0, 1), base_channels=2)
    save_model(folder / "model", spec, build_network(spec))
    draw = np.random.default_rng(0)
    for name in ("scan", "other", "t2", "adc"):
        image = nib.Nifti1Image(
            draw.uniform(1, 9, (12, 11, 10)).astype(np.float32), np.diag([-1, 1, 2, 1])
        )
        nib.save(image, folder / f"{name}.nii.gz")


@pytest.mark.usefixtures("plain_implementation")
def test_every_block_runs(tiny_data, tmp_path, monkeypatch, capsys):
    write_inputs(tmp_path, tiny_data.plan)
    dicom_files.save(tmp_path / "dicom_series", dicom_files.make_series())
    monkeypatch.chdir(tmp_path)
    names = {}
    for block in BLOCKS:
        for name, replacement in DOMAINS.items():
            block = block.replace(name, replacement)
        exec(compile(block, str(GUIDE), "exec"), names)
    printed = capsys.readouterr().out
    assert f"('{toy.ONE.name}', '{toy.TWO.name}')" in printed
    assert "`domain`: expected one of" in printed
    assert "(None, 16, 16, 16, 8)" in printed
    labels = nib.load(tmp_path / "labels.nii.gz")
    assert labels.shape == (12, 11, 10)
    np.testing.assert_array_equal(names["result"].labels.T, labels.dataobj)
    assert len(names["results"]) == 2
    patches = np.random.default_rng(0).normal(size=(1, 8, 8, 8, 1)).astype(np.float32)
    spec, network, _ = names["u2net_tf"].load_network("model")
    assert spec == names["spec"]
    np.testing.assert_array_equal(
        names["one_domain"](patches), network(patches, domain=0)
    )
    assert (tmp_path / "network_saved_model" / "saved_model.pb").is_file()
    assert names["config"].run.max_epochs == 100
    assert names["scores"].num_cases == 2
    assert f"'{toy.TWO.name}/core': " in printed
    shutil.rmtree(tmp_path)
