"""Invalid header fields are replaced by equivalent ones, or are an error."""

import gzip

import nibabel as nib
import numpy as np
import pytest

from u2net_tf.errors import InputError
from u2net_tf.volumes import nifti
from u2net_tf.volumes.grid import header_problem

SHAPE = (4, 5, 6)
AFFINE = np.diag([0.8, 1.1, 5.0, 1.0])


def make_array():
    return np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)


@pytest.fixture
def write(tmp_path):
    """Writes a file with these header fields, valid or not."""

    def write(affine=AFFINE, *, qform=None, codes=(2, 0), array=None, **fields):
        array = make_array() if array is None else array
        image = nib.Nifti1Image(array, affine)
        image.set_sform(affine, codes[0])
        image.set_qform(affine if qform is None else qform, codes[1])
        data = bytearray(image.to_bytes())
        header = nib.Nifti1Header(bytes(data[:348]), check=False)
        for name, value in fields.items():
            field, _, index = name.partition("__")
            if index:
                header[field][int(index)] = value
            else:
                header[field] = value
        data[:348] = header.binaryblock
        path = tmp_path / "scan.nii"
        path.write_bytes(data)
        return path

    return write


def load(path):
    volume = nifti.load_image(path)
    return volume, " ".join(note.removeprefix(f"{path}: ") for note in volume.notes)


@pytest.mark.parametrize(
    ("unit", "name", "factor"),
    [(0, "", 1), (1, "m", 1e-3), (2, "mm", 1), (3, "µm", 1e3), (8, "", 1)],
)
def test_voxel_sizes_are_mm_in_every_unit(write, unit, name, factor, tmp_path):
    path = write(AFFINE @ np.diag([factor] * 3 + [1]), xyzt_units=unit)
    volume, notes = load(path)
    assert volume.spacing_mm == pytest.approx((5, 1.1, 0.8), rel=1e-6)
    np.testing.assert_allclose(np.diag(volume.grid.affine), (0.8, 1.1, 5, 1), rtol=1e-6)
    assert volume.grid.length_unit == name
    assert notes == ""
    # The written file has the unit and the voxel sizes of the file that was read.
    nifti.save_labels(tmp_path / "out.nii", np.ones(SHAPE[::-1], int), volume.grid)
    written, read = nib.load(tmp_path / "out.nii").header, nib.load(path).header
    np.testing.assert_array_equal(written["pixdim"], read["pixdim"])
    assert written["xyzt_units"] == unit


def test_invalid_unit_is_noted(write):
    volume, notes = load(write(xyzt_units=7 + 8))
    assert volume.spacing_mm == pytest.approx((5, 1.1, 0.8))
    assert "xyzt_units 7 is not a unit of length; using mm" in notes


@pytest.mark.parametrize("size", [0, -5])
def test_invalid_voxel_size_is_taken_from_the_affine(write, size, tmp_path, caplog):
    with caplog.at_level("WARNING", logger="absl"):
        volume, notes = load(write(pixdim__3=size))
    assert volume.spacing_mm == pytest.approx((5, 1.1, 0.8))
    assert "using [0.8, 1.1, 5.0] from the affine" in notes
    assert f"scan.nii: {notes}" in caplog.text
    assert header_problem(volume.grid) == ""
    nifti.save_labels(tmp_path / "out.nii", np.ones(SHAPE[::-1], int), volume.grid)
    assert nib.load(tmp_path / "out.nii").header["pixdim"][3] == 5


@pytest.mark.parametrize(
    ("codes", "fields"),
    [
        ((0, 0), {"pixdim__3": 0}),
        ((0, 1), {"pixdim__1": -1}),
        ((2, 0), {"pixdim__2": np.nan}),
        ((2, 0), {"pixdim__2": np.inf}),
    ],
)
def test_invalid_voxel_size_without_an_affine_is_an_error(write, codes, fields):
    path = write(codes=codes, **fields)
    for read in (lambda: nifti.load_image(path), lambda: nifti.load_labels(path)):
        with pytest.raises(InputError, match=r"scan\.nii: .* above 0 mm in pixdim"):
            read()


def test_form_with_an_unknown_code_is_used(write, tmp_path):
    volume, notes = load(write(sform_code=99, qform_code=-7))
    assert volume.grid.axis_codes == "RAS"
    np.testing.assert_array_equal(volume.data[0], make_array().T)
    assert "sform_code is 99, which is invalid; using 2" in notes
    assert "qform_code is -7, which is invalid; using the sform" in notes
    nifti.save_labels(tmp_path / "out.nii", np.ones(SHAPE[::-1], int), volume.grid)
    np.testing.assert_allclose(nib.load(tmp_path / "out.nii").affine, AFFINE)


def test_invalid_form_with_an_unknown_code_is_an_error(write):
    zero = dict.fromkeys(("srow_x", "srow_y", "srow_z"), 0)
    with pytest.raises(InputError, match=r"sform_code from 0 to 5, or an affine"):
        load(write(sform_code=99, **zero))


def test_without_forms_the_orientation_is_noted_as_a_guess(write):
    volume, notes = load(write(codes=(0, 0)))
    assert volume.grid.axis_codes == "LAS"
    assert "neither sform nor qform" in notes


HALF_TURN = {"quatern_b": 0.6, "quatern_d": 0.0, "qform_code": 1, "sform_code": 0}


@pytest.mark.parametrize("c", [0.8, 0.8 + 5e-7, 0.8003])
def test_quaternion_longer_than_1_by_rounding_is_read(write, c, tmp_path):
    volume, notes = load(write(**HALF_TURN, quatern_c=c))
    assert notes == ""
    axes = volume.grid.affine[:3, :3] / (0.8, 1.1, 5)
    expected = [[-0.28, 0.96, 0], [0.96, 0.28, 0], [0, 0, -1]]
    np.testing.assert_allclose(axes, expected, atol=2e-3)
    nifti.save_labels(tmp_path / "out.nii", np.ones(SHAPE[::-1], int), volume.grid)
    written = nib.load(tmp_path / "out.nii").affine
    np.testing.assert_allclose(written, volume.grid.affine, atol=1e-6)


@pytest.mark.parametrize("fields", [{"quatern_c": 0.9}, {"quatern_c": np.nan}])
def test_invalid_rotation_is_an_error_without_an_sform(write, fields):
    path = write(**HALF_TURN, **fields)
    with pytest.raises(InputError, match=r"a rotation as qform, or .*quaternion"):
        load(path)
    volume, notes = load(write(**{**HALF_TURN, "sform_code": 1}, **fields))
    assert volume.grid.axis_codes == "RAS"
    assert "not a rotation; using the sform" in notes


@pytest.mark.parametrize(("qfac", "codes"), [(-1, "RAI"), (-3, "RAI"), (0, "RAS")])
def test_direction_of_the_third_axis(write, qfac, codes):
    volume, notes = load(write(codes=(0, 1), pixdim__0=qfac))
    assert volume.grid.axis_codes == codes
    assert ("pixdim[0] is -3" in notes) == (qfac == -3)


def test_forms_of_opposite_handedness_are_noted(write):
    mirrored = np.diag([-1.0, 1, 1, 1]) @ AFFINE
    volume, notes = load(write(qform=mirrored, codes=(2, 1)))
    assert volume.grid.axis_codes == "RAS"
    assert notes == (
        "orientation is RAS in sform and LAS in qform, a mirror image; using the sform"
    )
    _, notes = load(write(qform=np.diag([-1.0, -1, 1, 1]) @ AFFINE, codes=(2, 1)))
    assert notes == "orientation is RAS in sform and LPS in qform; using the sform"
    assert load(write(codes=(2, 1)))[1] == ""


def test_axes_that_are_not_perpendicular_are_noted(write):
    sheared = AFFINE.copy()
    sheared[0, 2] = 1.0
    assert "axes at 78.7 degrees, not 90" in load(write(sheared))[1]


@pytest.mark.parametrize(
    "entry", [1e30, np.nan, np.inf, -np.inf, 3e38], ids=lambda value: f"{value:g}"
)
def test_invalid_affine_is_an_error(write, entry):
    path = write(srow_x=(0.8, entry, 0, 0), srow_y=(0, entry, 0, 0))
    with pytest.raises(InputError, match=r"scan\.nii: expected an invertible affine"):
        load(path)


def test_other_fields(write):
    volume, notes = load(write(bitpix=8))
    np.testing.assert_array_equal(volume.data[0], make_array().T)
    assert "bitpix is 8; using 32, as for float32" in notes
    volume, notes = load(write(vox_offset=0))
    np.testing.assert_array_equal(volume.data[0], make_array().T)
    assert "vox_offset is 0; using 352" in notes
    for offset in (np.inf, np.nan, 100, 352.5, -16):
        with pytest.raises(InputError, match=r"scan\.nii: expected vox_offset"):
            load(write(vox_offset=offset))
    for slope, intercept in ((np.inf, 0), (1, np.nan), (2, np.inf)):
        with pytest.raises(InputError, match="finite numbers as scl_slope and scl_int"):
            load(write(scl_slope=slope, scl_inter=intercept))


def test_loss_of_precision_in_float32_is_noted(write):
    array = make_array().astype(np.float64) + 2.0**30
    _, notes = load(write(array=array))
    assert "are read as float32, which rounds them to multiples of 128" in notes
    assert load(write(array=make_array().astype(np.float64) + 1000))[1] == ""


def test_compression_is_detected_from_the_content(write, tmp_path):
    content = write().read_bytes()
    for name, data in (("a.nii", gzip.compress(content)), ("b.nii.gz", content)):
        (tmp_path / name).write_bytes(data)
        found = nifti.load_image(tmp_path / name).data[0]
        np.testing.assert_array_equal(found, make_array().T)


def shifted(mm):
    qform = AFFINE.copy()
    qform[0, 3] += mm
    return qform


def turned(degrees):
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[:2, :2] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn @ AFFINE


@pytest.mark.parametrize(
    ("qform", "distance"),
    [
        (shifted(50), "50"),
        (shifted(0.9), "0.9"),
        # The corner at (2.4, 4.4) mm is 5.01 mm from the axis and moves 2 sin(55° / 2)
        # times that.
        (turned(55), "4.63"),
    ],
)
def test_forms_that_place_voxels_differently_are_noted(write, caplog, qform, distance):
    path = write(qform=qform, codes=(1, 1))
    volume = nifti.load_image(path)
    np.testing.assert_allclose(volume.grid.affine, AFFINE, rtol=1e-6)
    words = f"scan.nii: sform and qform place a corner of the volume {distance} mm"
    assert words in caplog.text


def test_distance_of_forms_is_in_mm(write, caplog):
    scale = np.diag([1e3, 1e3, 1e3, 1])
    path = write(scale @ AFFINE, qform=scale @ shifted(50), codes=(1, 1), xyzt_units=3)
    nifti.load_image(path)
    assert "a corner of the volume 50 mm apart; using the sform" in caplog.text


@pytest.mark.parametrize("qform", [shifted(0.5), turned(0.1), AFFINE])
def test_forms_that_differ_by_rounding_are_not_noted(write, caplog, qform):
    nifti.load_image(write(qform=qform, codes=(1, 1)))
    assert not caplog.text


def test_values_that_become_equal_in_float32_are_an_error(write, tmp_path):
    array = make_array().astype(np.int16)
    with pytest.raises(InputError, match=r"differ in float32.* 1000000000\.0 to 1000"):
        load(write(array=array, scl_slope=1e-3, scl_inter=1e9))
    array = array.astype(np.int64) + 2**53
    path = tmp_path / "a.nii"
    nib.Nifti1Image(array, AFFINE, dtype=np.int64).to_filename(path)
    with pytest.raises(
        InputError, match=r"Received: 9007199254740992 to 9007199254741"
    ):
        load(path)
