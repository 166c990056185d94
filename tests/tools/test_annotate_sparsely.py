"""Only the label maps of training cases lose slices."""

import json

import nibabel as nib
import numpy as np
import pytest
import toy

from tools.annotate_sparsely import SparseConfig, main
from u2net_tf.errors import InputError
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.volumes import msd


@pytest.fixture
def write(tiny_data, tmp_path):
    def write(**settings):
        (tmp_path / "plan.json").write_text(plan_to_json(tiny_data.plan))
        values = {
            "raw_dir": str(tiny_data.raw_dir / toy.TWO.name),
            "plan": str(tmp_path / "plan.json"),
            "output_dir": str(tmp_path / "out"),
            **settings,
        }
        main(SparseConfig.from_flat(values))
        return msd.read_dataset(tmp_path / "out" / toy.TWO.name)

    return write


@pytest.mark.parametrize(("fill", "value"), [("ignore", 8), ("background", 0)])
def test_every_third_slice_remains(write, tiny_data, capsys, fill, value):
    dataset = write(every=3, fill=fill)
    original = msd.read_dataset(tiny_data.raw_dir / toy.TWO.name)
    assert dataset.ignore_label == (value or None)
    assert dataset.labels == original.labels
    assert dataset.modalities == original.modalities
    for case, old in zip(dataset.cases, original.cases, strict=True):
        assert case.image_path.samefile(old.image_path)
        found, expected = (
            np.array(nib.load(each.label_path).get_fdata()) for each in (case, old)
        )
        if case.name in toy.TWO.train:
            others = [0, 2, 3, 5, 6, 8, 9]
            assert (found[:, :, others] == value).all()
            expected[:, :, others] = value
        np.testing.assert_array_equal(found, expected)
    assert "6 of 20 slices of 2 training cases annotated" in capsys.readouterr().out


def test_an_existing_folder_is_not_written_to(write, tmp_path):
    (tmp_path / "out" / toy.TWO.name).mkdir(parents=True)
    with pytest.raises(InputError, match="expected no such folder"):
        write()
    assert list((tmp_path / "out" / toy.TWO.name).iterdir()) == []


def test_a_dataset_with_an_ignore_label_is_refused(write, tmp_path):
    folder = write().folder
    with pytest.raises(InputError, match="without an ignore label. Received: 8"):
        write(raw_dir=str(folder), output_dir=str(tmp_path / "again"))


def test_case_files_are_listed_by_name(write, tmp_path):
    write()
    content = json.loads((tmp_path / "out" / toy.TWO.name / "dataset.json").read_text())
    assert content["labels"]["8"] == "ignore"
    assert content["training"][0] == {
        "image": "imagesTr/two_0.nii.gz",
        "label": "labelsTr/two_0.nii.gz",
    }
