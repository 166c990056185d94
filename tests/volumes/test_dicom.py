import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from u2net_tf.errors import InputError
from u2net_tf.volumes import dicom, nifti
from u2net_tf.volumes.dicom_folder import is_dicom_folder
from u2net_tf.volumes.grid import check_same_grid

COSINE, SINE = np.cos(0.3), np.sin(0.3)
# Rotated about x, then about z: oblique in all three axes.
DIRECTION = np.array([[COSINE, -SINE, 0], [SINE, COSINE, 0], [0, 0, 1]]) @ np.array(
    [[1, 0, 0], [0, COSINE, -SINE], [0, SINE, COSINE]]
)


def make_image(seed=0):
    values = np.random.default_rng(seed).integers(-900, 900, (6, 9, 8))
    image = sitk.GetImageFromArray(values.astype(np.int16))
    image.SetSpacing((0.75, 1.25, 3.5))
    image.SetOrigin((-30, 12, 101))
    image.SetDirection(DIRECTION.ravel().tolist())
    return image


def write_series(
    folder, image, series="1.2.826.0.1.3680043.2.1125.7", shift_mm=(0, 0, 0)
):
    """Writes a file per slice, as scanners do, each shifted relative to the last."""
    folder.mkdir(parents=True, exist_ok=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for z in range(image.GetSize()[2]):
        piece = image[:, :, z]
        turn = image.GetDirection()
        tags = {
            "0008|0060": "MR",
            "0020|000d": "1.2.826.0.1.3680043.2.1125.1",
            "0020|000e": series,
            "0008|0018": f"{series}.{z + 1}",
            "0020|0032": "\\".join(
                f"{v + z * d:.12g}"
                for v, d in zip(
                    image.TransformIndexToPhysicalPoint((0, 0, z)),
                    shift_mm,
                    strict=True,
                )
            ),
            "0020|0037": "\\".join(f"{turn[i]:.12g}" for i in (0, 3, 6, 1, 4, 7)),
            "0020|0013": str(z),
            "0018|0050": "3.5",
        }
        for tag, value in tags.items():
            piece.SetMetaData(tag, value)
        # File names are not in order: positions determine it.
        writer.SetFileName(str(folder / f"{(z * 5) % 7}_{series[-1]}.dcm"))
        writer.Execute(piece)
    return folder


def test_oblique_series_agrees_with_nifti(tmp_path):
    image = make_image()
    folder = write_series(tmp_path / "series", image)
    sitk.WriteImage(image, tmp_path / "image.nii.gz")
    assert is_dicom_folder(folder)
    found = dicom.load_dicom([folder])
    expected = nifti.load_image(tmp_path / "image.nii.gz")
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_allclose(found.spacing_mm, expected.spacing_mm, rtol=1e-5)
    np.testing.assert_allclose(found.grid.affine, expected.grid.affine, atol=1e-4)
    assert found.grid.axis_codes == expected.grid.axis_codes
    check_same_grid(expected.grid, found.grid)


def test_labels_are_written_on_the_grid_of_the_series(tmp_path):
    image = make_image()
    volume = dicom.load_dicom([write_series(tmp_path / "series", image)])
    labels = (volume.data[0] > 0).astype(np.uint8)
    nifti.save_labels(tmp_path / "out.nii.gz", labels, volume.grid)
    written = sitk.ReadImage(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(image) > 0
    )
    np.testing.assert_allclose(written.GetOrigin(), image.GetOrigin(), atol=1e-3)
    np.testing.assert_allclose(written.GetSpacing(), image.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(written.GetDirection(), image.GetDirection(), atol=1e-5)


def test_a_folder_per_modality(tmp_path):
    folders = [write_series(tmp_path / str(i), make_image(i)) for i in range(2)]
    volume = dicom.load_dicom(folders)
    assert volume.data.shape[0] == 2
    np.testing.assert_array_equal(
        volume.data[1], dicom.load_dicom([folders[1]]).data[0]
    )


def test_modalities_on_different_grids_are_an_error(tmp_path):
    other = make_image(1)
    other.SetOrigin((0, 0, 0))
    folders = [
        write_series(tmp_path / "a", make_image()),
        write_series(tmp_path / "b", other),
    ]
    with pytest.raises(InputError, match="Received: .* mm away") as error:
        dicom.load_dicom(folders)
    assert str(folders[1]) in str(error.value)


def test_missing_slice_is_an_error(tmp_path):
    folder = write_series(tmp_path / "series", make_image())
    (folder / f"{(3 * 5) % 7}_7.dcm").unlink()
    with pytest.raises(InputError, match="from 3.5 to 7 mm") as error:
        dicom.load_dicom([folder])
    assert str(folder) in str(error.value)


def test_two_series_are_an_error(tmp_path):
    folder = write_series(tmp_path / "series", make_image())
    write_series(folder, make_image(1), series="1.2.826.0.1.3680043.2.1125.8")
    with pytest.raises(InputError, match="one DICOM series. Received: 2 series"):
        dicom.load_dicom([folder])


def test_paths_without_a_series(tmp_path):
    assert not is_dicom_folder(tmp_path)
    assert not is_dicom_folder(tmp_path / "nowhere")
    (tmp_path / "file").write_text("x")
    assert not is_dicom_folder(tmp_path / "file")
    with pytest.raises(InputError, match="one DICOM series. Received: 0 series"):
        dicom.load_dicom([tmp_path])


def test_damaged_slice_is_an_error(tmp_path):
    folder = write_series(tmp_path / "series", make_image())
    path = folder / "5_7.dcm"
    path.write_bytes(path.read_bytes()[:-90])
    with pytest.raises(InputError, match="series"):
        dicom.load_dicom([folder])


def test_tilted_gantry_gives_a_sheared_grid(tmp_path, caplog):
    image = make_image()
    image.SetDirection(np.eye(3).ravel().tolist())
    folder = write_series(tmp_path / "series", image, shift_mm=(0, 0.8, 0))
    found = dicom.load_dicom([folder])
    # RAS: rows run to the front.
    np.testing.assert_allclose(found.grid.affine[:3, 2], [0, -0.8, 3.5], atol=1e-6)
    assert found.spacing_mm[0] == pytest.approx(np.hypot(0.8, 3.5))
    assert found.spacing_mm[1:] == pytest.approx((1.25, 0.75))
    check_same_grid(dicom.load_header(folder).grid, found.grid)
    straight = dicom.load_dicom([write_series(tmp_path / "straight", image)])
    np.testing.assert_array_equal(found.data, straight.data)
    assert "series: gantry tilted by 12.9 degrees" in caplog.text
    assert "straight: gantry" not in caplog.text


@pytest.mark.parametrize("shift_mm", [(0, 3.6, 0), (-4, 0, 0)])
def test_slices_far_from_perpendicular_are_an_error(tmp_path, shift_mm):
    image = make_image()
    image.SetDirection(np.eye(3).ravel().tolist())
    folder = write_series(tmp_path / "series", image, shift_mm=shift_mm)
    with pytest.raises(InputError, match="gantry tilted by up to 45 degrees. Received"):
        dicom.load_dicom([folder])


def test_a_slice_with_an_offset_is_an_error(tmp_path):
    image = make_image()
    image.SetDirection(np.eye(3).ravel().tolist())
    folder = write_series(tmp_path / "series", image)
    path = folder / "5_7.dcm"
    dataset = pydicom.dcmread(path)
    dataset.ImagePositionPatient[0] += 0.3
    dataset.save_as(path)
    with pytest.raises(
        InputError, match=r"5_7.dcm: ImagePosition.* a slice 0.3 mm off"
    ):
        dicom.load_dicom([folder])


def test_slices_at_one_position_are_an_error(tmp_path):
    image = make_image()
    image.SetDirection(np.eye(3).ravel().tolist())
    folder = write_series(tmp_path / "series", image, shift_mm=(0, 0, -3.5))
    with pytest.raises(InputError, match="evenly spaced slices"):
        dicom.load_dicom([folder])
