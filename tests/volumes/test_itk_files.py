"""NRRD and MetaImage: read correctly or reported, and written on the grid read."""

import numpy as np
import pytest
import SimpleITK as sitk

from u2net_tf.errors import InputError
from u2net_tf.volumes import images, nifti
from u2net_tf.volumes.grid import check_same_grid

COSINE, SINE = np.cos(0.3), np.sin(0.3)
DIRECTION = np.array([[COSINE, -SINE, 0], [SINE, COSINE, 0], [0, 0, 1]]) @ np.array(
    [[1, 0, 0], [0, COSINE, -SINE], [0, SINE, COSINE]]
)
SUFFIXES = pytest.mark.parametrize("suffix", [".nrrd", ".mha"])


def make_image(dtype=np.int16, num_components=0):
    shape = (6, 9, 8, num_components) if num_components else (6, 9, 8)
    values = np.random.default_rng(0).integers(-90, 900, shape).astype(dtype)
    image = sitk.GetImageFromArray(values, isVector=num_components > 0)
    image.SetSpacing((0.75, 1.25, 3.5))
    image.SetOrigin((-30, 12, 101))
    image.SetDirection(DIRECTION.ravel().tolist())
    return image


def write(path, image, *, compressed=False):
    sitk.WriteImage(image, path, useCompression=compressed)
    return path


def edit(path, old, new):
    content = path.read_bytes()
    assert old in content
    path.write_bytes(content.replace(old, new, 1))


@SUFFIXES
@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, np.float64])
def test_image_agrees_with_nifti(tmp_path, suffix, compressed, dtype):
    image = make_image(dtype)
    expected = nifti.load_image(write(tmp_path / "a.nii.gz", image))
    path = write(tmp_path / f"a{suffix}", image, compressed=compressed)
    found = images.load_image([path])
    np.testing.assert_array_equal(found.data, expected.data)
    np.testing.assert_allclose(found.spacing_mm, expected.spacing_mm, rtol=1e-5)
    check_same_grid(expected.grid, found.grid)
    assert found.grid.path == str(path)


@SUFFIXES
def test_components_are_modalities(tmp_path, suffix):
    image = make_image(num_components=2)
    found = images.load_image([write(tmp_path / f"a{suffix}", image)])
    parts = [
        write(tmp_path / f"{i}.nii.gz", sitk.VectorIndexSelectionCast(image, i))
        for i in range(2)
    ]
    np.testing.assert_array_equal(found.data, images.load_image(parts).data)
    with pytest.raises(InputError, match=r"3-D file, one per modality"):
        images.load_image([tmp_path / f"a{suffix}"] * 2)


def test_modalities_may_have_several_formats(tmp_path):
    image = make_image()
    paths = [write(tmp_path / f"a{s}", image) for s in (".nrrd", ".nii.gz", ".mha")]
    assert images.load_image(paths).data.shape[0] == 3
    image.SetOrigin((0, 0, 0))
    write(paths[2], image)
    with pytest.raises(InputError, match=r"a\.mha.* mm away"):
        images.load_image(paths)


@SUFFIXES
def test_labels_must_be_integers(tmp_path, suffix):
    image = make_image(np.int32)
    values = sitk.GetArrayFromImage(image) + 2**24
    image = sitk.GetImageFromArray(values)
    path = write(tmp_path / f"a{suffix}", image)
    assert set(np.unique(images.load_labels(path).data)) == set(np.unique(values))
    write(path, sitk.Cast(image, sitk.sitkFloat64) + 0.01)
    with pytest.raises(InputError, match=rf"a{suffix}: expected integers"):
        images.load_labels(path)
    images.load_labels(path, round_labels=True)


@SUFFIXES
@pytest.mark.parametrize("source", [".nii.gz", ".nrrd", ".mha"])
def test_label_maps_are_written_on_the_grid_of_the_image(tmp_path, suffix, source):
    image = make_image()
    volume = images.load_image([write(tmp_path / f"a{source}", image)])
    labels = (volume.data[0] > 100).astype(np.int64)
    images.save_labels(tmp_path / f"out{suffix}", labels, volume.grid)
    written = sitk.ReadImage(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(written), sitk.GetArrayFromImage(image) > 100
    )
    assert written.GetPixelIDTypeAsString() == "8-bit unsigned integer"
    np.testing.assert_allclose(written.GetOrigin(), image.GetOrigin(), atol=1e-4)
    np.testing.assert_allclose(written.GetSpacing(), image.GetSpacing(), rtol=1e-5)
    np.testing.assert_allclose(written.GetDirection(), image.GetDirection(), atol=1e-5)
    again = images.load_labels(tmp_path / f"out{suffix}")
    np.testing.assert_array_equal(again.data, labels)


@SUFFIXES
def test_probabilities_are_components(tmp_path, suffix):
    image = make_image()
    volume = images.load_image([write(tmp_path / f"a{suffix}", image)])
    values = np.random.default_rng(1).random((*volume.data.shape[1:], 3), np.float32)
    images.save_probabilities(tmp_path / f"out{suffix}", values, volume.grid)
    written = images.load_image([tmp_path / f"out{suffix}"])
    np.testing.assert_array_equal(np.moveaxis(written.data, 0, -1), values)


def test_sheared_grids_are_written_if_the_format_supports_them(tmp_path):
    volume = images.load_image([write(tmp_path / "a.nii", make_image())])
    volume.grid.affine[0, 2] += 1
    labels = np.zeros(volume.data.shape[1:], np.uint8)
    with pytest.raises(InputError, match=r"out\.mha: expected perpendicular axes"):
        images.save_labels(tmp_path / "out.mha", labels, volume.grid)
    images.save_labels(tmp_path / "out.nrrd", labels, volume.grid)
    found = images.load_labels(tmp_path / "out.nrrd")
    np.testing.assert_allclose(found.grid.affine, volume.grid.affine, rtol=1e-12)


@SUFFIXES
@pytest.mark.parametrize("source", [".nrrd", ".mha"])
def test_itk_accepts_the_grid_of_label_maps(tmp_path, suffix, source):
    """ITK compares positions to a millionth of a voxel; float32 has 24 bits."""
    image = make_image()
    image.SetSpacing((0.7, 1.1, 1 / 3))
    image.SetOrigin((-213.7654321, 1234.123456789, 17.1))
    path = write(tmp_path / f"a{source}", image)
    labels = (images.load_image([path]).data[0] > 100).astype(np.uint8)
    grid = images.load_header(path).grid
    images.save_labels(tmp_path / f"out{suffix}", labels, grid)
    written = sitk.ReadImage(tmp_path / f"out{suffix}")
    masked = sitk.Mask(sitk.ReadImage(path), written)
    values = sitk.GetArrayViewFromImage(image)
    np.testing.assert_array_equal(
        sitk.GetArrayViewFromImage(masked), np.where(values > 100, values, 0)
    )


@SUFFIXES
def test_itk_accepts_the_grid_of_label_maps_of_nifti_files(tmp_path, suffix):
    path = write(tmp_path / "a.nii.gz", make_image())
    volume = images.load_image([path])
    labels = (volume.data[0] > 100).astype(np.uint8)
    images.save_labels(tmp_path / f"out{suffix}", labels, volume.grid)
    written = sitk.ReadImage(tmp_path / f"out{suffix}")
    assert sitk.GetArrayFromImage(sitk.Mask(sitk.ReadImage(path), written)).any()


@pytest.mark.parametrize(
    ("suffix", "old", "new", "field"),
    [
        (".nrrd", b"space: left-posterior-superior\n", b"", "space"),
        (".nrrd", b"left-posterior-superior", b"scanner-xyz", "space"),
        (".nrrd", b"sizes: 8 9 6", b"sizes: 8 9 -6", "sizes"),
        (".nrrd", b"space directions: (", b"space directions: (x", "space directions"),
        (".nrrd", b"space origin", b"space nothing", "space origin"),
        (".nrrd", b"encoding: raw", b"encoding: hex", "encoding"),
        (".nrrd", b"encoding: raw", b"data file: a.raw\nencoding: raw", "data file"),
        (".nrrd", b"type: short", b"type: block", "type"),
        (".nrrd", b"endian: little", b"endian: odd", "endian"),
        (".mha", b"ElementSpacing", b"ElementNothing", "ElementSpacing"),
        (".mha", b"Spacing = 0.75", b"Spacing = 0", "ElementSpacing"),
        (".mha", b"Spacing = 0.75", b"Spacing = nan", "ElementSpacing"),
        (".mha", b"TransformMatrix", b"TransformNothing", "TransformMatrix"),
        (".mha", b"TransformMatrix = 0", b"TransformMatrix = 5", "TransformMatrix"),
        (".mha", b"Offset", b"Onset", "Offset"),
        (".mha", b"DimSize = 8 9 6", b"DimSize = 8 9", "DimSize"),
        (".mha", b"Offset = -30", b"Offset = 1e300", "Offset"),
        (".mha", b"Offset = -30", b"Offset = -30\xa0", "Offset"),
        (".mha", b"NDims = 3", b"NDims = 4", "NDims"),
        (".mha", b"MET_SHORT", b"MET_OTHER", "ElementType"),
        (".mha", b"= LOCAL", b"= a.raw", "ElementDataFile"),
        (".mha", b"BinaryDataByteOrderMSB", b"ByteOrder", "ElementByteOrderMSB"),
        (".mha", b"CompressedData =", b"CompressedData = 1", "CompressedData"),
    ],
)
def test_missing_fields_are_not_replaced_by_defaults(
    tmp_path, capfd, suffix, old, new, field
):
    path = write(tmp_path / f"a{suffix}", make_image())
    edit(path, old, new)
    with pytest.raises(InputError, match=rf"a{suffix}: {field}: expected "):
        images.load_image([path])
    assert capfd.readouterr() == ("", "")


def test_size_of_compressed_voxels_is_not_guessed(tmp_path, capfd):
    """Without it, ITK returns uninitialized memory."""
    path = write(tmp_path / "a.mha", make_image(), compressed=True)
    for name in (b"Nothing =", b"CompressedDataSize = 1"):
        edit(path, b"CompressedDataSize =", name)
        with pytest.raises(InputError, match=r"a\.mha: CompressedDataSize: expected 7"):
            images.load_image([path])
        edit(path, name, b"CompressedDataSize =")
    assert capfd.readouterr() == ("", "")


@SUFFIXES
@pytest.mark.parametrize("compressed", [False, True])
def test_missing_and_surplus_bytes_are_errors(tmp_path, capfd, suffix, compressed):
    path = write(tmp_path / f"a{suffix}", make_image(), compressed=compressed)
    content = path.read_bytes()
    for damaged in (content[:-1], content[:-300], content + b"x", b"", content[:40]):
        path.write_bytes(damaged)
        with pytest.raises(InputError, match=rf"a{suffix}"):
            images.load_image([path])
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("suffix", "num_components"),
    [(".nrrd", 0), (".nrrd", 2), (".mha", 0), (".mha", 2), (".nii.gz", 0)],
)
def test_header_has_the_shape_and_the_grid(tmp_path, suffix, num_components):
    image = make_image(num_components=num_components)
    path = write(tmp_path / f"a{suffix}", image)
    header, volume = images.load_header(path), images.load_image([path])
    assert header.shape == (8, 9, 6, 2)[: 4 if num_components else 3]
    check_same_grid(volume.grid, header.grid)
    assert header.grid.pixdim_mm.tolist() == volume.grid.pixdim_mm.tolist()
    with pytest.raises(InputError, match="GB of memory"):
        images.load_header(path, max_memory_gb=1e-9)


@SUFFIXES
def test_size_is_checked_before_voxels_are_read(tmp_path, suffix):
    path = write(tmp_path / f"a{suffix}", make_image(), compressed=True)
    edit(path, b" 8 9 6", b" 80000 90000 6000")
    with pytest.raises(InputError, match="GB of memory"):
        images.load_image([path])
    edit(path, b" 80000 90000 6000", b" 80 9 6")
    with pytest.raises(InputError, match="bytes"):
        images.load_image([path])
    with pytest.raises(InputError, match="GB of memory"):
        images.load_image([path], max_memory_gb=1e-9)
    with pytest.raises(InputError, match="GB of memory"):
        images.load_labels(path, max_memory_gb=1e-9)


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.TIFF", "a.jpg"])
def test_pictures_are_refused(tmp_path, name):
    (tmp_path / name).write_bytes(b"picture")
    for load in (lambda path: images.load_image([path]), images.load_labels):
        with pytest.raises(InputError, match="Received: a 2-D image format. 2-D image"):
            load(tmp_path / name)


def outcome(path):
    """Returns the volume and "", or None and the message of the error."""
    try:
        return images.load_image([path]), ""
    except InputError as error:
        return None, str(error)


@SUFFIXES
@pytest.mark.parametrize("num_inputs", [50, pytest.param(3000, marks=pytest.mark.slow)])
def test_damaged_files_are_read_correctly_or_reported(tmp_path, suffix, num_inputs):
    """Flips bits of compressed files, because raw voxels have no checksum."""
    path = write(tmp_path / f"a{suffix}", make_image(), compressed=True)
    content = path.read_bytes()
    expected = images.load_image([path])
    # A changed digit in the header cannot be detected in a single file.
    first = content.index(b"\x1f\x8b\x08" if suffix == ".nrrd" else b"LOCAL\n")
    for index in range(num_inputs):
        rng = np.random.default_rng(index)
        place = int(rng.integers(first, len(content)))
        damaged = bytearray(content)
        damaged[place] ^= 1 << int(rng.integers(8))
        path.write_bytes(damaged)
        volume, message = outcome(path)
        if volume is None:
            assert path.name in message
        else:
            np.testing.assert_array_equal(volume.data, expected.data)
    for index in range(num_inputs):
        rng = np.random.default_rng([1, index])
        damaged = bytearray(content)
        damaged[int(rng.integers(first))] = int(rng.integers(256))
        path.write_bytes(damaged)
        volume, message = outcome(path)
        if volume is None:
            assert path.name in message
        else:
            # A damaged header may change positions and axes, but not voxels.
            found = np.sort(volume.data, axis=None)
            np.testing.assert_array_equal(found, np.sort(expected.data, axis=None))
