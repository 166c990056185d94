"""Finds exported models on disk and reads what they say of themselves.

No runtime is needed: SavedModels have the texts as files, ONNX files are protocol
buffers, OpenVINO models XML, and model files a zip.
"""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
import xml.etree.ElementTree
from collections.abc import Callable, Mapping
from typing import Literal

from u2net_tf import files, protocol_buffers
from u2net_tf.errors import InputError
from u2net_tf.models import exported
from u2net_tf.models.exported import ExportedDomain
from u2net_tf.models.model_file import read_model_file
from u2net_tf.models.model_file_format import SUFFIX
from u2net_tf.wording import first_few

Kind = Literal["saved_model", "onnx", "openvino", "packed"]
# What a SavedModel's folder holds.
_SAVED_MODEL = "saved_model.pb"
_SUFFIXES: Mapping[str, Kind] = {".onnx": "onnx", ".xml": "openvino"}
# What a name may end with.
SUFFIXES = (SUFFIX, *_SUFFIXES)
# Number of the field in an ONNX file, and of the fields of each of its entries.
_METADATA, _KEY, _VALUE = 14, 1, 2


@dataclasses.dataclass(frozen=True)
class ExportedFile:
    """Where an exported domain is.

    Attributes:
      kind: the format.
      path: the folder of a SavedModel, or the file.
      domain: what it says of itself.
      read_onnx: returns the ONNX model within the file; None if it is the file.
    """

    kind: Kind
    path: pathlib.Path
    domain: ExportedDomain
    read_onnx: Callable[[], bytes] | None = None

    def source(self) -> str | bytes:
        """What OpenVINO and onnxruntime open: a path, or an ONNX model."""
        return str(self.path) if self.read_onnx is None else self.read_onnx()


def find_kind(path: str | os.PathLike) -> Kind | None:
    """Returns the format of an exported model; None if it looks like none.

    Args:
      path: a file, or a folder.

    Raises:
      InputError: if a folder holds files of several formats.
    """
    place = pathlib.Path(path)
    if not place.is_dir():
        return "packed" if place.suffix == SUFFIX else _SUFFIXES.get(place.suffix)
    if (place / _SAVED_MODEL).is_file():
        return "saved_model"
    found = {_SUFFIXES[file.suffix] for file in _files_in(place)}
    if len(found) > 1:
        raise InputError(
            path,
            expected="exported models of one format",
            received=first_few([file.name for file in _files_in(place)]),
            hint="Name one of these files",
        )
    return next(iter(found), None)


def read_exported(path: str | os.PathLike, kind: Kind) -> dict[str, ExportedFile]:
    """Reads what exported models say of themselves.

    Args:
      path: the folder of a SavedModel; a file of another format, or a folder of ONNX
        or OpenVINO files.
      kind: the format, as `find_kind` returns it.

    Returns:
      Name of a domain -> where it is, sorted by file.

    Raises:
      InputError: if a file is missing, damaged, of a newer format or not of this
        package, or two have the same domain.
    """
    place = pathlib.Path(path)
    if kind == "packed":
        return _read_packed(place)
    several = place.is_dir() and kind != "saved_model"
    found: dict[str, ExportedFile] = {}
    for file in _files_in(place) if several else [place]:
        for domain in exported.from_texts(_READERS[kind](file), file):
            if domain.name in found:
                raise InputError(
                    path,
                    expected=f"one file for {domain.name}",
                    received=f"{found[domain.name].path.name} and {file.name}",
                    hint="Name one of these files",
                )
            found[domain.name] = ExportedFile(kind, file, domain)
    return found


def _files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in _SUFFIXES and path.name[0] != "."
    )


def _texts_of_saved_model(folder: pathlib.Path) -> dict[str, str]:
    path = folder / "assets" / f"{exported.EXPORT}.json"
    if not path.is_file():
        return {}
    return {exported.EXPORT: files.require_text(path, "JSON")}


def _texts_of_onnx(path: pathlib.Path) -> dict[str, str]:
    expected = f"an ONNX file as `{exported.EXPORT_FORMAT.made_by}` writes it"
    content = _read(path, expected)
    try:
        entries = protocol_buffers.read(content).messages(_METADATA)
        texts = {entry.text(_KEY): entry.text(_VALUE) for entry in entries}
    except ValueError as error:
        raise InputError(path, expected=expected, received=error) from None
    return {
        name.removeprefix(exported.METADATA_PREFIX): text
        for name, text in texts.items()
        if name.startswith(exported.METADATA_PREFIX)
    }


def _texts_of_openvino(path: pathlib.Path) -> dict[str, str]:
    expected = f"an OpenVINO model as `{exported.EXPORT_FORMAT.made_by}` writes it"
    content = _read(path, expected)
    try:
        root = xml.etree.ElementTree.fromstring(content)
    except xml.etree.ElementTree.ParseError as error:
        raise InputError(path, expected=expected, received=error) from None
    weights = path.with_suffix(".bin")
    if not weights.is_file():
        raise InputError(
            weights,
            expected=f"the weights of {path.name}",
            received=files.what_is_at(weights),
        )
    places = root.iterfind(f"rt_info/{exported.OPENVINO_ROOT}/*")
    return {place.tag: place.get("value", "") for place in places}


def _read(path: pathlib.Path, expected: str) -> bytes:
    if not path.is_file():
        raise InputError(path, expected=expected, received=files.what_is_at(path))
    return path.read_bytes()


def _read_packed(path: pathlib.Path) -> dict[str, ExportedFile]:
    if not path.is_file():
        raise InputError(path, expected="a model file", received=files.what_is_at(path))
    model = read_model_file(path)
    return {
        domain.name: ExportedFile(
            "packed",
            path,
            # The weights of a domain may lie in several files, rounded in some.
            dataclasses.replace(domain, fingerprint=model.sha256),
            functools.partial(model.onnx_model, index),
        )
        for index, domain in enumerate(model.domains)
    }


_READERS: Mapping[Kind, Callable[[pathlib.Path], dict[str, str]]] = {
    "saved_model": _texts_of_saved_model,
    "onnx": _texts_of_onnx,
    "openvino": _texts_of_openvino,
}
