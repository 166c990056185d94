"""DICOM segmentations, read back by highdicom, pydicom and ITK."""

import copy
import dataclasses
import errno
import logging
import sys

import labelled
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk

from tests.volumes import dicom_files
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.volumes import dicom, dicom_segmentation
from u2net_tf.volumes.dicom_segments import count_voxels
from u2net_tf.volumes.grid import Grid, check_same_grid
from u2net_tf.volumes.itk_geometry import LPS_TO_RAS
from u2net_tf.volumes.label_map_files import require_format, save_label_map

highdicom = pytest.importorskip("highdicom", reason="the extra dicom_seg")
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:(pydicom|highdicom)")

START_MM = np.array([-10.0, 5.0, 2.0])
ROW = np.array([np.cos(0.3), np.sin(0.3), 0])
COLUMN = np.array([-np.sin(0.3) * np.cos(0.4), np.cos(0.3) * np.cos(0.4), np.sin(0.4)])
# Steps in mm along a row, along a column and between slices.
STRAIGHT = ((1, 0, 0), (0, 1, 0), (0, 0, 3))
OBLIQUE = (ROW, COLUMN, 3 * np.cross(ROW, COLUMN))
TILTED = ((1, 0, 0), (0, 1, 0), (0, 0.8, 3))
SERIES = pytest.mark.parametrize("axes", [STRAIGHT, OBLIQUE, TILTED])


def make_series(axes=STRAIGHT, **tags):
    """Returns slices with the tags that a segmentation refers to."""
    slices = dicom_files.make_series()
    row, column, step = map(np.array, axes)
    for index, dataset in enumerate(slices):
        dataset.ImageOrientationPatient = np.round([*row, *column], 12).tolist()
        position = START_MM + index * step
        dataset.ImagePositionPatient = np.round(position, 10).tolist()
        make_referable(dataset, **tags)
    return slices


def make_referable(dataset, **tags):
    dataset.StudyInstanceUID = "1.2.3.4"
    dataset.FrameOfReferenceUID = "1.2.3.5"
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)


def save_series(folder, axes=STRAIGHT, **tags):
    # File names are in reverse order: positions determine it.
    return dicom_files.save(folder, make_series(axes, **tags)[::-1])


def predict(path, source, domain=labelled.DOMAIN):
    """Writes a segmentation of a source; returns the class indices on its grid."""
    volume = dicom.load_dicom([source])
    classes = labelled.make_classes(volume.data.shape[1:])
    save_label_map(path, classes, volume.grid, domain)
    return classes, volume.grid


@SERIES
def test_segments_refer_to_their_slices(tmp_path, axes):
    series = save_series(tmp_path / "series", axes)
    classes, grid = predict(tmp_path / "out.dcm", series)
    found = highdicom.seg.segread(tmp_path / "out.dcm")
    files = {pydicom.dcmread(path).SOPInstanceUID: path for path in series.iterdir()}
    planes = grid.from_canonical(classes).T
    for index, plane in enumerate(planes):
        uid = f"{dicom_files.SERIES}.{index + 1}"
        frames = found.get_pixels_by_source_instance([uid], combine_segments=True)
        np.testing.assert_array_equal(frames[0], plane)
        assert uid in files
    # Frames have the positions of their slices.
    dataset = pydicom.dcmread(tmp_path / "out.dcm")
    places = {
        tuple(frame.PlanePositionSequence[0].ImagePositionPatient)
        for frame in dataset.PerFrameFunctionalGroupsSequence
    }
    expected = [START_MM + index * np.array(axes[2]) for index in range(len(planes))]
    np.testing.assert_allclose(sorted(places), sorted(map(tuple, expected)), atol=1e-6)


@pytest.mark.parametrize("axes", [STRAIGHT, OBLIQUE])
def test_geometry_as_read_by_highdicom(tmp_path, axes):
    classes, grid = predict(
        tmp_path / "out.dcm", save_series(tmp_path / "series", axes)
    )
    volume = highdicom.seg.segread(tmp_path / "out.dcm").get_volume(
        combine_segments=True
    )
    # The affine is in LPS, for (plane, row, column).
    affine = LPS_TO_RAS @ volume.affine[:, [2, 1, 0, 3]]
    read = Grid("", volume.spatial_shape[::-1], affine, grid.header, grid.image_class)
    np.testing.assert_array_equal(read.canonical_view(volume.array.T), classes)
    check_same_grid(grid, read)


@SERIES
def test_frames_and_positions_as_read_by_itk(tmp_path, axes):
    classes, grid = predict(
        tmp_path / "out.dcm", save_series(tmp_path / "series", axes)
    )
    found = sitk.ReadImage(tmp_path / "out.dcm")
    frames = sitk.GetArrayFromImage(found)
    dataset = pydicom.dcmread(tmp_path / "out.dcm")
    planes = grid.from_canonical(classes).T
    for frame, item in zip(
        frames, dataset.PerFrameFunctionalGroupsSequence, strict=True
    ):
        number = item.SegmentIdentificationSequence[0].ReferencedSegmentNumber
        place = np.array(item.PlanePositionSequence[0].ImagePositionPatient)
        index = round((place - START_MM) @ axes[2] / np.dot(axes[2], axes[2]))
        np.testing.assert_array_equal(frame != 0, planes[index] == number)
    first = dataset.PerFrameFunctionalGroupsSequence[0].PlanePositionSequence[0]
    np.testing.assert_allclose(found.GetOrigin(), first.ImagePositionPatient)
    direction = np.array(found.GetDirection()).reshape(3, 3)
    np.testing.assert_allclose(direction[:, :2].T, axes[:2], atol=1e-6)


def test_frames_of_a_multi_frame_file(tmp_path):
    # The order of frames differs from that of their positions.
    dataset = dicom_files.make_enhanced([6, 0, 3, 9, 12, 15])
    make_referable(dataset)
    dicom_files.save(tmp_path, [dataset], "scan.dcm")
    classes, grid = predict(tmp_path / "out.dcm", tmp_path / "scan.dcm")
    found = highdicom.seg.segread(tmp_path / "out.dcm")
    planes = grid.from_canonical(classes).T
    for frame, plane in ((2, 0), (3, 1), (1, 2), (4, 3)):
        pixels = found.get_pixels_by_source_frame(
            dataset.SOPInstanceUID, [frame], combine_segments=True
        )
        np.testing.assert_array_equal(pixels[0], planes[plane])


def test_segments_are_described(tmp_path):
    predict(tmp_path / "out.dcm", save_series(tmp_path / "series"))
    found = highdicom.seg.segread(tmp_path / "out.dcm")
    assert found.SegmentationType == "BINARY"
    assert found.SeriesDescription == "Segmentation Task03_Liver"
    liver, kidney, long, absent = found.SegmentSequence
    assert liver.SegmentLabel == "liver"
    kind = liver.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("10200004", "SCT")
    (kind,) = kidney.SegmentedPropertyTypeCodeSequence
    assert kind.CodeMeaning == "Kidney"
    (side,) = kind.SegmentedPropertyTypeModifierCodeSequence
    assert side.CodeMeaning == "Left"
    # A class without a code gets a private one.
    assert long.SegmentedPropertyTypeCodeSequence[0].CodingSchemeDesignator == "99U2NET"
    assert long.SegmentLabel == ("Größe / " + "x" * 56)
    assert long.SegmentDescription == labelled.LONG
    assert absent.SegmentLabel == "absent & <none>"
    assert "SegmentDescription" not in liver
    colours = [tuple(s.RecommendedDisplayCIELabValue) for s in found.SegmentSequence]
    assert len(set(colours)) == 4


def test_belongs_to_the_patient_and_study(tmp_path):
    tags = {
        "SpecificCharacterSet": "ISO_IR 100",
        "PatientName": "Müller^Jörg",
        "PatientID": "17",
        # Values that occur in practice but are invalid in DICOM.
        "PatientBirthDate": "19500000",
        "PatientSex": "W",
        "StudyDate": "20200131",
    }
    with pydicom.config.disable_value_validation():
        series = save_series(tmp_path / "series", **tags)
    predict(tmp_path / "out.dcm", series)
    found = pydicom.dcmread(tmp_path / "out.dcm")
    assert found.SpecificCharacterSet == "ISO_IR 192"
    assert str(found.PatientName) == "Müller^Jörg"
    assert (found.PatientID, found.StudyDate) == ("17", "20200131")
    assert (found.PatientBirthDate, found.PatientSex) == ("", "")
    assert found.StudyInstanceUID == "1.2.3.4"
    assert found.FrameOfReferenceUID == "1.2.3.5"
    assert found.SeriesInstanceUID != dicom_files.SERIES


def test_patient_data_are_not_logged(tmp_path, caplog):
    """highdicom logs names without a caret."""
    series = save_series(tmp_path / "series", PatientName="Roe", PatientID="P17")
    with caplog.at_level(logging.DEBUG):
        predict(tmp_path / "out.dcm", series)
    assert str(pydicom.dcmread(tmp_path / "out.dcm").PatientName) == "Roe"
    for text in ("Roe", "P17", dicom_files.SERIES, "highdicom"):
        assert text not in caplog.text


def test_a_full_disk_leaves_no_partial_file(tmp_path, monkeypatch):
    series = save_series(tmp_path / "series")

    def save_as(self, path):
        path.write_bytes(b"half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(highdicom.seg.Segmentation, "save_as", save_as)
    with pytest.raises(OSError, match="No space left on device: .*out.dcm"):
        predict(tmp_path / "out.dcm", series)
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


# Frames of 8 × 7 bits are whole bytes, others begin or end within a byte.
@pytest.mark.parametrize(("rows", "columns"), [(8, 7), (7, 7), (7, 6), (5, 3)])
def test_voxels_of_each_segment_are_counted(tmp_path, rows, columns):
    slices = make_series()
    for dataset in slices:
        values = dataset.pixel_array[:rows, :columns]
        dataset.Rows, dataset.Columns = values.shape
        dataset.PixelData = values.tobytes()
    series = dicom_files.save(tmp_path / "series", slices)
    classes, _ = predict(tmp_path / "out.dcm", series)
    expected = {number: int((classes == number).sum()) for number in range(1, 5)}
    assert count_voxels(tmp_path / "out.dcm", labelled.DOMAIN) == expected
    assert expected[4] == 0
    damaged = pydicom.dcmread(tmp_path / "out.dcm")
    damaged.PixelData = damaged.PixelData[:-4]
    damaged.save_as(tmp_path / "damaged.dcm")
    with pytest.raises(InputError, match=r"damaged.dcm: expected a DICOM seg"):
        count_voxels(tmp_path / "damaged.dcm", labelled.DOMAIN)
    (tmp_path / "out.dcm").write_bytes(b"edited")
    with pytest.raises(InputError, match="out.dcm: expected a DICOM segmentation"):
        count_voxels(tmp_path / "out.dcm", labelled.DOMAIN)


@pytest.mark.parametrize("change", ["emptied", "renumbered", "renamed", "added"])
def test_voxels_of_edited_segments(tmp_path, change):
    classes, grid = predict(tmp_path / "out.dcm", save_series(tmp_path / "series"))
    edited = pydicom.dcmread(tmp_path / "out.dcm")
    segments = edited.SegmentSequence
    if change == "emptied":
        # The last class has no frames.
        del segments[3]
    if change == "renumbered":
        segments[0].SegmentNumber, segments[1].SegmentNumber = 2, 1
    if change == "renamed":
        segments[1].SegmentLabel = "vessel"
    if change == "added":
        segments.append(copy.deepcopy(segments[0]))
        segments[-1].SegmentNumber = 5
    edited.save_as(tmp_path / "out.dcm")
    if change == "emptied":
        found = count_voxels(tmp_path / "out.dcm", labelled.DOMAIN)
        assert found == {number: (classes == number).sum() for number in (1, 2, 3)}
        return
    with pytest.raises(InputError, match=r"out\.dcm: expected the segments 1: .*, 4: "):
        count_voxels(tmp_path / "out.dcm", labelled.DOMAIN)


@pytest.mark.parametrize("axes", [STRAIGHT, OBLIQUE])
def test_itk_reads_a_single_segment_as_a_volume(tmp_path, axes):
    labels = labelled.DOMAIN.labels[:2]
    domain = dataclasses.replace(labelled.DOMAIN, labels=labels)
    grid = dicom.load_dicom([save_series(tmp_path / "series", axes)]).grid
    classes = labelled.make_classes((6, 8, 8), 2)
    save_label_map(tmp_path / "out.dcm", classes, grid, domain)
    assert count_voxels(tmp_path / "out.dcm", domain) == {1: int(classes.sum())}
    found = sitk.ReadImage(tmp_path / "out.dcm")
    direction = np.array(found.GetDirection()).reshape(3, 3)
    affine = np.eye(4)
    affine[:3, :3] = direction * found.GetSpacing()
    affine[:3, 3] = found.GetOrigin()
    values = sitk.GetArrayFromImage(found) != 0
    read = Grid(
        "", values.shape[::-1], LPS_TO_RAS @ affine, grid.header, grid.image_class
    )
    check_same_grid(grid, read)
    np.testing.assert_array_equal(read.canonical_view(values.T), classes)


def test_empty_segmentation_is_written(tmp_path):
    """A segmentation without foreground voxels is valid."""
    grid = dicom.load_dicom([save_series(tmp_path / "series")]).grid
    save_label_map(tmp_path / "o.dcm", np.zeros((6, 8, 8), int), grid, labelled.DOMAIN)
    assert count_voxels(tmp_path / "o.dcm", labelled.DOMAIN) == {1: 0, 2: 0, 3: 0, 4: 0}


@pytest.mark.parametrize(
    "keyword", ["StudyInstanceUID", "FrameOfReferenceUID", "SOPInstanceUID"]
)
def test_slices_without_required_tags(tmp_path, keyword):
    slices = make_series()
    slices[3].file_meta.MediaStorageSOPInstanceUID = slices[3].SOPInstanceUID
    delattr(slices[3], keyword)
    series = dicom_files.save(tmp_path / "series", slices)
    with pytest.raises(InputError, match=rf"3\.dcm: {keyword} \(.*that dicom_seg can"):
        dicom_segmentation.check_source(series)
    with pytest.raises(InputError, match=keyword):
        predict(tmp_path / "out.dcm", series)
    assert not (tmp_path / "out.dcm").exists()


@pytest.mark.parametrize("is_empty", [False, True])
def test_slices_need_not_state_their_thickness(tmp_path, is_empty):
    slices = make_series()
    for dataset in slices:
        dataset.SliceThickness = None
        if not is_empty:
            del dataset.SliceThickness
    predict(tmp_path / "out.dcm", dicom_files.save(tmp_path / "series", slices))
    segmentation = highdicom.seg.segread(tmp_path / "out.dcm")
    (shared,) = segmentation.SharedFunctionalGroupsSequence
    (measures,) = shared.PixelMeasuresSequence
    expected = segmentation.get_volume(combine_segments=True).spacing[0]
    assert measures.SliceThickness == pytest.approx(expected)


def test_is_not_written_among_the_slices(tmp_path):
    series = save_series(tmp_path / "series")
    before = (series / "3.dcm").read_bytes()
    for name in ("3.dcm", "new.dcm"):
        with pytest.raises(InputError, match=f"{name}: expected a folder other than"):
            predict(series / name, series)
    assert (series / "3.dcm").read_bytes() == before
    assert not (series / "new.dcm").exists()


def test_slices_with_the_same_uid(tmp_path):
    slices = make_series()
    slices[3].SOPInstanceUID = slices[2].SOPInstanceUID
    series = dicom_files.save(tmp_path / "series", slices)
    with pytest.raises(InputError, match=r"3\.dcm: SOPInstanceUID .* that of 2\.dcm"):
        dicom_segmentation.check_source(series)


def test_errors_of_highdicom_name_the_file(tmp_path):
    slices = make_series()
    slices[3].StudyInstanceUID = "1.2.3.6"
    series = dicom_files.save(tmp_path / "series", slices)
    with pytest.raises(InputError, match=r"dcm: expected a series that highdicom can"):
        predict(tmp_path / "out.dcm", series)
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


def test_needs_dicom_and_highdicom(tmp_path, monkeypatch):
    scan = tmp_path / "scan.nii.gz"
    scan.touch()
    with pytest.raises(InputError, match="`output_format`: expected DICOM scans for"):
        require_format("dicom_seg", [scan], labelled.DOMAIN)
    grid = dicom.load_dicom([save_series(tmp_path / "series")]).grid
    grid = dataclasses.replace(grid, path=str(scan))
    with pytest.raises(InputError, match=f"Received: {scan}. Write nii.gz or seg_nrrd"):
        save_label_map(tmp_path / "o.dcm", np.zeros((6, 8, 8)), grid, labelled.DOMAIN)
    monkeypatch.setitem(sys.modules, "highdicom", None)
    with pytest.raises(StoppedError, match=r"pip install 'u2net-tf\[dicom_seg\]'"):
        require_format("dicom_seg", [], labelled.DOMAIN)
    # Other formats do not need highdicom.
    for name in ("o.nii.gz", "o.seg.nrrd"):
        save_label_map(tmp_path / name, np.zeros((6, 8, 8), int), grid, labelled.DOMAIN)
