"""Saves the images of a request as files in a temporary folder."""

from __future__ import annotations

import pathlib
from collections.abc import AsyncGenerator, Sequence

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData, UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from u2net_tf.errors import InputError
from u2net_tf.volumes.dicom_folder import is_dicom_file
from u2net_tf.volumes.scan_names import SCAN_SUFFIXES

FIELD = "image"
_MEDIA_TYPE = "multipart/form-data"
# The slices of a DICOM series are a file each.
_MAX_FILES = 20_000
_BLOCK_BYTES = 2**20


async def save_images(request: Request, folder: pathlib.Path) -> list[pathlib.Path]:
    """Saves the files of a request.

    Args:
      request: its form has one or more files under the name `FIELD`: one per modality,
        in their order, or the slices of one DICOM series.
      folder: an empty folder.

    Returns:
      The paths of the image: one per modality, or the folder of the DICOM series.
      Their names are numbers; those of the sender may name a patient.

    Raises:
      InputError: if the request is not a complete form, has other fields or no files,
        or a file is not an image.
    """
    media_type = request.headers.get("Content-Type", "").partition(";")[0].strip()
    if media_type.lower() != _MEDIA_TYPE:
        raise InputError(
            "`Content-Type`", expected=_MEDIA_TYPE, received=media_type or "none"
        )
    try:
        form = await _FormParser(request).parse()
    except MultiPartException as error:
        raise HTTPException(400, error.message) from None
    try:
        paths = await _save_files(form, folder)
    finally:
        await form.close()
    return await run_in_threadpool(_arrange, paths, folder)


class _FormParser(MultiPartParser):
    """Parser of complete forms.

    starlette ignores a last part without an end, such as a slice of a DICOM series.
    """

    def __init__(self, request: Request):
        super().__init__(
            request.headers, self._complete(request), max_files=_MAX_FILES, max_fields=1
        )
        self._has_ended = False

    def on_end(self) -> None:
        """Called at the boundary that ends the form."""
        self._has_ended = True

    async def _complete(self, request: Request) -> AsyncGenerator[bytes, None]:
        async for block in request.stream():
            yield block
        if not self._has_ended:
            raise InputError(
                "form", expected="a boundary at its end", received="a part of it"
            )


async def _save_files(form: FormData, folder: pathlib.Path) -> list[pathlib.Path]:
    uploads = [_check(name, value) for name, value in form.multi_items()]
    if not uploads:
        raise InputError(f"`{FIELD}`", expected="one file or several", received="none")
    paths = []
    for number, upload in enumerate(uploads):
        path = folder / f"{FIELD}_{number}{_suffix(upload.filename or '')}"
        await _copy(upload, path)
        paths.append(path)
    return paths


def _check(name: str, value: UploadFile | str) -> UploadFile:
    if name != FIELD:
        raise InputError("form", expected=f"files named {FIELD}", received=name)
    if isinstance(value, str):
        raise InputError(f"`{FIELD}`", expected="a file", received="text")
    return value


def _suffix(name: str) -> str:
    name = name.lower()
    return next((suffix for suffix in SCAN_SUFFIXES if name.endswith(suffix)), ".dcm")


async def _copy(upload: UploadFile, path: pathlib.Path) -> None:
    with path.open("wb") as file:
        while block := await upload.read(_BLOCK_BYTES):
            await run_in_threadpool(file.write, block)


def _arrange(paths: Sequence[pathlib.Path], folder: pathlib.Path) -> list[pathlib.Path]:
    """Moves the slices of a DICOM series into a separate folder."""
    others = [path for path in paths if path.suffix == ".dcm"]
    for path in others:
        if not is_dicom_file(path):
            raise InputError(
                path.name,
                expected=f"DICOM, or a file name with {', '.join(SCAN_SUFFIXES)}",
                received="a different kind of file",
            )
    if len(others) <= 1:
        return list(paths)
    if len(others) < len(paths):
        raise InputError(
            f"`{FIELD}`",
            expected="the slices of one DICOM series, or one file per modality",
            received="both",
        )
    series = folder / "series"
    series.mkdir()
    for path in others:
        path.rename(series / path.name)
    return [series]
