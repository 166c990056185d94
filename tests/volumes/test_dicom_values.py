"""Intensities and positions match the header of each file, or an error names it."""

import shutil

import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom import uid

from tests.volumes import dicom_files
from u2net_tf.errors import InputError
from u2net_tf.volumes import dicom, dicom_content, dicom_decoder
from u2net_tf.volumes.dicom_series import read_series
from u2net_tf.volumes.grid import check_same_grid


def test_each_slice_of_pet_has_its_slope(tmp_path):
    """An integer slope of the first slice does not truncate the others."""
    slopes = [1, 0.5, 1e-4, 0.3, 2, 0.25]
    series = dicom_files.make_series(
        slopes=slopes,
        intercept=0,
        sop_class=uid.PositronEmissionTomographyImageStorage,
    )
    volume = dicom.load_dicom([dicom_files.save(tmp_path, series)])
    stored = dicom_files.slice_values()
    expected = [plane * slope for plane, slope in zip(stored, slopes, strict=True)]
    np.testing.assert_allclose(
        volume.data[0], np.array(expected)[:, ::-1, ::-1], rtol=1e-6
    )


def test_different_slope_of_a_ct_slice_is_reported(tmp_path, caplog):
    series = dicom_files.make_series(slopes=[1, 1, 1, 1, 7, 1])
    volume = dicom.load_dicom([dicom_files.save(tmp_path, series)])
    expected = dicom_files.slice_values()[4, ::-1, ::-1] * 7 - 1024
    np.testing.assert_array_equal(volume.data[0, 4], expected)
    assert (
        "(7.0, -1024.0) in 4.dcm; in most slices they are (1.0, -1024.0)" in caplog.text
    )


def test_series_is_read_according_to_its_header(tmp_path, caplog):
    volume = dicom.load_dicom([dicom_files.save(tmp_path, dicom_files.make_series())])
    expected = dicom_files.slice_values()[:, ::-1, ::-1] - 1024
    np.testing.assert_array_equal(volume.data[0], expected)
    assert volume.spacing_mm == (3, 0.75, 1.25)
    assert not caplog.text


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    return dicom_files.save(
        tmp_path_factory.mktemp("series"), dicom_files.make_series()
    )


@pytest.mark.parametrize(
    ("keyword", "text"),
    [
        ("PixelSpacing", "wide\\wide"),
        ("PixelSpacing", "0\\0"),
        ("PixelSpacing", "-1\\1.25"),
        ("PixelSpacing", "0.75"),
        ("PixelSpacing", "0.9\\1.25"),
        ("PixelSpacing", "0,75\\1,25"),
        ("PixelSpacing", "\0.75\\1.25"),
        ("PixelSpacing", ""),
        ("ImageOrientationPatient", ""),
        ("ImageOrientationPatient", "0\\0\\0\\0\\0\\0"),
        ("ImageOrientationPatient", "0\\1\\0\\1\\0\\0"),
        ("ImageOrientationPatient", "1\\0\\0\\0\\0.5\\0"),
        ("ImagePositionPatient", "nan\\5\\0"),
        ("ImagePositionPatient", "1e300\\5\\0"),
        ("ImagePositionPatient", "1_0\\5\\0"),
        ("RescaleSlope", "0"),
        ("RescaleSlope", ""),
        ("RescaleSlope", "1\\2"),
        ("RescaleIntercept", "none"),
        ("SeriesInstanceUID", ""),
        ("SeriesInstanceUID", "1.2.3.15"),
        ("PhotometricInterpretation", "RGB"),
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.4"),
    ],
)
def test_invalid_value_of_one_slice_is_an_error(series, keyword, text):
    """The error names file and tag, for the first, a middle and the last slice."""
    for index in (0, 3, 5):
        path = series / f"{index}.dcm"
        before = path.read_bytes()
        dicom_files.replace_text(path, keyword, text)
        with pytest.raises(InputError, match=rf"{index}\.dcm: {keyword} \(00"):
            read_series(series)
        path.write_bytes(before)


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("Rows", 4),
        ("Columns", 16),
        ("BitsAllocated", 8),
        ("BitsStored", 12),
        ("HighBit", 11),
        ("PixelRepresentation", 0),
        ("SamplesPerPixel", 3),
        ("NumberOfFrames", 2),
    ],
)
def test_pixels_of_another_kind_are_an_error(tmp_path, keyword, value):
    series = dicom_files.make_series()
    setattr(series[2], keyword, value)
    folder = dicom_files.save(tmp_path, series)
    with pytest.raises(InputError, match=rf"2\.dcm: {keyword} \(0028,"):
        dicom.load_dicom([folder])


@pytest.mark.parametrize(
    "keyword",
    [
        "PixelSpacing",
        "ImagePositionPatient",
        "ImageOrientationPatient",
        "RescaleSlope",
        "RescaleIntercept",
        "PixelData",
        "Rows",
    ],
)
def test_missing_tag_is_an_error(tmp_path, keyword):
    series = dicom_files.make_series()
    delattr(series[5], keyword)
    folder = dicom_files.save(tmp_path, series)
    with pytest.raises(InputError, match=rf"5\.dcm: {keyword} .*no value"):
        dicom.load_dicom([folder])


@pytest.mark.parametrize(
    ("bits", "syntax", "message"),
    [
        (20, uid.ExplicitVRLittleEndian, r"BitsStored .* 32\. Received: 20"),
        (32, uid.ExplicitVRBigEndian, r"BitsAllocated .* big-endian"),
    ],
)
def test_pixels_that_gdcm_misreads_are_an_error(tmp_path, bits, syntax, message):
    _, stored = stored_pixels("u4", bits)
    dataset = dicom_files.make_slice(stored[0], 0)
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 32, bits, bits - 1
    if syntax == uid.ExplicitVRBigEndian:
        dataset.PixelData = stored[0].astype(">u4").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    folder = dicom_files.save(tmp_path, [dataset])
    with pytest.raises(InputError, match=rf"0\.dcm: {message}"):
        dicom.load_dicom([folder])


def test_table_of_intensities_is_an_error(tmp_path):
    series = dicom_files.make_series(1)
    series[0].ModalityLUTSequence = []
    with pytest.raises(InputError, match="ModalityLUTSequence"):
        dicom.load_dicom([dicom_files.save(tmp_path, series)])


def test_thickness_of_a_single_slice_is_not_guessed(tmp_path):
    (only,) = dicom_files.make_series(1)
    folder = dicom_files.save(tmp_path, [only])
    assert dicom.load_dicom([folder]).spacing_mm[0] == 3
    only.SpacingBetweenSlices = 4
    dicom_files.save(tmp_path, [only])
    assert dicom.load_dicom([folder]).spacing_mm[0] == 4
    del only.SpacingBetweenSlices, only.SliceThickness
    dicom_files.save(tmp_path, [only])
    with pytest.raises(InputError, match=r"0\.dcm: SliceThickness"):
        dicom.load_dicom([folder])


def test_multi_frame_file_agrees_with_a_series(tmp_path):
    """The frames may be in any order."""
    heights = [0, 9, 3, 6]
    enhanced = dicom_files.make_enhanced(heights)
    volume = dicom.load_dicom([dicom_files.save(tmp_path / "one", [enhanced])])
    series = [
        dicom_files.make_slice(plane, height, intercept=0, number=index)
        for index, (plane, height) in enumerate(
            zip(dicom_files.slice_values(4), heights, strict=True)
        )
    ]
    expected = dicom.load_dicom([dicom_files.save(tmp_path / "four", series)])
    np.testing.assert_array_equal(volume.data, expected.data)
    assert volume.spacing_mm == (3, 0.75, 1.25)
    check_same_grid(expected.grid, volume.grid)


@pytest.mark.parametrize(
    "rescales",
    [
        [(2, 5)] * 4,
        [(0.1, 0.25)] * 4,
        [(1, 0), (0.5, 1), (3, -7), (1e-3, 0)],
        [(0.0123, -4), (1, 0), (2.5, 1), (0.0123, 4)],
    ],
)
def test_frames_have_their_own_slopes(tmp_path, rescales):
    enhanced = dicom_files.make_enhanced([0, 3, 6, 9], rescales)
    volume = dicom.load_dicom([dicom_files.save(tmp_path, [enhanced])])
    expected = [
        plane[::-1, ::-1] * slope + intercept
        for plane, (slope, intercept) in zip(
            dicom_files.slice_values(4), rescales, strict=True
        )
    ]
    np.testing.assert_allclose(volume.data[0], expected, rtol=1e-6)


def test_frames_without_a_position_are_an_error(tmp_path):
    enhanced = dicom_files.make_enhanced([0, 3, 6])
    groups = enhanced.PerFrameFunctionalGroupsSequence
    folder = dicom_files.save(tmp_path, [enhanced])
    for change, message in (
        (lambda: groups.pop(), "item for each of 3 frames"),
        (lambda: groups.extend([groups[0]]), "evenly spaced slices"),
        (lambda: delattr(groups[1], "PlanePositionSequence"), "ImagePositionPatient"),
        (
            lambda: delattr(enhanced, "PerFrameFunctionalGroupsSequence"),
            "PerFrameFunctionalGroupsSequence",
        ),
    ):
        change()
        dicom_files.save(tmp_path, [enhanced])
        with pytest.raises(InputError, match=message):
            dicom.load_dicom([folder])


def test_multi_frame_file_can_be_read_alone(tmp_path):
    folder = dicom_files.save(tmp_path, [dicom_files.make_enhanced([0, 3, 6])])
    expected = dicom.load_dicom([folder])
    shutil.copy(folder / "0.dcm", folder / "1.dcm")
    dicom_files.replace_text(folder / "1.dcm", "SeriesInstanceUID", "1.2.3.15")
    volume = dicom.load_dicom([folder / "0.dcm"])
    np.testing.assert_array_equal(volume.data, expected.data)
    np.testing.assert_array_equal(volume.grid.affine, expected.grid.affine)
    with pytest.raises(InputError, match="2 series .*each multi-frame file by itself"):
        dicom.load_dicom([folder])


def test_single_slice_of_a_series_is_an_error(series):
    words = r"0\.dcm: expected a folder .* the folder that contains them"
    for load in (lambda path: dicom.load_dicom([path]), dicom.load_header):
        with pytest.raises(InputError, match=words):
            load(series / "0.dcm")


@pytest.mark.parametrize(
    ("keyword", "value"),
    [
        ("ConcatenationUID", "1.2.3"),
        # A segmentation.
        ("SOPClassUID", "1.2.840.10008.5.1.4.1.1.66.4"),
    ],
)
def test_multi_frame_file_without_a_volume_is_an_error(tmp_path, keyword, value):
    enhanced = dicom_files.make_enhanced([0, 3, 6])
    setattr(enhanced, keyword, value)
    folder = dicom_files.save(tmp_path, [enhanced])
    with pytest.raises(InputError, match=rf"0\.dcm: {keyword}"):
        dicom.load_dicom([folder / "0.dcm"])


@pytest.mark.parametrize("heights", [None, (6, 0, 3)])
def test_header_has_the_grid_of_the_volume(tmp_path, heights, caplog):
    datasets = dicom_files.make_series()
    if heights:
        datasets = [dicom_files.make_enhanced(heights)]
    folder = dicom_files.save(tmp_path, datasets)
    (folder / "notes.txt").write_text("none")
    header = dicom.load_header(folder)
    # The warning is logged once, when the volume is read.
    assert not caplog.messages
    volume = dicom.load_dicom([folder])
    assert "skips notes.txt" in caplog.messages[0]
    assert header.shape == header.grid.shape == volume.grid.shape
    assert header.grid.axis_codes == volume.grid.axis_codes
    np.testing.assert_allclose(header.grid.affine, volume.grid.affine, atol=1e-9)
    voxels = np.prod(header.shape)
    for load in (dicom.load_header, lambda path, **o: dicom.load_dicom([path], **o)):
        with pytest.raises(InputError, match="`max_memory_gb`"):
            load(folder, max_memory_gb=7 * voxels / 1e9)


def test_implicit_types_and_deflated_files_are_read(tmp_path):
    expected = dicom.load_dicom(
        [dicom_files.save(tmp_path / "a", dicom_files.make_series())]
    )
    for syntax in (uid.ImplicitVRLittleEndian, uid.DeflatedExplicitVRLittleEndian):
        series = dicom_files.make_series()
        for dataset in series:
            dataset.file_meta.TransferSyntaxUID = syntax
        folder = dicom_files.save(tmp_path / syntax, series)
        volume = dicom.load_dicom([folder])
        np.testing.assert_array_equal(volume.data, expected.data)


def test_run_length_encoding_is_read(tmp_path):
    expected = dicom.load_dicom(
        [dicom_files.save(tmp_path / "a", dicom_files.make_series(2, size=64))]
    )
    # GDCM cannot read smaller slices with this encoding.
    series = dicom_files.make_series(2, size=64)
    for dataset in series:
        dataset.compress(pydicom.uid.RLELossless, generate_instance_uid=False)
    folder = dicom_files.save(tmp_path / "b", series)
    np.testing.assert_array_equal(dicom.load_dicom([folder]).data, expected.data)
    path = folder / "1.dcm"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=r"1\.dcm"):
        dicom.load_dicom([folder])


def compress(folder, compressor):
    """Writes a series of three slices compressed; returns their values."""
    values = np.random.default_rng(0).integers(0, 900, (3, 64, 64)).astype(np.int16)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    writer.SetImageIO("GDCMImageIO")
    writer.UseCompressionOn()
    writer.SetCompressor(compressor)
    folder.mkdir()
    for index in range(3):
        image = sitk.GetImageFromArray(values[index : index + 1])
        for tag, value in {
            "0008|0016": uid.CTImageStorage,
            "0008|0018": f"1.2.3.{index}",
            "0020|000e": "1.2.3",
            "0020|0032": f"0\\0\\{index}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
        }.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{index}.dcm"))
        writer.Execute(image)
    return values


@pytest.mark.parametrize(
    ("compressor", "marker", "offset", "value", "words"),
    [
        # GDCM crashes: 79 bits.
        ("JPEG", b"\xff\xc3", 4, 79, "decoded. Received: "),
        # GDCM prints warnings about repairs.
        ("JPEG", b"\xff\xc4", 2, 1, "decoded. Received: "),
        # GDCM does not terminate: 3,211,328 rows.
        pytest.param(
            "JPEG2000",
            b"\xff\x51",
            11,
            0x31,
            "decoded. Received: pixels that take too",
            marks=pytest.mark.slow,
        ),
    ],
)
def test_damaged_compressed_pixels_are_reported(
    tmp_path, monkeypatch, capfd, compressor, marker, offset, value, words
):
    values = compress(tmp_path / "series", compressor)
    folder = tmp_path / "series"
    volume = dicom.load_dicom([folder])
    np.testing.assert_array_equal(volume.data[0], values[:, ::-1, ::-1])
    monkeypatch.setattr(dicom_decoder, "_SECONDS", 0)
    path = folder / "1.dcm"
    content = bytearray(path.read_bytes())
    content[content.index(marker, content.index(b"\xe0\x7f\x10\x00")) + offset] = value
    path.write_bytes(content)
    with pytest.raises(InputError, match=rf"1\.dcm: expected pixels .* {words}"):
        dicom.load_dicom([folder])
    dicom.load_header(folder)
    assert capfd.readouterr() == ("", "")


def test_deflated_files_are_inflated_to_a_limit(tmp_path, monkeypatch):
    """The pixels are followed by 16 MB of zeros, which take 16 kB on disk."""
    series = dicom_files.make_series()
    for dataset in series:
        dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    expected = dicom.load_dicom([dicom_files.save(tmp_path, series)])
    series[3].DataSetTrailingPadding = bytes(2**24)
    dicom_files.save(tmp_path, series)
    assert (tmp_path / "3.dcm").stat().st_size < 30_000
    np.testing.assert_array_equal(dicom.load_dicom([tmp_path]).data, expected.data)
    monkeypatch.setattr(dicom_content, "MAX_INFLATED_BYTES", 2**24)
    with pytest.raises(InputError, match=r"3\.dcm: .* more than 16,777,216 bytes"):
        dicom.load_dicom([tmp_path])


def stored_pixels(dtype, bits):
    """Draws values with `bits` bits, (2, 64, 64); also returns their stored form."""
    is_signed = dtype.startswith("i")
    low = -(1 << bits - 1) if is_signed else 0
    values = np.random.default_rng(0).integers(low, low + (1 << bits), (2, 64, 64))
    values[:, 0, :2] = low, low + (1 << bits) - 1
    return values, (values & ((1 << bits) - 1)).astype(f"<u{dtype[1:]}")


@pytest.mark.parametrize(
    ("dtype", "bits", "syntax"),
    [
        ("u1", 8, None),
        ("i1", 8, None),
        ("u2", 12, None),
        ("u2", 16, None),
        ("i2", 12, None),
        ("i2", 16, None),
        ("i2", 16, uid.RLELossless),
    ],
)
def test_inverted_display_does_not_change_values(tmp_path, dtype, bits, syntax):
    values, stored = stored_pixels(dtype, bits)
    series = []
    for index, pixels in enumerate(stored):
        dataset = dicom_files.make_slice(
            pixels, 3 * index, slope=0.5, intercept=-7, number=index + 1
        )
        dataset.PhotometricInterpretation = "MONOCHROME1"
        dataset.BitsAllocated, dataset.BitsStored = 8 * int(dtype[1:]), bits
        dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(dtype[0] == "i")
        dataset["PixelData"].VR = "OB" if dtype[1:] == "1" or syntax else "OW"
        if syntax:
            dataset.compress(syntax)
        series.append(dataset)
    folder = dicom_files.save(tmp_path / "series", series)
    volume = dicom.load_dicom([folder])
    np.testing.assert_array_equal(
        volume.data[0], values[:, ::-1, ::-1] * 0.5 - np.float32(7)
    )
    path = folder / "1.dcm"
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(InputError, match=rf"^{folder}/1\.dcm: "):
        dicom.load_dicom([folder])


def test_inverted_display_of_multi_frame_files_does_not_change_values(tmp_path):
    rescales = [(1 + index, -7 * index) for index in range(4)]
    dataset = dicom_files.make_enhanced([0, 3, 6, 9], rescales)
    paths = []
    for name in ("MONOCHROME1", "MONOCHROME2"):
        dataset.PhotometricInterpretation = name
        paths.append(dicom_files.save(tmp_path / name, [dataset]))
    found, expected = (dicom.load_dicom([path]) for path in paths)
    np.testing.assert_array_equal(found.data, expected.data)


@pytest.mark.parametrize(
    ("photometric", "words"),
    [
        ("MONOCHROME1", "expected MONOCHROME2 in a deflated file"),
        ("MONOCHROME3", "expected MONOCHROME1 or MONOCHROME2"),
        ("PALETTE COLOR", "expected MONOCHROME1 or MONOCHROME2"),
    ],
)
def test_display_that_would_change_values_is_an_error(tmp_path, photometric, words):
    series = dicom_files.make_series(3)
    for dataset in series:
        dataset.PhotometricInterpretation = photometric
        dataset.file_meta.TransferSyntaxUID = uid.DeflatedExplicitVRLittleEndian
    folder = dicom_files.save(tmp_path, series)
    with pytest.raises(InputError, match=rf"0\.dcm: PhotometricInter.*{words}"):
        dicom.load_dicom([folder])


def test_pixels_that_float32_rounds_are_noted(tmp_path, caplog):
    series = dicom_files.make_series(intercept=1e9)
    dicom.load_dicom([dicom_files.save(tmp_path, series)])
    assert "rounds them to multiples of 64" in caplog.text


@pytest.mark.parametrize(("step", "is_noted"), [(7.5, True), (-3, False), (3, False)])
def test_contradictory_slice_distance_is_noted(tmp_path, caplog, step, is_noted):
    series = dicom_files.make_series()
    for dataset in series:
        dataset.SpacingBetweenSlices = step
    volume = dicom.load_dicom([dicom_files.save(tmp_path, series)])
    assert volume.spacing_mm == (3, 0.75, 1.25)
    words = "SpacingBetweenSlices is 7.5 mm, but ImagePositionPatient has slices 3 mm"
    assert caplog.text.count(words) == is_noted


@pytest.mark.parametrize("sop_class", [uid.CTImageStorage, uid.MRImageStorage])
def test_display_tags_do_not_change_values(tmp_path, sop_class):
    series = dicom_files.make_series(sop_class=sop_class, intercept=-7)
    for dataset in series:
        dataset.WindowCenter, dataset.WindowWidth = 40, 400
        dataset.VOILUTFunction = "SIGMOID"
        dataset.PresentationLUTShape = "INVERSE"
        dataset.PixelIntensityRelationship = "LOG"
        dataset.PixelIntensityRelationshipSign = -1
        dataset.add_new("SmallestImagePixelValue", "SS", 0)
        dataset.add_new("PixelPaddingValue", "SS", -100)
        dataset.add_new("RedPaletteColorLookupTableDescriptor", "US", [4, 0, 16])
        dataset.add_new("RedPaletteColorLookupTableData", "OW", bytes(8))
    volume = dicom.load_dicom([dicom_files.save(tmp_path, series)])
    expected = dicom_files.slice_values()[:, ::-1, ::-1] - 7
    np.testing.assert_array_equal(volume.data[0], expected)
