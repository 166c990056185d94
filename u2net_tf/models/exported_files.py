"""Finds exported models on disk and reads their metadata.

No inference runtime is needed: the metadata are files in a SavedModel, fields of a
protocol buffer in an ONNX file, XML in an OpenVINO model and a member of the zip in a
model file.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
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
# Present in the folder of every SavedModel.
_SAVED_MODEL = "saved_model.pb"
_SUFFIXES: Mapping[str, Kind] = {".onnx": "onnx", ".xml": "openvino"}
# Suffixes of exported files.
SUFFIXES = (SUFFIX, *_SUFFIXES)
# Field numbers of the metadata in an ONNX file, and of an entry's key and value.
_METADATA, _KEY, _VALUE = 14, 1, 2


@dataclasses.dataclass(frozen=True)
class ExportedFile:
    """Location and metadata of an exported domain.

    Attributes:
      kind: the format.
      path: the folder of a SavedModel, or the file.
      domain: the metadata; its fingerprint is the hash of graph and weights.
      read_onnx: returns the ONNX model in a model file; None for other formats.
    """

    kind: Kind
    path: pathlib.Path
    domain: ExportedDomain
    read_onnx: Callable[[], bytes] | None = None

    def source(self) -> str | bytes:
        """Returns the path or the ONNX model to pass to OpenVINO or onnxruntime."""
        return str(self.path) if self.read_onnx is None else self.read_onnx()


def find_kind(path: str | os.PathLike) -> Kind | None:
    """Returns the format of an exported model; None if it is not recognized.

    Args:
      path: a file or folder.

    Raises:
      InputError: if a folder contains files of several formats.
    """
    place = pathlib.Path(path)
    if not place.is_dir():
        return "packed" if place.suffix == SUFFIX else _SUFFIXES.get(place.suffix)
    if (place / _SAVED_MODEL).is_file():
        return "saved_model"
    found = {_SUFFIXES[file.suffix] for file in _exported_files_in(place)}
    if len(found) > 1:
        raise InputError(
            path,
            expected="exported models of one format",
            received=first_few([file.name for file in _exported_files_in(place)]),
            hint="Give the path of one of these files",
        )
    return next(iter(found), None)


def read_exported(path: str | os.PathLike, kind: Kind) -> dict[str, ExportedFile]:
    """Reads the metadata of exported models.

    Args:
      path: the folder of a SavedModel; a file of a different format, or a folder of
        ONNX or OpenVINO files.
      kind: the format that `find_kind` returned.

    Returns:
      Name of a domain -> its exported file, sorted by file name.

    Raises:
      InputError: if a file is missing, damaged, of a newer format or not written by
        this package, or two files have the same domain.
    """
    place = pathlib.Path(path)
    if kind == "packed":
        return _read_packed(place)
    is_folder_of_files = place.is_dir() and kind != "saved_model"
    found: dict[str, ExportedFile] = {}
    for file in _exported_files_in(place) if is_folder_of_files else [place]:
        domains = exported.from_texts(_READERS[kind](file), file)
        content = _content_hash(kind, file)
        for domain in domains:
            if domain.name in found:
                raise InputError(
                    path,
                    expected=f"one file for {domain.name}",
                    received=f"{found[domain.name].path.name} and {file.name}",
                    hint="Give the path of one of these files",
                )
            # Programs that change weights, by quantization for example, copy metadata.
            domain = dataclasses.replace(domain, fingerprint=content)
            found[domain.name] = ExportedFile(kind, file, domain)
    return found


def _content_hash(kind: Kind, path: pathlib.Path) -> str:
    """Returns the SHA-256 of graph and weights."""
    paths = [path]
    if kind == "openvino":
        paths.append(path.with_suffix(".bin"))
    elif kind == "saved_model":
        paths = sorted(each for each in path.rglob("*") if each.is_file())
    content = hashlib.sha256()
    for each in paths:
        content.update(each.read_bytes())
    return content.hexdigest()


def _exported_files_in(folder: pathlib.Path) -> list[pathlib.Path]:
    return sorted(
        path
        for path in folder.iterdir()
        if path.suffix in _SUFFIXES and path.name[0] != "."
    )


def _saved_model_texts(folder: pathlib.Path) -> dict[str, str]:
    path = folder / "assets" / f"{exported.EXPORT}.json"
    if not path.is_file():
        return {}
    return {exported.EXPORT: files.require_text(path, "JSON")}


def _onnx_texts(path: pathlib.Path) -> dict[str, str]:
    expected = f"an ONNX file written by `{exported.EXPORT_FORMAT.made_by}`"
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


def _openvino_texts(path: pathlib.Path) -> dict[str, str]:
    expected = f"an OpenVINO model written by `{exported.EXPORT_FORMAT.made_by}`"
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
            # Several files may contain the same weights, rounded in some of them.
            dataclasses.replace(domain, fingerprint=model.sha256),
            functools.partial(model.onnx_model, index),
        )
        for index, domain in enumerate(model.domains)
    }


_READERS: Mapping[Kind, Callable[[pathlib.Path], dict[str, str]]] = {
    "saved_model": _saved_model_texts,
    "onnx": _onnx_texts,
    "openvino": _openvino_texts,
}
