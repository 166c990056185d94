import gzip
import itertools
import pathlib

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk

from u2net_tf.errors import InputError
from u2net_tf.volumes import images, nifti
from u2net_tf.volumes.grid import check_same_grid, header_problem, reorient_to

ORIENTATIONS = [
    "".join(codes)
    for axes in itertools.permutations(("RL", "AP", "SI"))
    for codes in itertools.product(*axes)
]
RNG = np.random.default_rng(0)
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.2, -0.3, 0.4) @ np.diag([0.8, 1.1, 2.5]), (-20, 30, 5)
)


def make_array(shape=(3, 4, 5), dtype=np.int16):
    return RNG.integers(0, 100, shape).astype(dtype)


def save(path, array, affine=None, image_class=nib.Nifti1Image, **header):
    image = image_class(array, np.eye(4) if affine is None else affine)
    for field, value in header.items():
        image.header[field] = value
    nib.save(image, path)
    return path


def oriented(codes):
    """Returns an affine with axes in these directions and 2, 3 and 4 mm per voxel."""
    affine = np.zeros((4, 4))
    affine[:, 3] = (-7, 8, 9, 1)
    for axis, (code, size) in enumerate(zip(codes, (2, 3, 4), strict=True)):
        world = next(w for w, pair in enumerate(("LR", "PA", "IS")) if code in pair)
        affine[world, axis] = size if code in "RAS" else -size
    return affine


@pytest.mark.parametrize("codes", ORIENTATIONS)
def test_every_orientation_round_trip(tmp_path, codes):
    array = make_array()
    path = save(tmp_path / "image.nii.gz", array, oriented(codes))
    volume = nifti.load_image(path)
    assert volume.grid.axis_codes == codes
    canonical = nib.as_closest_canonical(nib.load(path))
    np.testing.assert_array_equal(volume.data[0], np.asarray(canonical.dataobj).T)
    sizes = nib.affines.voxel_sizes(canonical.affine)
    np.testing.assert_allclose(volume.spacing_mm, sizes[::-1], rtol=1e-6)
    nifti.save_labels(
        tmp_path / "out.nii.gz", volume.data[0].astype(np.uint8), volume.grid
    )
    written = nib.load(tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asarray(written.dataobj), array)
    np.testing.assert_array_equal(written.affine, nib.load(path).affine)


def test_forty_eight_orientations():
    assert len(set(ORIENTATIONS)) == 48


def test_oblique_is_reoriented_not_interpolated(tmp_path):
    array = make_array()
    path = save(tmp_path / "image.nii.gz", array, OBLIQUE)
    volume = nifti.load_image(path)
    assert volume.grid.axis_codes == "RAS"
    np.testing.assert_array_equal(volume.data[0], array.T)
    np.testing.assert_allclose(volume.spacing_mm, (2.5, 1.1, 0.8), rtol=1e-6)


@pytest.mark.parametrize("affine", [OBLIQUE, oriented("LPS"), oriented("SRA")])
def test_written_geometry_agrees_with_simpleitk(tmp_path, affine):
    path = save(tmp_path / "image.nii.gz", make_array(), affine)
    volume = nifti.load_image(path)
    nifti.save_labels(
        tmp_path / "out.nii.gz", volume.data[0].astype(np.uint8), volume.grid
    )
    expected, found = sitk.ReadImage(path), sitk.ReadImage(tmp_path / "out.nii.gz")
    assert found.GetSize() == expected.GetSize()
    assert found.GetSpacing() == expected.GetSpacing()
    assert found.GetOrigin() == expected.GetOrigin()
    assert found.GetDirection() == expected.GetDirection()
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(found), sitk.GetArrayFromImage(expected)
    )
    # World coordinates of ITK are LPS.
    lps = np.array(found.TransformIndexToPhysicalPoint((2, 1, 3)))
    ras = affine @ (2, 1, 3, 1)
    np.testing.assert_allclose(lps * (-1, -1, 1), ras[:3], atol=1e-4)


@pytest.mark.parametrize("codes", [(0, 1), (1, 0), (2, 1), (1, 4)])
@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
def test_header_codes_are_kept(tmp_path, codes, image_class):
    image = image_class(make_array(dtype=np.float32), OBLIQUE)
    image.set_sform(OBLIQUE, code=codes[0])
    image.set_qform(OBLIQUE, code=codes[1])
    image.header.set_xyzt_units("mm", "sec")
    image.header["descrip"] = b"scanner 7"
    nib.save(image, tmp_path / "image.nii")
    volume = nifti.load_image(tmp_path / "image.nii")
    nifti.save_labels(tmp_path / "out.nii.gz", volume.data[0].astype(int), volume.grid)
    written = nib.load(tmp_path / "out.nii.gz")
    assert type(written) is image_class
    assert written.header["sform_code"] == codes[0]
    assert written.header["qform_code"] == codes[1]
    assert written.header["descrip"] == b"scanner 7"
    assert written.header.get_xyzt_units() == ("mm", "sec")
    assert written.get_data_dtype() == np.uint8
    np.testing.assert_array_equal(
        written.affine, nib.load(tmp_path / "image.nii").affine
    )
    np.testing.assert_array_equal(written.header["pixdim"], image.header["pixdim"])


def test_scaled_intensities(tmp_path):
    array = make_array()
    image = nib.Nifti1Image(array, np.eye(4))
    image.header.set_slope_inter(0.5, -3)
    data = image.to_bytes()
    header = nib.Nifti1Header(data[:348])
    header["scl_slope"], header["scl_inter"] = 0.5, -3
    (tmp_path / "image.nii").write_bytes(header.binaryblock + data[348:])
    volume = nifti.load_image(tmp_path / "image.nii")
    np.testing.assert_array_equal(volume.data[0], array.T * 0.5 - 3)
    nifti.save_labels(tmp_path / "out.nii", np.ones((5, 4, 3), int), volume.grid)
    np.testing.assert_array_equal(nib.load(tmp_path / "out.nii").get_fdata(), 1)


def test_a_4d_file_is_equivalent_to_several_files(tmp_path):
    array = make_array((3, 4, 5, 2), np.float32)
    path = save(tmp_path / "4d.nii.gz", array, oriented("LPI"))
    parts = [
        save(tmp_path / f"part{c}.nii.gz", array[..., c], oriented("LPI"))
        for c in range(2)
    ]
    first, second = nifti.load_image(path), images.load_image(parts)
    assert first.data.shape == (2, 5, 4, 3)
    np.testing.assert_array_equal(first.data, second.data)
    assert first.spacing_mm == second.spacing_mm


def test_trailing_axes_of_one_voxel_are_dropped(tmp_path):
    path = save(tmp_path / "image.nii.gz", make_array((3, 4, 5, 1, 1)))
    assert nifti.load_image(path).data.shape == (1, 5, 4, 3)
    assert nifti.load_labels(path).data.shape == (5, 4, 3)


def test_files_on_different_grids_are_an_error(tmp_path):
    first = save(tmp_path / "a.nii.gz", make_array())
    for name, other in (
        ("shape", save(tmp_path / "shape.nii.gz", make_array((3, 4, 6)))),
        ("shift", save(tmp_path / "shift.nii.gz", make_array(), oriented("RAS"))),
    ):
        with pytest.raises(InputError, match=rf"{name}\.nii\.gz.*a\.nii\.gz"):
            images.load_image([first, other])


@pytest.mark.parametrize("codes", ORIENTATIONS[::5])
def test_files_in_different_orientations_are_reoriented_to_the_first(tmp_path, codes):
    first = save(tmp_path / "a.nii.gz", make_array(), oriented("RAS"))
    array = make_array()
    image = nib.Nifti1Image(array, oriented("RAS"))
    target = nib.orientations.axcodes2ornt(codes)
    turn = nib.orientations.ornt_transform(nib.orientations.axcodes2ornt("RAS"), target)
    nib.save(image.as_reoriented(turn), tmp_path / "b.nii.gz")
    found = images.load_image([first, tmp_path / "b.nii.gz"])
    np.testing.assert_array_equal(found.data[1], array.T)
    labels = nifti.load_labels(tmp_path / "b.nii.gz")
    assert labels.grid.axis_codes == codes
    np.testing.assert_array_equal(reorient_to(labels, found.grid), array.T)


def test_grids_at_45_degrees_agree_despite_different_axis_codes(tmp_path):
    """The closest world axis depends on rounding."""

    def at(degrees):
        turn = nib.eulerangles.euler2mat(np.radians(degrees))
        return nib.affines.from_matvec(turn @ np.diag([2.0, 2.0, 3.0]))

    array = make_array((4, 4, 5))
    image = nifti.load_image(save(tmp_path / "i.nii.gz", array, at(44.999)))
    labels = nifti.load_labels(save(tmp_path / "l.nii.gz", array, at(45.001)))
    assert image.grid.axis_codes != labels.grid.axis_codes
    np.testing.assert_array_equal(reorient_to(labels, image.grid), image.data[0])


def test_several_4d_files_are_an_error(tmp_path):
    path = save(tmp_path / "a.nii.gz", make_array((3, 4, 5, 2)))
    with pytest.raises(InputError, match="expected a 3-D file, one per modality"):
        images.load_image([path, path])


@pytest.mark.parametrize(("source", "expected"), [("pixdim", 1.64), ("affine", 1.0)])
def test_contradictory_header_warns_and_follows_the_choice(
    tmp_path, caplog, source, expected
):
    image = nib.Nifti1Image(make_array(), np.diag([1.0, 1.0, 10.0, 1.0]))
    image.header.set_zooms((1.64, 1.64, 10))
    image.header["sform_code"] = 1
    nib.save(image, tmp_path / "image.nii.gz")
    with caplog.at_level("WARNING", logger="absl"):
        volume = nifti.load_image(tmp_path / "image.nii.gz", spacing_source=source)
    assert volume.spacing_mm == pytest.approx((10, expected, expected))
    assert "image.nii.gz" in caplog.text
    assert (
        "1.64 × 1.64 × 10 mm in pixdim and 1 × 1 × 10 mm in the affine" in caplog.text
    )
    assert f"using {source}" in caplog.text


def test_consistent_header_does_not_warn(tmp_path, caplog):
    path = save(tmp_path / "image.nii.gz", make_array(), OBLIQUE)
    volume = nifti.load_image(path)
    assert header_problem(volume.grid) == ""
    assert caplog.text == ""


def test_unknown_spacing_source_is_an_error(tmp_path):
    path = save(tmp_path / "image.nii.gz", make_array())
    with pytest.raises(ValueError, match="spacing_source: expected one of"):
        nifti.load_image(path, spacing_source="sform")


def test_grids_are_the_same_up_to_a_tenth_of_a_voxel(tmp_path):
    def grid(shift_mm):
        affine = np.eye(4)
        affine[0, 3] = shift_mm
        path = save(tmp_path / f"{shift_mm}.nii", make_array(), affine)
        return nifti.load_image(path).grid

    check_same_grid(grid(0), grid(0.05))
    words = r"0.2.nii: expected the affine of .*0.nii.* Received: .* 0.2 mm away"
    with pytest.raises(InputError, match=words):
        check_same_grid(grid(0), grid(0.2))


def cut(path):
    data = path.read_bytes()
    path.write_bytes(data[: len(data) - 40])


def cut_within(path):
    data = gzip.decompress(path.read_bytes())
    path.write_bytes(gzip.compress(data[:-20]))


@pytest.mark.parametrize("damage", [cut, cut_within, pathlib.Path.unlink])
@pytest.mark.parametrize("load", [lambda p: nifti.load_image(p), nifti.load_labels])
def test_damaged_file_is_reported(tmp_path, damage, load):
    path = save(tmp_path / "image.nii.gz", make_array((20, 20, 20)))
    damage(path)
    with pytest.raises(InputError, match=r"image\.nii\.gz: expected a"):
        load(path)


def test_files_of_other_formats_are_reported(tmp_path):
    (tmp_path / "image.nii.gz").write_bytes(b"no scan")
    with pytest.raises(InputError, match=r"image\.nii\.gz: expected a readable .*Rec"):
        nifti.load_image(tmp_path / "image.nii.gz")
    nib.save(nib.MGHImage(make_array(dtype=np.float32), np.eye(4)), tmp_path / "a.mgz")
    with pytest.raises(InputError, match="readable NIfTI file. .* begins with b'"):
        nifti.load_image(tmp_path / "a.mgz")


RGB = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")])


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (make_array((8, 9)), "expected a 3-D volume"),
        (make_array((3, 4, 5, 1, 2)), "expected a 3-D volume"),
        (np.zeros((3, 4, 5), RGB), "one number per voxel"),
        (np.zeros((3, 4, 5), np.complex64), "one number per voxel"),
    ],
)
def test_files_without_a_volume_are_reported(tmp_path, array, message):
    path = save(tmp_path / "image.nii.gz", array)
    with pytest.raises(InputError, match=message) as error:
        nifti.load_image(path)
    assert str(path) in str(error.value)


def test_singular_affine_is_reported(tmp_path):
    image = nib.Nifti1Image(make_array(), np.eye(4))
    image.header["srow_x"] = 0
    image.header["sform_code"] = 1
    data = image.to_bytes()
    header = nib.Nifti1Header(data[:348])
    header["srow_x"] = 0
    (tmp_path / "image.nii").write_bytes(header.binaryblock + data[348:])
    with pytest.raises(InputError, match="an invertible affine. Received: .*0.0"):
        nifti.load_image(tmp_path / "image.nii")


class TestLabels:
    def test_values_and_orientation(self, tmp_path):
        array = make_array(dtype=np.uint8)
        path = save(tmp_path / "l.nii.gz", array, oriented("LPS"))
        labels = nifti.load_labels(path)
        assert labels.data.dtype == np.int32
        np.testing.assert_array_equal(labels.data, array[::-1, ::-1].T)
        assert labels.spacing_mm == (4, 3, 2)

    def test_integral_floats_are_labels_and_fractions_are_not(self, tmp_path):
        path = save(tmp_path / "l.nii.gz", make_array(dtype=np.float32))
        assert nifti.load_labels(path).data.dtype == np.int32
        path = save(tmp_path / "l.nii.gz", np.full((3, 4, 5), 0.5, np.float32))
        with pytest.raises(InputError, match="integers"):
            nifti.load_labels(path)

    @pytest.mark.parametrize(
        ("values", "dtype", "expected"),
        [
            ((0, 2**24, 2**24 + 1), np.uint32, np.int32),
            ((0, 312782574, 312782578), np.int32, np.int32),
            ((0, 2**31, 2**32 - 1), np.uint32, np.int64),
            ((-(2**40), 0, 2**62 + 1), np.int64, np.int64),
            ((0, 2**24, 2**24 + 2), np.float32, np.int32),
            ((0, 2**24, 2**40 + 1), np.float64, np.int64),
        ],
    )
    def test_integers_are_preserved(self, tmp_path, values, dtype, expected):
        array = np.array(values, dtype).reshape(1, 1, 3)
        image = nib.Nifti1Image(array, np.eye(4), dtype=dtype)
        nib.save(image, tmp_path / "l.nii.gz")
        labels = nifti.load_labels(tmp_path / "l.nii.gz")
        assert labels.data.ravel().tolist() == list(values)
        assert labels.data.dtype == expected
        nifti.save_labels(tmp_path / "o.nii.gz", labels.data, labels.grid)
        written = np.asarray(nib.load(tmp_path / "o.nii.gz").dataobj)
        assert written.ravel().tolist() == list(values)

    @pytest.mark.parametrize(
        ("value", "dtype"),
        [(2**63, np.uint64), (2.0**53, np.float64), (np.inf, np.float32)],
    )
    def test_integers_out_of_range_are_an_error(self, tmp_path, value, dtype):
        array = np.full((1, 1, 2), value, dtype)
        nib.save(nib.Nifti1Image(array, np.eye(4), dtype=dtype), tmp_path / "l.nii")
        with pytest.raises(InputError, match=r"l\.nii: expected "):
            nifti.load_labels(tmp_path / "l.nii")

    @pytest.mark.parametrize("bits", [0x7FC00000, 0x7F800001], ids=["quiet", "signal"])
    def test_nan_is_an_error(self, tmp_path, bits):
        array = np.array([[[1.0, 0.0]]], np.float32)
        data = bytearray(nib.Nifti1Image(array, np.eye(4)).to_bytes())
        # A damaged file may contain a signalling NaN.
        data[-4:] = np.uint32(bits).tobytes()
        (tmp_path / "l.nii").write_bytes(data)
        with pytest.raises(InputError, match=r"l\.nii: .*nan in 1 voxel"):
            nifti.load_labels(tmp_path / "l.nii")

    def test_scaled_integers_are_reported_or_rounded(self, tmp_path):
        array = np.array([0, 100, 200, 201], np.uint8).reshape(1, 1, 4)
        data = bytearray(nib.Nifti1Image(array, np.eye(4)).to_bytes())
        header = nib.Nifti1Header(bytes(data[:348]), check=False)
        header["scl_slope"], header["scl_inter"] = 0.0100002, 0
        data[:348] = header.binaryblock
        path = tmp_path / "l.nii"
        path.write_bytes(data)
        words = (
            r"1\.0000\d+ in 1 voxel, 2\.0000\d+ in 1 voxel, 2\.01\d+ in 1 voxel, "
            r"stored with slope 0\.0100\d+ and intercept 0"
        )
        with pytest.raises(InputError, match=words) as error:
            nifti.load_labels(path)
        assert str(error.value).endswith("Use `round_labels` to round them")
        rounded = nifti.load_labels(path, round_labels=True).data
        assert rounded.ravel().tolist() == [0, 1, 2, 2]

    def test_fractions_are_not_rounded(self, tmp_path):
        array = np.linspace(0, 1, 12, dtype=np.float32).reshape(1, 12, 1)
        path = save(tmp_path / "l.nii", array)
        with pytest.raises(InputError, match=r"integers to within 0\.1 as") as error:
            nifti.load_labels(path, round_labels=True)
        assert "`round_labels`" not in str(error.value)
        with pytest.raises(InputError, match="in 1 voxel and 5 more") as error:
            nifti.load_labels(path)
        assert "`round_labels`" not in str(error.value)

    def test_four_dimensions_are_an_error(self, tmp_path):
        path = save(tmp_path / "l.nii.gz", make_array((3, 4, 5, 2)))
        with pytest.raises(InputError, match="expected a 3-D label map"):
            nifti.load_labels(path)

    @pytest.mark.parametrize(
        ("values", "dtype"),
        [
            ((0, 255), np.uint8),
            ((0, 256), np.int16),
            ((-1, 5), np.int16),
            ((0, 70000), np.int32),
        ],
    )
    def test_written_type_is_the_smallest(self, tmp_path, values, dtype):
        path = save(tmp_path / "image.nii.gz", make_array((1, 1, 2)))
        grid = nifti.load_image(path).grid
        labels = np.array(values).reshape(2, 1, 1)
        nifti.save_labels(tmp_path / "out.nii.gz", labels, grid)
        assert nib.load(tmp_path / "out.nii.gz").get_data_dtype() == dtype
        np.testing.assert_array_equal(
            nifti.load_labels(tmp_path / "out.nii.gz").data, labels
        )

    def test_probabilities_are_one_file_with_a_channel_per_class(self, tmp_path):
        path = save(tmp_path / "image.nii.gz", make_array(), oriented("PIR"))
        volume = nifti.load_image(path)
        values = RNG.random((*volume.data.shape[1:], 3)).astype(np.float32)
        nifti.save_probabilities(tmp_path / "p.nii.gz", values, volume.grid)
        written = nib.load(tmp_path / "p.nii.gz")
        assert written.shape == (3, 4, 5, 3)
        np.testing.assert_array_equal(written.affine, nib.load(path).affine)
        back = nifti.load_image(tmp_path / "p.nii.gz")
        np.testing.assert_array_equal(np.moveaxis(back.data, 0, -1), values)


class TestWriting:
    def test_writing_is_deterministic(self, tmp_path):
        path = save(tmp_path / "image.nii.gz", make_array())
        grid = nifti.load_image(path).grid
        for name in "ab":
            nifti.save_labels(
                tmp_path / f"{name}.nii.gz", np.ones((5, 4, 3), int), grid
            )
        assert (tmp_path / "a.nii.gz").read_bytes()[10:] == (
            tmp_path / "b.nii.gz"
        ).read_bytes()[10:]

    def test_files_are_written_completely_or_not_at_all(self, tmp_path, monkeypatch):
        path = save(tmp_path / "image.nii.gz", make_array())
        grid = nifti.load_image(path).grid
        out = tmp_path / "out.nii.gz"
        out.write_bytes(b"what was there")
        write = pathlib.Path.write_bytes

        def fill_the_disk(self, data):
            write(self, data[: len(data) // 2])
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(pathlib.Path, "write_bytes", fill_the_disk)
        with pytest.raises(OSError, match="No space left"):
            nifti.save_labels(out, np.ones((5, 4, 3), int), grid)
        assert out.read_bytes() == b"what was there"
        names = sorted(p.name for p in tmp_path.iterdir())
        assert names == ["image.nii.gz", "out.nii.gz"]


def test_a_4d_and_a_3d_file_are_an_error(tmp_path, write_nifti):
    first = write_nifti(tmp_path / "a.nii.gz", np.ones((2, 4, 5, 6), np.float32))
    second = write_nifti(tmp_path / "b.nii.gz", np.ones((4, 5, 6), np.float32))
    with pytest.raises(InputError, match=r"a.nii.gz: expected a 3-D file"):
        images.load_image([first, second])


def test_a_voxel_size_of_nan_is_an_error(tmp_path, write_nifti):
    path = write_nifti(tmp_path / "a.nii", np.ones((4, 5, 6), np.float32))
    content = bytearray(path.read_bytes())
    # pixdim[1:4] of a NIfTI-1 header.
    content[80:92] = np.array([1, np.nan, 1], "<f4").tobytes()
    path.write_bytes(content)
    with pytest.raises(InputError, match=r"a.nii: expected voxel sizes above 0 mm"):
        nifti.load_image(path)
