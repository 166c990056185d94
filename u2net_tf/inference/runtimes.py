"""Chooses the runtime of a model by its format, the installed ones and the request."""

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
# Format of a model -> runtimes that support it, the fastest first.
BY_FORMAT: Mapping[str, tuple[str, ...]] = {
    "checkpoint": (TENSORFLOW,),
    "saved_model": (TENSORFLOW,),
    "openvino": (OPENVINO,),
    "onnx": (OPENVINO, ONNXRUNTIME),
    "packed": (OPENVINO, ONNXRUNTIME),
}
_NAMES: Mapping[str, str] = {
    "checkpoint": "a folder written by training",
    "saved_model": "a SavedModel",
    "openvino": "an OpenVINO model",
    "onnx": "an ONNX model",
    "packed": "a model file",
}


def choose_runtime(
    path: str | os.PathLike, kind: str, requested: Runtime = "auto"
) -> str:
    """Returns the runtime of a model, and logs it.

    Args:
      path: path of the model, for messages.
      kind: its format, a key of `BY_FORMAT`.
      requested: the runtime, or "auto" for the first that is installed.

    Raises:
      InputError: if the runtime does not support the format.
      StoppedError: if the requested runtime or, with "auto", no suitable one is
        installed.
    """
    suitable = BY_FORMAT[kind]
    if requested not in (AUTO, *suitable):
        raise InputError(
            "`runtime`",
            expected=f"{' or '.join(suitable)} for {path}, {_NAMES[kind]}",
            received=requested,
            hint=_hint(requested),
        )
    candidates = suitable if requested == AUTO else (requested,)
    installed = [name for name in candidates if _is_installed(name)]
    if not installed:
        raise StoppedError(_missing(path, kind, candidates))
    logging.info("%s: %s, run by %s", path, _NAMES[kind], installed[0])
    return installed[0]


def _is_installed(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def _hint(requested: str) -> str:
    if requested == TENSORFLOW:
        return "Use the folder from which it was exported"
    return "Export it: `python -m u2net_tf.export`"


def _missing(path: str | os.PathLike, kind: str, names: tuple[str, ...]) -> str:
    if names == (TENSORFLOW,):
        return (
            f"{machine.NO_TENSORFLOW}; {path} is {_NAMES[kind]}, which only TensorFlow "
            "can run. On a machine with TensorFlow, `python -m u2net_tf.pack` converts "
            "it to a file that does not need TensorFlow"
        )
    required = f"{' or '.join(names)} is required to run {path}, {_NAMES[kind]}, but"
    return f"{required} not installed: pip install {names[0]}"
