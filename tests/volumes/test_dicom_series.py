"""Selection of the files of a series; other files are reported."""

import numpy as np
import pytest
from pydicom import uid

from tests.volumes import dicom_files
from u2net_tf.errors import InputError
from u2net_tf.volumes import dicom
from u2net_tf.volumes.dicom_folder import is_dicom_folder

OTHER = "1.2.3.15"


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return dicom_files.save(
        tmp_path_factory.mktemp("series"), dicom_files.make_series()
    )


@pytest.fixture
def folder(tmp_path, written):
    """A series of six slices, to be extended by tests."""
    for path in written.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def save_other(folder, dataset):
    dataset.save_as(folder / "other.dcm", enforce_file_format=True)


def check_skipped(folder, caplog, name):
    volume = dicom.load_dicom([folder])
    assert volume.data.shape[1] == 6
    assert f"reads 6 files of series 1.2.3.14; skips {name}" in caplog.text


def test_localizer_is_skipped(folder, caplog):
    values = dicom_files.slice_values(2, 16)
    other = dicom_files.make_slice(values[0], 0, series=OTHER)
    save_other(folder, other)
    check_skipped(folder, caplog, "other.dcm")


def test_localizer_of_two_slices_is_skipped(folder, caplog):
    for index, values in enumerate(dicom_files.slice_values(2, 16)):
        other = dicom_files.make_slice(values, index, series=OTHER, number=index)
        other.ImageType = ["ORIGINAL", "PRIMARY", "LOCALIZER"]
        other.save_as(folder / f"scout{index}", enforce_file_format=True)
    check_skipped(folder, caplog, "scout0, scout1")


def test_segmentation_is_skipped(folder, caplog):
    other = dicom_files.make_enhanced([0, 3, 6])
    other.SOPClassUID = uid.SegmentationStorage
    other.SeriesInstanceUID = OTHER
    save_other(folder, other)
    check_skipped(folder, caplog, "other.dcm")


def test_second_image_at_the_position_of_a_slice_is_skipped(folder, caplog):
    """For example a screenshot or a dose map; no slice is lost."""
    values = dicom_files.slice_values(1)[0]
    save_other(folder, dicom_files.make_slice(values, 6, series=OTHER))
    check_skipped(folder, caplog, "other.dcm")


def test_files_of_other_formats_are_skipped(folder, caplog):
    (folder / "notes.txt").write_text("a scan")
    (folder / ".DS_Store").write_text("a folder")
    (folder / "DICOMDIR").write_bytes((folder / "0.dcm").read_bytes())
    check_skipped(folder, caplog, "notes.txt")


@pytest.mark.parametrize("height", [-3, 18])
def test_neighbour_of_another_series_is_an_error(folder, height):
    """Its position shows that it belongs to the series, despite its header."""
    values = dicom_files.slice_values(1)[0]
    save_other(folder, dicom_files.make_slice(values, height, series=OTHER))
    with pytest.raises(InputError, match=r"other\.dcm: SeriesInstanceUID .*1.2.3.14"):
        dicom.load_dicom([folder])


def test_middle_of_three_slices_in_another_series_is_an_error(tmp_path):
    series = dicom_files.make_series(3)
    series[1].SeriesInstanceUID = OTHER
    folder = dicom_files.save(tmp_path, series)
    with pytest.raises(InputError, match=r"1\.dcm: SeriesInstanceUID"):
        dicom.load_dicom([folder])


def test_byte_inserted_into_pixels_is_an_error(folder):
    path = folder / "3.dcm"
    path.write_bytes(path.read_bytes()[:-50] + b"\0" + path.read_bytes()[-50:])
    with pytest.raises(InputError, match=r"3\.dcm: PixelData .*129 bytes"):
        dicom.load_dicom([folder])


def test_damaged_image_of_another_series_is_an_error(folder):
    """It may be a slice with two damaged tags."""
    other = dicom_files.make_slice(dicom_files.slice_values(1)[0], 18, series=OTHER)
    del other.ImagePositionPatient
    save_other(folder, other)
    with pytest.raises(InputError, match=r"other\.dcm: ImagePositionPatient"):
        dicom.load_dicom([folder])


@pytest.mark.parametrize("index", [0, 3, 5])
@pytest.mark.parametrize("size", [0, 60, 200, 400, -100, -1])
def test_truncated_slice_is_an_error(folder, index, size):
    path = folder / f"{index}.dcm"
    path.write_bytes(path.read_bytes()[: size or 0])
    with pytest.raises(InputError, match=rf"{index}\.dcm"):
        dicom.load_dicom([folder])


def test_broken_link_is_an_error(folder):
    """Links may lead to an archive that is not available."""
    path = folder / "5.dcm"
    path.unlink()
    path.symlink_to("archive/5.dcm")
    with pytest.raises(InputError, match=r"5\.dcm: .* a broken link to archive/5\.dcm"):
        dicom.load_dicom([folder])


@pytest.mark.parametrize("name", ["IM{}", "1.2.3.14.{}"])
def test_names_without_a_suffix(tmp_path, name, caplog):
    folder = dicom_files.save(tmp_path, dicom_files.make_series(), name)
    expected = dicom_files.slice_values()[:, ::-1, ::-1] - 1024
    np.testing.assert_array_equal(dicom.load_dicom([folder]).data[0], expected)
    path = folder / name.format(5)
    path.write_bytes(b"")
    with pytest.raises(InputError, match=rf"{path.name}: expected a DICOM file"):
        dicom.load_dicom([folder])


def test_missing_slice_is_reported_with_its_neighbours(folder):
    (folder / "3.dcm").unlink()
    with pytest.raises(InputError, match=r"6 from 2\.dcm to 4\.dcm"):
        dicom.load_dicom([folder])


def test_missing_first_slice_is_a_warning(folder, caplog):
    (folder / "0.dcm").unlink()
    assert dicom.load_dicom([folder]).data.shape[1] == 5
    assert "has 5 slices with InstanceNumber 2 to 6; some may be missing" in caplog.text


def test_number_of_slices_of_pet_is_compared(tmp_path):
    series = dicom_files.make_series(
        sop_class=uid.PositronEmissionTomographyImageStorage, intercept=0
    )
    for dataset in series:
        dataset.NumberOfSlices = 7
    folder = dicom_files.save(tmp_path, series)
    with pytest.raises(InputError, match=r"NumberOfSlices .*expected 6"):
        dicom.load_dicom([folder])


def test_multi_frame_files_of_one_series_are_an_error(tmp_path):
    files = [dicom_files.make_enhanced([0, 3, 6]) for _ in range(2)]
    folder = dicom_files.save(tmp_path, files)
    with pytest.raises(InputError, match=r"0\.dcm: NumberOfFrames .*2 files"):
        dicom.load_dicom([folder])


def test_ambiguous_series_are_listed(folder):
    for index, dataset in enumerate(dicom_files.make_series(series=OTHER)):
        dataset.save_as(folder / f"b{index}.dcm", enforce_file_format=True)
    with pytest.raises(InputError, match=r"2 series \(6 slices such as 0\.dcm, 6"):
        dicom.load_dicom([folder])


def test_folder_of_other_files_is_not_a_dicom_folder(tmp_path, capfd):
    (tmp_path / "scan.nii").write_bytes(b"\x5c\x01" + bytes(400))
    # A DICOMDIR lists files in other folders.
    (tmp_path / "DICOMDIR").write_bytes(bytes(128) + b"DICM")
    assert not is_dicom_folder(tmp_path)
    assert capfd.readouterr() == ("", "")


def test_output_of_libraries_is_hidden(folder, capfd):
    """ITK warns about slightly uneven slices without naming the file."""
    path = folder / "3.dcm"
    dicom_files.replace_text(path, "ImagePositionPatient", "-10\\5\\9.004")
    dicom.load_dicom([folder])
    assert capfd.readouterr() == ("", "")
