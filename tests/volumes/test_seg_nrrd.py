import dataclasses

import labelled
import numpy as np
import pytest
import SimpleITK as sitk

from u2net_tf.errors import InputError
from u2net_tf.plan.labels import Label
from u2net_tf.volumes import images, nifti
from u2net_tf.volumes.label_map_files import require_format, save_label_map

SHAPE = (4, 5, 6)


@pytest.fixture
def grid(tmp_path):
    image = sitk.GetImageFromArray(np.arange(120, dtype=np.int16).reshape(SHAPE))
    image.SetSpacing((0.75, 1.25, 3.5))
    image.SetOrigin((-30, 12, 101))
    c, s = np.cos(0.3), np.sin(0.3)
    image.SetDirection([c, -s, 0, s, c, 0, 0, 0, 1])
    sitk.WriteImage(image, tmp_path / "scan.nii")
    return nifti.load_image(tmp_path / "scan.nii").grid


def test_segments_are_named(grid, tmp_path):
    path = tmp_path / "out.seg.nrrd"
    classes = labelled.make_classes(SHAPE)
    save_label_map(path, classes, grid, labelled.DOMAIN)
    found = sitk.ReadImage(path)
    fields = {key: found.GetMetaData(key) for key in found.GetMetaDataKeys()}
    assert fields["Segmentation_SourceRepresentation"] == "Binary labelmap"
    assert fields["Segmentation_ContainedRepresentationNames"] == "Binary labelmap|"
    for number, label in enumerate(labelled.DOMAIN.labels[1:]):
        segment = f"Segment{number}"
        assert fields[f"{segment}_Name"] == label.name
        assert fields[f"{segment}_LabelValue"] == str(label.values[0])
        assert fields[f"{segment}_Layer"] == "0"
        assert fields[f"{segment}_ID"] == f"Segment_{number + 1}"
        assert fields[f"{segment}_Extent"] == "0 5 0 4 0 3"
    assert f"Segment{number + 1}_Name" not in fields
    assert fields["Segment0_Color"] == "1 0.301961 0.301961"
    assert (
        "~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~"
        in (fields["Segment0_Tags"])
    )
    assert "~SCT^64033007^Kidney~SCT^7771000^Left~" in fields["Segment1_Tags"]
    assert "Segment2_Tags" not in fields


def test_voxels_and_geometry(grid, tmp_path):
    path = tmp_path / "out.seg.nrrd"
    classes = labelled.make_classes(SHAPE)
    save_label_map(path, classes, grid, labelled.DOMAIN)
    found, scan = sitk.ReadImage(path), sitk.ReadImage(tmp_path / "scan.nii")
    assert found.GetPixelID() == sitk.sitkInt16
    for read in (
        sitk.Image.GetSize,
        sitk.Image.GetSpacing,
        sitk.Image.GetOrigin,
        sitk.Image.GetDirection,
    ):
        np.testing.assert_allclose(read(found), read(scan), atol=1e-5)
    labels = images.load_labels(path)
    np.testing.assert_array_equal(labels.data, np.array(labelled.VALUES)[classes])


def test_small_values_are_bytes(grid, tmp_path):
    """The background is written as 0, even if its first value is another."""
    labels = (Label("background", (5, 0)), Label("organ", (255,)))
    domain = dataclasses.replace(labelled.DOMAIN, labels=labels)
    classes = labelled.make_classes(SHAPE, 2)
    save_label_map(tmp_path / "out.seg.nrrd", classes, grid, domain)
    found = sitk.GetArrayFromImage(sitk.ReadImage(tmp_path / "out.seg.nrrd"))
    assert found.dtype == np.uint8
    assert np.unique(found).tolist() == [0, 255]


@pytest.mark.parametrize("value", [-1, 2**15])
def test_values_of_segments_are_small_and_positive(grid, tmp_path, value):
    labels = (Label("background", (0,)), Label("organ", (value,)))
    domain = dataclasses.replace(labelled.DOMAIN, labels=labels)
    with pytest.raises(InputError, match=f"`output_format`: .* {value} of 'organ' in"):
        require_format("seg_nrrd", [], domain)
    with pytest.raises(InputError, match="expected class values from 1 to 32,767"):
        save_label_map(tmp_path / "o.seg.nrrd", np.zeros(SHAPE, int), grid, domain)
    assert [path.name for path in tmp_path.iterdir()] == ["scan.nii"]
