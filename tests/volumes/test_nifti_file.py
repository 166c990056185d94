"""Files are read to their last byte, without allocating more than they contain."""

import gzip
import math
import tracemalloc
import zlib

import nibabel as nib
import numpy as np
import pytest

from u2net_tf import machine
from u2net_tf.errors import InputError
from u2net_tf.volumes import gzip_stream, nifti, nifti_file
from u2net_tf.volumes.gzip_stream import GzipStream

SHAPE = (9, 8, 7)
ARRAY = np.random.default_rng(0).normal(0, 50, SHAPE).astype(np.int16)
# The array as a volume contains it.
CANONICAL = ARRAY.T.astype(np.float32)


def image_bytes(array=ARRAY):
    return nib.Nifti1Image(array, np.eye(4)).to_bytes()


def unnamed(path, notes):
    return tuple(note.removeprefix(f"{path}: ") for note in notes)


@pytest.fixture(params=["image", "labels"])
def read(request):
    """Reads a file as image or labels; returns its voxels and the notes on it."""

    def read(path, **options):
        if request.param == "labels":
            volume = nifti.load_labels(path, **options)
            return volume.data, unnamed(path, volume.notes)
        volume = nifti.load_image(path, **options)
        return volume.data[0], unnamed(path, volume.notes)

    return read


@pytest.fixture
def write(tmp_path):
    def write(data, name="a.nii.gz"):
        (tmp_path / name).write_bytes(data)
        return tmp_path / name

    return write


@pytest.mark.parametrize("seed", range(40))
def test_flipped_bit_is_detected(write, seed):
    """Any bit after the first ten bytes, which include time and system."""
    data = bytearray(gzip.compress(image_bytes(), mtime=0))
    bit = int(np.random.default_rng(seed).integers(10 * 8, len(data) * 8))
    data[bit // 8] ^= 1 << bit % 8
    with pytest.raises(InputError, match=r"a\.nii\.gz: expected "):
        nifti.load_image(write(data))


def test_wrong_checksum_is_an_error(write, read):
    """Deflate does not detect it, because the data are stored uncompressed."""
    content = image_bytes()
    stored = zlib.compressobj(0, zlib.DEFLATED, 31)
    data = bytearray(stored.compress(content) + stored.flush())
    assert (read(write(data))[0] == CANONICAL).all()
    data[-100] ^= 1
    with pytest.raises(InputError, match=r"a\.nii\.gz: .*Received: damaged \(CRC\)"):
        read(write(data))
    data[-100] ^= 1
    # The length, at the end.
    data[-1] ^= 1
    with pytest.raises(InputError, match=r"Received: damaged \(CRC\)"):
        read(write(data))


@pytest.mark.parametrize("missing", [1, 4, 8, 9, 300])
def test_stream_without_its_end_is_an_error(write, read, missing):
    data = gzip.compress(image_bytes())
    with pytest.raises(InputError, match="truncated"):
        read(write(data[:-missing]))


@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_missing_voxels_are_counted(write, read, pack):
    with pytest.raises(InputError, match=r"expected as many voxels as .* missing"):
        read(write(pack(image_bytes()[:-2])))


def test_surplus_bytes_are_a_warning(write, read, caplog):
    content, extra = image_bytes(), b"x" * 1234
    packed = gzip.compress(content)
    for data, count in (
        (content + extra, 1234),
        (gzip.compress(content + extra), 1234),
        (packed + extra, 1234),
        (packed + b"\0" * 7, 7),
        (packed + gzip.compress(extra) + b"y", 1235),
        (packed + b"\x1f\0", 2),
    ):
        caplog.clear()
        with caplog.at_level("WARNING", logger="absl"):
            array, notes = read(write(data))
        np.testing.assert_array_equal(array, CANONICAL)
        assert notes == (f"{count:,} bytes after the last voxel, ignored",)
        assert f"a.nii.gz: {notes[0]}" in caplog.text


def test_members_of_a_stream_are_joined(write, read):
    content = image_bytes()
    parts = content[:100], content[100:700], content[700:]
    array, notes = read(write(b"".join(map(gzip.compress, parts))))
    np.testing.assert_array_equal(array, CANONICAL)
    assert notes == ()
    damaged = bytearray(b"".join(map(gzip.compress, parts)))
    damaged[len(gzip.compress(parts[0])) - 6] ^= 1
    with pytest.raises(InputError, match="damaged"):
        read(write(damaged))


def test_stream_does_not_depend_on_the_chunk_size(tmp_path, monkeypatch):
    content = np.random.default_rng(1).integers(0, 4, 5000).astype(np.uint8).tobytes()
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(content[:3000]) + gzip.compress(content[3000:]))
    for size in (1, 7, 1000, 10**6):
        monkeypatch.setattr(gzip_stream, "_READ_BYTES", size)
        monkeypatch.setattr(gzip_stream, "_CHUNK_BYTES", size + 1)
        buffer = bytearray(3500)
        with path.open("rb") as file:
            stream = GzipStream(file)
            assert stream.readinto(memoryview(buffer)) == 3500
            assert stream.drain(2000) == 1500
            assert stream.readinto(memoryview(buffer)) == 0
        assert bytes(buffer) == content[:3500]


@pytest.mark.parametrize("image_class", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("pack", [gzip.compress, bytes])
def test_more_voxels_than_the_file_can_contain(write, read, image_class, pack):
    header = image_class(np.zeros((1, 1, 1), np.int16), np.eye(4)).header
    header["dim"][:4] = 3, 2000, 2000, 1000
    path = write(pack(header.binaryblock + b"\0" * 8))
    assert path.stat().st_size < 600
    with pytest.raises(InputError, match=r"a\.nii\.gz: .*shape \(2000, 2000, 1000\)"):
        read(path)


def test_voxels_that_do_not_fit_are_refused(write, read, monkeypatch):
    content = image_bytes(np.zeros((100, 100, 100), np.int16))
    path = write(gzip.compress(content))
    read(path, max_memory_gb=0.0081)
    words = (
        r"a\.nii\.gz: expected at most 0\.005 GB of memory \(`max_memory_gb`\)\. "
        r"Received: 0\.008 GB for shape \(100, 100, 100\) of int16"
    )
    with pytest.raises(InputError, match=words):
        read(path, max_memory_gb=0.005)
    # Half of the machine's memory.
    monkeypatch.setattr(machine, "memory_bytes", lambda: 10**7)
    with pytest.raises(InputError, match=r"0\.005 GB of memory"):
        read(path)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 17 * 10**6)
    read(path)


@pytest.mark.parametrize(
    ("dtype", "slope", "intercept", "load", "bytes_per_voxel"),
    [
        (np.int16, 1, 0, nifti.load_image, 8),
        (np.int16, 1, -1024, nifti.load_image, 8),
        (np.int16, 2.5, -1024, nifti.load_image, 8),
        (np.float64, 2.5, -1024, nifti.load_image, 12),
        (np.float32, 1, 0, nifti.load_labels, 8),
        (np.int16, 2, 0, nifti.load_labels, 8),
    ],
)
def test_the_estimate_covers_the_memory_of_reading(
    write, monkeypatch, dtype, slope, intercept, load, bytes_per_voxel
):
    """NumPy reports every array to `tracemalloc`."""
    shape = (64, 64, 96, 2) if load is nifti.load_image else (64, 64, 128)
    voxels = math.prod(shape)
    values = np.random.default_rng(0).integers(0, 9, shape).astype(dtype)
    header = nib.Nifti1Header()
    header.set_data_dtype(dtype)
    header.set_data_shape(shape)
    header.set_slope_inter(slope, intercept)
    header.set_sform(np.eye(4), 1)
    header["magic"], header["vox_offset"], header["pixdim"] = b"n+1", 352, 1
    content = header.binaryblock + bytes(4) + values.tobytes(order="F")
    path = write(gzip.compress(content, 1))
    estimates = []
    monkeypatch.setattr(
        nifti_file, "require_memory", lambda _, size, **__: estimates.append(size)
    )
    tracemalloc.start()
    found = load(path)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    expected = values.astype(np.float64) * slope + intercept
    np.testing.assert_array_equal(found.data.T, expected)
    assert estimates == [pytest.approx(bytes_per_voxel * voxels, rel=1e-3)]
    # Buffers of about a megabyte in addition.
    assert peak < estimates[0] + 2 * 2**20


def test_header_alone(write):
    path = write(gzip.compress(image_bytes())[:-9])
    header = nifti.load_header(path)
    assert header.shape == SHAPE
    assert header.grid.axis_codes == "RAS"
    with pytest.raises(InputError, match="max_memory_gb"):
        nifti.load_header(path, max_memory_gb=1e-6)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((-4, 5, 6), r"shape \(-4, 5, 6\)"),
        ((4, 5, 6, 0), r"shape \(4, 5, 6, 0\)"),
        ((4, 5), r"shape \(4, 5\)"),
        ((4, 5, 6, 1, 2), r"shape \(4, 5, 6, 1, 2\)"),
        ((), "shape"),
    ],
)
def test_invalid_shape(write, read, shape, message):
    data = bytearray(image_bytes())
    dims = np.array([len(shape), *shape] + [1] * (7 - len(shape)), "<i2")
    data[40:56] = dims.tobytes()
    with pytest.raises(InputError, match=f"a 3-D volume, or .*{message}"):
        read(write(data))


@pytest.mark.parametrize(
    ("offset", "value", "message"),
    [
        (70, b"\x39\x30", "data type 12345, which is unknown"),
        (344, b"ni1\0", "the header of a pair of files"),
        (344, b"n+9\0", "magic"),
        (0, b"\x00\x00\x00\x01", "begins with"),
    ],
)
def test_header_of_another_file(write, read, offset, value, message):
    data = bytearray(image_bytes())
    data[offset : offset + len(value)] = value
    with pytest.raises(InputError, match=rf"a\.nii\.gz: .*{message}"):
        read(write(data))


def test_readable_extensions_are_kept(write, read, tmp_path):
    image = nib.Nifti1Image(ARRAY, np.eye(4), nib.Nifti1Header(endianness=">"))
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"scanner 7"))
    data = bytearray(image.to_bytes())
    volume = nifti.load_image(write(data))
    nifti.save_labels(tmp_path / "o.nii", np.ones(SHAPE[::-1], int), volume.grid)
    (extension,) = nib.load(tmp_path / "o.nii").header.extensions
    assert extension.get_content() == b"scanner 7"
    data[352:356] = b"\0\0\0\x11"
    array, notes = read(write(data))
    np.testing.assert_array_equal(array, CANONICAL)
    assert notes == ("header extensions that cannot be read, ignored",)


@pytest.mark.parametrize(
    ("name", "compress"), [("a.nii", bytes), ("a.gz", gzip.compress)]
)
def test_too_many_surplus_bytes_are_an_error(write, read, caplog, name, compress):
    data = image_bytes()
    least = 2**20 + ARRAY.nbytes
    read(write(compress(data + bytes(least)), name))
    assert f"{least:,} bytes after the last voxel, ignored" in caplog.text
    words = f"voxels of 1,008 bytes .* at least {least + 1:,} more bytes"
    with pytest.raises(InputError, match=words):
        read(write(compress(data + bytes(least + 1)), name))


def test_a_stream_with_many_surplus_bytes_is_not_read_to_its_end(write):
    """The last byte is damaged, but never reached."""
    data = bytearray(gzip.compress(image_bytes()) + gzip.compress(bytes(2**25)))
    data[-1] ^= 1
    with pytest.raises(
        InputError, match=r"the end of the file after voxels of 1,008 b"
    ):
        nifti.load_image(write(data))


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "Received: an empty file"),
        pytest.param(gzip.compress(b""), "Received: an empty file", id="gzip"),
        (b"\1", r"a file that begins with b'\\x01'"),
    ],
)
def test_errors_of_very_short_files(write, data, words):
    with pytest.raises(InputError, match=words):
        nifti.load_image(write(data))


def test_one_byte_is_no_plural(write, caplog):
    for data in (image_bytes() + b"x", gzip.compress(image_bytes()) + b"\x1f"):
        nifti.load_image(write(data))
    assert caplog.text.count("1 byte after the last voxel") == 2
