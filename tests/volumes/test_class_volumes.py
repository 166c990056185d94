import dataclasses

import labelled
import nibabel as nib
import numpy as np
import pytest

from u2net_tf.errors import InputError
from u2net_tf.plan.preprocessing import Preprocessing
from u2net_tf.volumes import nifti
from u2net_tf.volumes.class_volumes import (
    read_volumes_ml,
    volumes_ml,
    voxel_volume_ml,
)
from u2net_tf.volumes.label_map_files import save_label_map

SHAPE = (6, 5, 4)


def load_scan(path, affine, zooms=(2, 3, 4)):
    image = nib.Nifti1Image(np.arange(120, dtype=np.int16).reshape(SHAPE), None)
    image.header.set_zooms(zooms)
    image.header.set_sform(affine, code=1)
    nib.save(image, path)
    return nifti.load_image(path)


def test_a_voxel_of_2_by_3_by_4_mm(tmp_path):
    grid = load_scan(tmp_path / "a.nii", np.diag([2, -3, 4, 1])).grid
    assert voxel_volume_ml(grid) == pytest.approx(0.024)


def test_a_sheared_voxel_is_smaller_than_the_product_of_its_edges(tmp_path):
    affine = np.diag([2.0, 3, 4, 1])
    affine[1, 2] = 3
    grid = load_scan(tmp_path / "a.nii", affine, (2, 3, 5)).grid
    assert voxel_volume_ml(grid) == pytest.approx(0.024)


def test_the_voxel_size_has_the_source_of_the_plan(tmp_path):
    grid = load_scan(tmp_path / "a.nii", np.eye(4)).grid
    assert voxel_volume_ml(grid, "affine") == pytest.approx(0.001)
    assert voxel_volume_ml(grid, "pixdim") == pytest.approx(0.024)


@pytest.mark.parametrize("suffix", [".nii.gz", ".nrrd", ".mha", ".seg.nrrd"])
def test_agree_with_those_of_the_written_file(tmp_path, suffix):
    scan = load_scan(tmp_path / "a.nii", np.diag([2, -3, 4, 1]))
    classes = labelled.make_classes(SHAPE[::-1])
    path = tmp_path / f"out{suffix}"
    save_label_map(path, classes, scan.grid, labelled.DOMAIN)
    found = read_volumes_ml(path, tmp_path / "a.nii", labelled.DOMAIN)
    counts = np.bincount(classes.ravel())
    assert found == pytest.approx(
        {
            "liver": counts[1] * 0.024,
            "left_kidney": counts[2] * 0.024,
            labelled.LONG: counts[3] * 0.024,
            "absent & <none>": 0,
        }
    )
    assert volumes_ml(classes, scan.grid, labelled.DOMAIN) == pytest.approx(found)


@pytest.mark.parametrize("suffix", [".nii", ".nrrd", ".mha", ".seg.nrrd"])
@pytest.mark.parametrize("source", ["pixdim", "affine"])
def test_of_a_written_file_have_the_source_of_the_plan(tmp_path, suffix, source):
    scan = load_scan(tmp_path / "a.nii", np.eye(4))
    classes = labelled.make_classes(SHAPE[::-1])
    domain = dataclasses.replace(
        labelled.DOMAIN, preprocessing=Preprocessing(spacing_source=source)
    )
    path = tmp_path / f"out{suffix}"
    save_label_map(path, classes, scan.grid, domain)
    found = read_volumes_ml(path, tmp_path / "a.nii", domain)
    assert found == pytest.approx(volumes_ml(classes, scan.grid, domain))


def test_memory_is_limited(tmp_path):
    scan = load_scan(tmp_path / "a.nii", np.diag([2, -3, 4, 1]))
    classes = labelled.make_classes(SHAPE[::-1])
    save_label_map(tmp_path / "out.nii", classes, scan.grid, labelled.DOMAIN)
    with pytest.raises(InputError, match="out.nii: expected .* GB"):
        read_volumes_ml(
            tmp_path / "out.nii",
            tmp_path / "a.nii",
            labelled.DOMAIN,
            max_memory_gb=1e-9,
        )


def test_of_an_edited_label_map(tmp_path):
    """All values of a class are counted; other values are an error."""
    scan = load_scan(tmp_path / "a.nii", np.diag([2, -3, 4, 1]))
    labels = np.zeros(SHAPE[::-1], int)
    labels[0, 0, :3] = 7, 8, 8
    nifti.save_labels(tmp_path / "out.nii", labels, scan.grid)
    found = read_volumes_ml(tmp_path / "out.nii", tmp_path / "a.nii", labelled.DOMAIN)
    assert found["left_kidney"] == pytest.approx(3 * 0.024)
    domain = dataclasses.replace(labelled.DOMAIN, labels=labelled.DOMAIN.labels[:2])
    with pytest.raises(InputError, match=r"out.nii: expected labels among 0, 1\. Rec"):
        read_volumes_ml(tmp_path / "out.nii", tmp_path / "a.nii", domain)
