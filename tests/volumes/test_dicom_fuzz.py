"""Damaged DICOM files are read correctly or reported, with little memory."""

import resource

import numpy as np
import pytest

from tests.volumes import dicom_files
from u2net_tf.errors import InputError
from u2net_tf.volumes import dicom

# The tag that ends the header.
PIXELS = b"\xe0\x7f\x10\x00"
INSERTED = (b"\0", b"\xff", b"0", b"9", b"-", b".", b"e", b"\\", b"x", b"\xff" * 4)


def damage(content, rng):
    """Returns a copy with a flipped bit, other bytes or a missing end."""
    content = bytearray(content)
    header_size = content.index(PIXELS) + 12
    place = int(rng.integers(128, header_size))
    piece = INSERTED[rng.integers(len(INSERTED))]
    match rng.integers(4):
        case 0:
            content[place] ^= 1 << int(rng.integers(8))
        case 1:
            content[place : place + len(piece)] = piece
        case 2:
            content[place:place] = piece
        case 3:
            del content[int(rng.integers(len(content))) :]
    return bytes(content)


def read(folder):
    """Returns the volume and "", or None and the message of the error."""
    try:
        return dicom.load_dicom([folder]), ""
    except InputError as error:
        return None, str(error)


@pytest.fixture(autouse=True)
def little_memory():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    # In KB.
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 1e6


@pytest.mark.parametrize(
    "num_inputs", [100, pytest.param(4000, marks=pytest.mark.slow)]
)
def test_damaged_slice(tmp_path, num_inputs, caplog):
    folder = dicom_files.save(tmp_path, dicom_files.make_series(3))
    expected = dicom.load_dicom([folder])
    for index in range(num_inputs):
        path = folder / f"{index % 3}.dcm"
        content = path.read_bytes()
        path.write_bytes(damage(content, np.random.default_rng([0, index])))
        caplog.clear()
        volume, message = read(folder)
        path.write_bytes(content)
        if volume is None:
            # A slice with a wrong position is reported by its neighbours.
            assert path.name in message or "evenly spaced slices" in message, index
            assert len(message) < 800
        elif path.name not in caplog.text:
            np.testing.assert_array_equal(volume.data, expected.data)
            np.testing.assert_allclose(volume.grid.affine, expected.grid.affine)


@pytest.mark.parametrize("num_inputs", [40, pytest.param(2000, marks=pytest.mark.slow)])
def test_damaged_multi_frame_file(tmp_path, num_inputs):
    """Positions cannot be checked, because there are no other files."""
    enhanced = dicom_files.make_enhanced([0, 6, 3], [(1, 0), (0.5, 1), (2, 0)])
    folder = dicom_files.save(tmp_path, [enhanced])
    path = folder / "0.dcm"
    content = path.read_bytes()
    for index in range(num_inputs):
        path.write_bytes(damage(content, np.random.default_rng([1, index])))
        volume, message = read(folder)
        if volume is None:
            assert str(folder) in message
        else:
            assert volume.data.shape == (1, 3, 8, 8)
