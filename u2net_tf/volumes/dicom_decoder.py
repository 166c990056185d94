"""Decoding of compressed DICOM pixels in a separate process.

On damaged files, ITK's decoders may crash, hang or exhaust the memory, and they print
what they repair. Here each of these becomes an error that names the file.

The process imports this file, which therefore imports little.
"""

from __future__ import annotations

import contextlib
import io
import json
import math
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from typing import IO, Any, cast

import numpy as np
import SimpleITK as sitk

from u2net_tf.errors import InputError
from u2net_tf.volumes.itk_errors import last_line

# Signal for exceeded CPU time; 24 on Linux and macOS, missing on Windows.
_SIGXCPU = int(getattr(signal, "SIGXCPU", 0))
_START = "from u2net_tf.volumes import dicom_decoder; dicom_decoder.main()"
# Grouping saves time: ITK reads the header separately only of the first file.
_FILES_AT_ONCE = 16
# CPU time: far more than a frame takes, yet less than 20 s for a group, including the
# search for the file in it that hangs.
_SECONDS, _SECONDS_PER_FRAME = 4, 0.5
# Memory limit of the process: a base, and copies of a group's pixels.
_BASE_BYTES, _NUM_COPIES = 2 * 10**9, 4


def decode(
    paths: Sequence[pathlib.Path], shape: tuple[int, ...], dtype: type[np.floating]
) -> tuple[np.ndarray, np.ndarray]:
    """Decodes single-frame files, or one multi-frame file.

    Args:
      paths: the files.
      shape: (frames, rows, columns) of all files together.
      dtype: type of the rescaled pixels.

    Returns:
      The pixels, in the order of the files, and ITK's (3, 3) direction of the first.

    Raises:
      InputError: names the file that cannot be decoded without errors or warnings.
    """
    try:
        return _decode(paths, shape, dtype, files_at_once=_FILES_AT_ONCE)
    except InputError:
        if len(paths) == 1:
            raise
    # Each file by itself, to find out which one it is.
    return _decode(paths, shape, dtype, files_at_once=1)


def _decode(
    paths: Sequence[pathlib.Path],
    shape: tuple[int, ...],
    dtype: type[np.floating],
    *,
    files_at_once: int,
) -> tuple[np.ndarray, np.ndarray]:
    pixels = np.empty(shape, dtype)
    frames_per_file = len(pixels) // len(paths)
    starts = range(0, len(paths), files_at_once)
    request = {
        "groups": [list(map(str, paths[i : i + files_at_once])) for i in starts],
        "frames_per_file": frames_per_file,
        "shape": shape[1:],
        "dtype": pixels.dtype.name,
        "seconds": [_SECONDS, _SECONDS_PER_FRAME],
    }
    with (
        tempfile.TemporaryFile() as decoder_log,
        _decoder_process(request, decoder_log) as process,
    ):
        directions = [
            _receive(
                process,
                paths[i],
                pixels[i * frames_per_file : (i + files_at_once) * frames_per_file],
                decoder_log,
            )
            for i in starts
        ]
    return pixels, np.array(directions[0]).reshape(3, 3)


@contextlib.contextmanager
def _decoder_process(
    request: dict[str, Any], decoder_log: IO[bytes]
) -> Iterator[subprocess.Popen]:
    process = subprocess.Popen(
        [sys.executable, "-c", _START],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=decoder_log,
        # The package may be importable only from the path of this process.
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    with process:
        try:
            # If the process has already ended, this is noticed when reading from it.
            with contextlib.suppress(OSError):
                assert process.stdin is not None
                process.stdin.write(json.dumps(request).encode())
                process.stdin.close()
            yield process
        finally:
            process.kill()


def _receive(
    process: subprocess.Popen,
    path: pathlib.Path,
    frames: np.ndarray,
    decoder_log: IO[bytes],
) -> list[float]:
    """Receives the frames of the next files; returns the direction of the first."""
    results = cast(io.BufferedReader, process.stdout)
    line = results.readline()
    response: dict[str, Any] = json.loads(line) if line.endswith(b"\n") else {}
    is_complete = "direction" in response and (
        results.readinto(frames.data.cast("B")) == frames.nbytes
    )
    if is_complete:
        return response["direction"]
    problem = response.get("error")
    if not problem:
        status = process.wait()
        problem = _first_line(decoder_log.fileno())
        if status == -_SIGXCPU:
            problem = "pixels that take too long to decode"
    problem = problem or f"a decoder that ended with status {process.returncode}"
    raise InputError(path, expected="pixels that can be decoded", received=problem)


def main() -> None:
    """Decodes the files requested on standard input; writes to standard output."""
    request = json.load(sys.stdin)
    results = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    # Messages so far are not about pixels.
    os.lseek(2, 0, os.SEEK_SET)
    os.ftruncate(2, 0)
    dtype = np.dtype(request["dtype"])
    sitk.ProcessObject.SetGlobalDefaultNumberOfThreads(1)
    for group in request["groups"]:
        shape = [len(group) * request["frames_per_file"], *request["shape"]]
        start, per_frame = request["seconds"]
        seconds = math.ceil(time.process_time() + start + per_frame * shape[0])
        _limit("RLIMIT_CPU", seconds)
        num_bytes = math.prod(shape) * dtype.itemsize
        _limit("RLIMIT_DATA", _BASE_BYTES + _NUM_COPIES * num_bytes)
        reader = _reader(group)
        reader.SetImageIO("GDCMImageIO")
        is_double = dtype == np.float64
        reader.SetOutputPixelType(sitk.sitkFloat64 if is_double else sitk.sitkFloat32)
        try:
            image = reader.Execute()
            response = {"direction": image.GetDirection()}
            if list(image.GetSize()[::-1]) != shape:
                response = {"error": f"pixels of shape {image.GetSize()[::-1]}"}
        except (RuntimeError, MemoryError) as error:
            response = {"error": last_line(error)}
        # Repaired pixels are not those of the patient.
        if message := _first_line(2):
            response = {"error": message}
        results.write(json.dumps(response).encode() + b"\n")
        if "direction" in response:
            results.write(sitk.GetArrayViewFromImage(image).data.cast("B"))
        results.flush()


def _reader(paths: list[str]) -> sitk.ImageFileReader | sitk.ImageSeriesReader:
    if len(paths) == 1:
        reader = sitk.ImageFileReader()
        reader.SetFileName(paths[0])
        return reader
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(paths)
    # Distances are checked elsewhere; a warning about them is not about pixels.
    reader.SetSpacingWarningRelThreshold(1)
    return reader


def _first_line(file: int) -> str:
    """Returns the first line that the decoders have printed; "" if there is none."""
    os.lseek(file, 0, os.SEEK_SET)
    return os.read(file, 200).decode("utf-8", "replace").partition("\n")[0]


def _limit(name: str, value: int) -> None:
    """Limits a resource of this process, where the system supports it."""
    with contextlib.suppress(ImportError, OSError, ValueError):
        import resource

        resource.setrlimit(getattr(resource, name), (value, resource.RLIM_INFINITY))
