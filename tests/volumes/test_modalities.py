import logging

import nibabel as nib
import numpy as np
import pytest

from u2net_tf.errors import InputError
from u2net_tf.volumes import modalities, nifti

# Gradient (x, y, z) of a linear function, which linear interpolation reproduces.
SLOPES = np.array([2.0, -3.0, 5.0])


def write(path, shape, affine):
    """Writes a file whose intensities are a linear function of world coordinates."""
    indices = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    values = nib.affines.apply_affine(affine, indices) @ SLOPES + 1000
    nib.save(nib.Nifti1Image(values.astype(np.float32), affine), path)
    return nifti.load_image(path)


def affine(spacing, origin=(0, 0, 0), turn=None):
    matrix = np.diag(spacing) if turn is None else turn @ np.diag(spacing)
    return nib.affines.from_matvec(matrix, origin)


OBLIQUE = nib.eulerangles.euler2mat(0.2, -0.3, 0.1)
SHEAR = np.array([[1, 0.2, 0], [0, 1, 0], [0, 0, 1]])


@pytest.fixture
def first(tmp_path):
    return write(tmp_path / "t2.nii", (6, 7, 8), affine((1, 1, 2), (3, 4, 5)))


@pytest.mark.parametrize(
    ("shape", "other"),
    [
        ((20, 20, 20), affine((0.9, 0.7, 1.5), (0, 1, 2))),
        # Stored from right to left, then rotated and sheared.
        ((20, 20, 20), affine((-0.9, 0.7, 1.5), (12, 1, 2))),
        ((40, 40, 40), affine((0.9, 0.7, 1.5), (-10, -6, -10), OBLIQUE)),
        ((40, 40, 40), affine((0.9, 0.7, 1.5), (-10, -6, -10), SHEAR)),
    ],
)
def test_different_grids_are_resampled_to_the_first(
    tmp_path, first, shape, other, caplog
):
    moved = write(tmp_path / "adc.nii", shape, other)
    with caplog.at_level(logging.WARNING):
        stacked = modalities.stack([first, moved], resample=True)
    np.testing.assert_allclose(stacked.data[1], first.data[0], atol=2e-3)
    np.testing.assert_array_equal(stacked.data[0], first.data[0])
    assert (stacked.grid, stacked.spacing_mm) == (first.grid, first.spacing_mm)
    # A shear is reported in another warning.
    *_, message = caplog.messages
    assert message.startswith(f"{tmp_path / 'adc.nii'}: resampled from {shape[0]} × ")
    assert message.endswith(f"{first.grid.path}, 6 × 7 × 8 voxels of 1 × 1 × 2 mm, RAS")


def test_the_same_grid_is_not_resampled(tmp_path, first, caplog):
    other = write(tmp_path / "adc.nii", (6, 7, 8), affine((1, 1, 2), (3, 4, 5)))
    for resample in (False, True):
        stacked = modalities.stack([first, other], resample=resample)
        np.testing.assert_array_equal(stacked.data, [first.data[0], other.data[0]])
    assert not caplog.records


def test_the_outside_of_a_modality_gets_its_lowest_intensity(tmp_path, first, caplog):
    half = write(tmp_path / "adc.nii", (6, 7, 4), affine((1, 1, 2), (3, 4, 5)))
    stacked = modalities.stack([first, half], resample=True)
    np.testing.assert_allclose(stacked.data[1][:4], first.data[0][:4], atol=1e-3)
    np.testing.assert_array_equal(stacked.data[1][4:], half.data.min())
    assert "of which 50.0% is outside and gets the lowest" in caplog.text


def test_disjoint_grids_are_an_error(tmp_path, first):
    other = write(tmp_path / "adc.nii", (6, 7, 8), affine((1, 1, 2), (300, 4, 5)))
    with pytest.raises(InputError, match="adc.nii: expected a volume that overlaps"):
        modalities.stack([first, other], resample=True)


def test_an_error_names_both_grids(tmp_path, first):
    other = write(tmp_path / "adc.nii", (3, 7, 8), affine((2, 1, 2), (3, 4, 5)))
    with pytest.raises(InputError) as caught:
        modalities.stack([first, other])
    shape, moved = (
        "6 × 7 × 8 voxels of 1 × 1 × 2 mm",
        "3 × 7 × 8 voxels of 2 × 1 × 2 mm",
    )
    assert str(caught.value) == (
        f"{tmp_path / 'adc.nii'}: expected the grid of {tmp_path / 't2.nii'}, {shape}, "
        f"RAS. Received: {moved}, RAS ((3, 7, 8)). With `resample_modalities` it is "
        "resampled to that grid"
    )


def test_several_modalities_in_one_of_the_files(tmp_path, first):
    array = np.ones((6, 7, 8, 2), np.uint8)
    nib.save(nib.Nifti1Image(array, np.eye(4)), tmp_path / "4d.nii")
    with pytest.raises(InputError, match="4d.nii: expected a 3-D file, one per"):
        modalities.stack([first, nifti.load_image(tmp_path / "4d.nii")])
