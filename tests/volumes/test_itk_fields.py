"""Fields of NRRD and MetaImage files that ITK ignores are read or reported."""

import numpy as np
import pytest

from u2net_tf.errors import InputError
from u2net_tf.volumes import images
from u2net_tf.volumes.itk_errors import last_line

VALUES = np.arange(2 * 3 * 4, dtype="<i2").reshape(2, 3, 4)
NRRD = {
    "type": "short",
    "dimension": "3",
    "space": "left-posterior-superior",
    "sizes": "4 3 2",
    "space directions": "(0.5,0,0) (0,1,0) (0,0,4)",
    "kinds": "domain domain domain",
    "endian": "little",
    "encoding": "raw",
    "space origin": "(8,-16,2)",
}
META = {
    "ObjectType": "Image",
    "NDims": "3",
    "BinaryData": "True",
    "BinaryDataByteOrderMSB": "False",
    "CompressedData": "False",
    "TransformMatrix": "1 0 0 0 1 0 0 0 1",
    "Offset": "8 -16 2",
    "CenterOfRotation": "0 0 0",
    "ElementSpacing": "0.5 1 4",
    "DimSize": "4 3 2",
    "ElementType": "MET_SHORT",
}
ROTATED = "0 1 0 -1 0 0 0 0 1"


def write_nrrd(folder, voxels=VALUES, **fields):
    fields = {name.replace("_", " "): value for name, value in fields.items()}
    lines = ["NRRD0005", *(f"{k}: {v}" for k, v in (NRRD | fields).items()), "", ""]
    path = folder / "a.nrrd"
    path.write_bytes("\n".join(lines).encode() + voxels.tobytes())
    return path


def write_meta(folder, voxels=VALUES, **fields):
    lines = [f"{name} = {value}" for name, value in (META | fields).items()]
    lines += ["ElementDataFile = LOCAL", ""]
    path = folder / "a.mha"
    path.write_bytes("\n".join(lines).encode() + voxels.tobytes())
    return path


def check_millimetres(path):
    """Returns spacing and LPS origin in mm."""
    volume = images.load_image([path])
    grid = images.load_header(path).grid
    np.testing.assert_array_equal(volume.grid.affine, grid.affine)
    return volume.spacing_mm, (grid.affine[:3, 3] * (-1, -1, 1)).tolist()


@pytest.mark.parametrize(
    ("unit", "mm"),
    [
        ("mm", 1),
        ("", 1),
        ("um", 1e-3),
        ("µm", 1e-3),
        ("microns", 1e-3),
        ("cm", 10),
        ("m", 1000),
    ],
)
def test_units_of_length(tmp_path, unit, mm):
    names = " ".join([f'"{unit}"'] * 3)
    paths = [
        write_nrrd(tmp_path, space_units=names),
        write_meta(tmp_path, DistanceUnits=unit or "?"),
    ]
    for path in paths:
        spacing, origin = check_millimetres(path)
        np.testing.assert_allclose(spacing, (4 * mm, mm, 0.5 * mm), rtol=1e-6)
        np.testing.assert_allclose(origin, (8 * mm, -16 * mm, 2 * mm), rtol=1e-12)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"space_units": '"inch" "inch" "inch"'}, "space units: .*inch"),
        ({"space_units": '"mm" "mm" "cm"'}, "space units: .*cm, mm"),
        ({"spaceunits": '"um" "mm" "mm"'}, "space units: .*mm, um"),
        ({"units": '"furlong" "mm" "mm"'}, "space units: .*furlong, mm"),
        ({"spacings": "2 2 2"}, "spacings: .*2 2 2"),
        ({"axis mins": "0 0 0"}, "axis mins: .*0 0 0"),
        ({"oldmin": "-1000"}, "old min: .*quantized.*-1000"),
        ({"old max": "3000"}, "old max: "),
        ({"kinds": "domain domain 3-color"}, "kinds: .*3-color"),
        ({"space_directions": "(1,0,0) (1,0,0) (0,0,4)"}, r"directions: .*\(1,0,0\) "),
        ({"space_directions": "(1,0,0) (0,0,0) (0,0,4)"}, r"directions: .*\(0,0,0\) "),
        ({"space_directions": "(1,0,0) (0,1,0) (1,1,1e-9)"}, "span a volume.*1e-9"),
    ],
)
def test_unusable_nrrd_fields_are_reported(tmp_path, fields, words):
    path = write_nrrd(tmp_path, **fields)
    for load in (images.load_header, images.load_labels):
        with pytest.raises(InputError, match=rf"a\.nrrd: .*{words}"):
            load(path)


@pytest.mark.parametrize("kind", ["complex", "RGB-color", "3D-symmetric-matrix"])
def test_components_that_are_not_modalities_are_reported(tmp_path, kind):
    fields = {
        "dimension": "4",
        "sizes": "2 4 3 2",
        "space directions": f"none {NRRD['space directions']}",
        "kinds": f"{kind} domain domain domain",
    }
    path = write_nrrd(tmp_path, np.stack([VALUES] * 2, -1), **fields)
    with pytest.raises(InputError, match=f"kinds: .*{kind}"):
        images.load_image([path])


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"DistanceUnits": "in"}, "DistanceUnits: .*in"),
        ({"ObjectType": "Mesh"}, "ObjectType: expected Image"),
        ({"CenterOfRotation": "1 0 0", "TransformMatrix": ROTATED}, "CenterOfRotation"),
        (
            {"ElementToIntensityFunctionSlope": "0"},
            "ElementToIntensityFunctionSlope: .*other than 0",
        ),
        (
            {"ElementToIntensityFunctionOffset": "x"},
            "ElementToIntensityFunctionOffset: .*'x'",
        ),
    ],
)
def test_unusable_meta_fields_are_reported(tmp_path, fields, words):
    path = write_meta(tmp_path, **fields)
    with pytest.raises(InputError, match=rf"a\.mha: {words}"):
        images.load_header(path)


def test_center_of_rotation_has_no_effect_without_rotation(tmp_path):
    path = write_meta(tmp_path, CenterOfRotation="1 2 3")
    assert check_millimetres(path) == ((4, 1, 0.5), [8, -16, 2])


def test_intensity_function_is_applied(tmp_path):
    path = write_meta(
        tmp_path,
        ElementToIntensityFunctionSlope="0.5",
        ElementToIntensityFunctionOffset="-100",
    )
    volume = images.load_image([path])
    expected = VALUES[:, ::-1, ::-1] * 0.5 - 100
    np.testing.assert_array_equal(volume.data[0], expected)
    with pytest.raises(InputError, match=r"-99\.5 in .*slope 0\.5 and intercept -100"):
        images.load_labels(path)
    path = write_meta(tmp_path, ElementToIntensityFunctionSlope="3")
    labels = images.load_labels(path)
    np.testing.assert_array_equal(labels.data, VALUES[:, ::-1, ::-1] * 3)


def test_shear_and_rounding_are_noted(tmp_path, caplog):
    path = write_nrrd(
        tmp_path,
        VALUES.astype("<f8") * 100 + 2.0**30,
        type="double",
        space_directions="(0.5,0,0) (0,1,0) (1,0,4)",
    )
    images.load_image([path])
    assert "a.nrrd: axes at 76 degrees, not 90" in caplog.text
    assert "a.nrrd: intensities from 1.07374e+09" in caplog.text
    assert "multiples of 128" in caplog.text
    path = write_nrrd(tmp_path, VALUES.astype("<i8") + 2**53, type="int64")
    words = "differ in float32. Received: 9007199254740992 to 9007199254741015, all"
    with pytest.raises(InputError, match=words):
        images.load_image([path])


def test_axes_longer_than_nifti_1_has(tmp_path):
    path = write_nrrd(tmp_path, np.zeros(40_000, "<i2"), sizes="40000 1 1")
    grid = images.load_header(path).grid
    images.save_labels(tmp_path / "out.nii.gz", np.zeros((1, 1, 40_000), int), grid)
    assert images.load_header(tmp_path / "out.nii.gz").shape == (40_000, 1, 1)


def test_errors_of_itk_are_shown_without_memory_addresses(tmp_path):
    fields = {
        "dimension": "4",
        "sizes": "2 4 3 2",
        "space directions": f"none {NRRD['space directions']}",
        "kinds": "??? ??? ??? ???",
    }
    path = write_nrrd(tmp_path, np.stack([VALUES] * 2, -1), **fields)
    with pytest.raises(InputError, match=r"Received: ReadImageInformation: number of"):
        images.load_header(path)
    error = RuntimeError(
        "Exception thrown in SimpleITK Image_SetDirection: /src/sitk.cxx:9:\n"
        "itk::ERROR: ITK ERROR: Image(0x55e9f3): Bad direction, determinant is 0: 1 0 "
        "0\n0 0 0\n0 0 1\n"
    )
    assert last_line(error) == "Bad direction, determinant is 0: 1 0 0 0 0 0 0 0 1"
    assert last_line(MemoryError()) == "MemoryError"
