"""Any damaged NIfTI file is read, or is an `InputError` that names it."""

import gzip
import pathlib

import nibabel as nib
import numpy as np
import pytest

from u2net_tf.errors import InputError
from u2net_tf.volumes import nifti

SHAPE = (6, 5, 4)
# Memory limit, above the needs of all files here.
MAX_MEMORY_GB = 0.1


def make_file(image_class, dtype):
    rng = np.random.default_rng(0)
    array = rng.integers(0, 5, SHAPE).astype(dtype)
    affine = nib.affines.from_matvec(np.diag([1.0, 2.0, 3.0]), (4, 5, 6))
    image = image_class(array, affine, image_class.header_class(), dtype=dtype)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units("mm")
    extension = nib.nifti1.Nifti1Extension("comment", b"made by a scanner")
    image.header.extensions.append(extension)
    return image.to_bytes(), array


FILES = [
    make_file(image_class, dtype)
    for image_class in (nib.Nifti1Image, nib.Nifti2Image)
    for dtype in (np.int16, np.float32)
]
HEADER_FIELDS = [
    (image_class.header_class, name)
    for image_class in (nib.Nifti1Image, nib.Nifti2Image)
    for name in image_class.header_class()
]
# Numbers that may break arithmetic, clipped to the range of a field.
ODD_NUMBERS = (0, -1, 1, 2, 7, 255, 2**15 - 1, 2**31 - 1, -(2**31), 2**62, 1e-45, -0.5)
ODD_NUMBERS += (1e6, 1e30, 3e38, np.inf, -np.inf, np.nan)


def check(path: pathlib.Path):
    """Reads a file as an image and as labels; returns the volume, if it is valid."""
    image = None
    for read in (lambda: nifti.load_image(path, **LIMIT), load_labels(path)):
        message, volume = None, None
        try:
            volume = read()
        except InputError as error:
            message = str(error)
        if volume is None:
            assert str(path) in message
            assert len(message) < 1000
            continue
        image = image or volume
        assert min(volume.data.shape) > 0
        assert min(volume.spacing_mm) > 0
        assert np.isfinite(volume.spacing_mm).all()
        shape = volume.data.shape[-3:]
        output = path.with_name("out.nii")
        nifti.save_labels(output, np.zeros(shape, np.uint8), volume.grid)
        assert nifti.load_labels(output).data.shape == shape
    return image


LIMIT = {"max_memory_gb": MAX_MEMORY_GB}


def load_labels(path):
    return lambda: nifti.load_labels(path, **LIMIT)


def flip_bits(data, rng):
    data = bytearray(data)
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(len(data))] ^= 1 << rng.integers(8)
    return data


def overwrite(data, rng):
    data = bytearray(data)
    start = rng.integers(len(data))
    length = rng.integers(1, 40)
    data[start : start + length] = rng.bytes(length)
    return data


def cut(data, rng):
    return data[: rng.integers(len(data))]


def repeat(data, rng):
    start, stop = sorted(rng.integers(len(data), size=2))
    return data[:stop] + data[start:]


def damage_bytes(seed, tmp_path):
    rng = np.random.default_rng(seed)
    data, _ = FILES[rng.integers(len(FILES))]
    change = (flip_bits, overwrite, cut, repeat)[rng.integers(4)]
    # The header more often than the voxels.
    if rng.random() < 0.5:
        data = change(data[:400], rng) + data[400:]
    else:
        data = change(data, rng)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(data, 1) if rng.random() < 0.5 else data)
    check(path)


def damage_field(seed, tmp_path):
    rng = np.random.default_rng(seed)
    kind, name = HEADER_FIELDS[seed % len(HEADER_FIELDS)]
    data, _ = FILES[2 * (kind is nib.Nifti2Header) + rng.integers(2)]
    header = kind(data[: kind.sizeof_hdr], check=False)
    for field in (name, HEADER_FIELDS[rng.integers(len(HEADER_FIELDS))][1]):
        if field not in header or rng.random() < 0.2:
            continue
        values = header[field]
        value = ODD_NUMBERS[rng.integers(len(ODD_NUMBERS))]
        if values.dtype.kind == "f":
            with np.errstate(over="ignore"):
                value = np.float64(value).astype(values.dtype)
        elif values.dtype.kind in "iu":
            limits = np.iinfo(values.dtype)
            value = int(min(max(np.nan_to_num(value), limits.min), limits.max))
        else:
            continue
        if values.ndim:
            values[rng.integers(values.size)] = value
        else:
            header[field] = value
    path = tmp_path / "a.nii"
    path.write_bytes(header.binaryblock + data[kind.sizeof_hdr :])
    check(path)


def damage_gzip(seed, tmp_path):
    """A damaged stream is never decoded to different voxels."""
    rng = np.random.default_rng(seed)
    data, array = FILES[seed % len(FILES)]
    packed = bytearray(gzip.compress(data, int(rng.integers(0, 10)), mtime=0))
    if rng.random() < 0.2:
        packed = packed[: rng.integers(1, len(packed))]
    for _ in range(rng.integers(1, 3)):
        packed[rng.integers(len(packed))] ^= 1 << rng.integers(8)
    path = tmp_path / "a.nii.gz"
    path.write_bytes(packed)
    image = check(path)
    if image is not None:
        np.testing.assert_array_equal(image.data[0], array.T)


DAMAGES = (damage_bytes, damage_field, damage_gzip)


@pytest.fixture(autouse=True)
def quiet():
    from absl import logging

    before = logging.get_verbosity()
    logging.set_verbosity(logging.ERROR)
    yield
    logging.set_verbosity(before)


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
def test_damaged_files_are_reported(damage, tmp_path):
    for seed in range(100):
        damage(seed, tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("damage", DAMAGES, ids=lambda damage: damage.__name__)
@pytest.mark.parametrize("start", range(1000, 7000, 1000))
def test_many_damaged_files_are_reported(damage, start, tmp_path):
    for seed in range(start, start + 1000):
        damage(seed, tmp_path)
