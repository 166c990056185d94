from xml.etree import ElementTree

import labelled
import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from u2net_tf.plan.labels import Label
from u2net_tf.volumes import images, nifti, nifti_labels
from u2net_tf.volumes.label_map_files import save_label_map

SHAPE = (6, 5, 4)


@pytest.fixture
def scan(tmp_path):
    """A scan with texts and extensions of other programs, including a label table."""
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), None)
    image.header.set_zooms((2, 3, 4))
    image.header.set_sform(np.diag([-2, 3, 4, 1]) + np.eye(4, k=3), code=1)
    image.header.set_intent("t test", (3,), name="of a scan")
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"a note"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("caret", b"<old/>"))
    nib.save(image, tmp_path / "scan.nii")
    return nifti.load_image(tmp_path / "scan.nii")


def table_of(image):
    (content,) = [e for e in image.header.extensions if e.get_code() == 30]
    return ElementTree.fromstring(content.content.rstrip(b"\0"))


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_contains_names_and_colours(scan, tmp_path, suffix):
    path = tmp_path / f"out{suffix}"
    classes = labelled.make_classes(SHAPE[::-1])
    save_label_map(path, classes, scan.grid, labelled.DOMAIN)
    found = nib.load(path)
    assert found.header.get_intent() == ("label", (), "")
    rows = [(int(r.get("Key")), r.text) for r in table_of(found).iter("Label")]
    assert rows == [(label.values[0], label.name) for label in labelled.DOMAIN.labels]
    colours = {r.get("Red") + r.get("Green") for r in table_of(found).iter("Label")}
    assert len(colours) == len(rows)
    codes = [extension.get_code() for extension in found.header.extensions]
    assert codes == [6, 30]


def test_changes_nothing_else(scan, tmp_path):
    classes = labelled.make_classes(SHAPE[::-1])
    labels = np.array([0, 1, 7, 300])[classes]
    nifti.save_labels(tmp_path / "plain.nii.gz", labels, scan.grid)
    save_label_map(tmp_path / "out.nii.gz", classes, scan.grid, labelled.DOMAIN)
    plain, found = (nib.load(tmp_path / f"{n}.nii.gz") for n in ("plain", "out"))
    assert found.header.get_data_dtype() == np.int16
    np.testing.assert_array_equal(found.dataobj, plain.dataobj)
    for field in set(found.header.keys()) - {"vox_offset"}:
        np.testing.assert_array_equal(found.header[field], plain.header[field])
    # ITK ignores unknown extensions.
    read = sitk.ReadImage(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(read), np.asarray(plain.dataobj).T
    )
    np.testing.assert_allclose(read.GetSpacing(), (2, 3, 4))
    again = images.load_labels(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(again.data, labels)
    assert not again.notes
    # The header of the scan is not modified.
    assert len(scan.grid.header.extensions) == 2
    assert scan.grid.header.get_intent()[0] == "t test"


def test_names_with_characters_invalid_in_xml():
    header = nib.Nifti1Header()
    nifti_labels.describe_labels(header, [Label("a\x01b\ufffe", (0,))])
    image = nib.Nifti1Image(np.zeros((1, 1, 1), np.uint8), np.eye(4), header)
    assert [row.text for row in table_of(image).iter("Label")] == ["a b "]
