"""Which program runs a model: what its format allows, what is installed and wanted."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping

from absl import logging

from u2net_tf import machine
from u2net_tf.config.inference import Runtime
from u2net_tf.errors import InputError, StoppedError

AUTO = "auto"
TENSORFLOW, OPENVINO, ONNXRUNTIME = "tensorflow", "openvino", "onnxruntime"
# Format of a model -> what runs it, the fastest first.
BY_FORMAT: Mapping[str, tuple[str, ...]] = {
    "checkpoint": (TENSORFLOW,),
    "saved_model": (TENSORFLOW,),
    "openvino": (OPENVINO,),
    "onnx": (OPENVINO, ONNXRUNTIME),
    "packed": (OPENVINO, ONNXRUNTIME),
}
_NAMES: Mapping[str, str] = {
    "checkpoint": "a folder that training wrote",
    "saved_model": "a SavedModel",
    "openvino": "an OpenVINO model",
    "onnx": "an ONNX model",
    "packed": "a model file",
}


def choose_runtime(path: str | os.PathLike, kind: str, wanted: Runtime = "auto") -> str:
    """Returns the runtime of a model, and logs it.

    Args:
      path: of the model, for messages.
      kind: its format, a key of `BY_FORMAT`.
      wanted: the runtime, or "auto" for the first that is installed.

    Raises:
      InputError: if the runtime does not read the format.
      StoppedError: if it, or with "auto" each that does, is not installed.
    """
    able = BY_FORMAT[kind]
    if wanted not in (AUTO, *able):
        raise InputError(
            "`runtime`",
            expected=f"{' or '.join(able)} for {path}, {_NAMES[kind]}",
            received=wanted,
            hint=_hint(wanted),
        )
    chosen = [wanted] if wanted != AUTO else [name for name in able if _is_there(name)]
    if not chosen or not _is_there(chosen[0]):
        raise StoppedError(_missing(path, kind, able if wanted == AUTO else (wanted,)))
    logging.info("%s: %s, run by %s", path, _NAMES[kind], chosen[0])
    return chosen[0]


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _hint(wanted: str) -> str:
    if wanted == TENSORFLOW:
        return "Name the folder that it was made of"
    return "Export it: `python -m u2net_tf.export`"


def _missing(path: str | os.PathLike, kind: str, names: tuple[str, ...]) -> str:
    if names == (TENSORFLOW,):
        return (
            f"{machine.NO_TENSORFLOW}; {path} is {_NAMES[kind]}, which nothing else "
            "runs. Where TensorFlow is, `python -m u2net_tf.pack` makes a file of it "
            "that needs none"
        )
    needed = f"{' or '.join(names)} is needed to run {path}, {_NAMES[kind]}, and"
    return f"{needed} not installed: pip install {names[0]}"
