"""Imports the packages of the extra `export`, and lets none of them send anything."""

from __future__ import annotations

import functools
import importlib
import logging
import os
import sys
from types import ModuleType
from typing import Any, cast

from u2net_tf.errors import StoppedError


def import_package(name: str) -> ModuleType:
    """Imports one of the packages of the extra `export`.

    OpenVINO sends usage data to its makers when it is imported, if it finds the package
    `openvino_telemetry`, which is installed with it. Here it does not find it. And
    onnxruntime, since 1.29 on Linux as well, sends such data, the names of models
    included, unless `ORT_DISABLE_TELEMETRY` is set before it is loaded, as it is here.

    Args:
      name: "onnx", "onnxruntime", "openvino" or "tf2onnx".

    Raises:
      StoppedError: if it is not installed.
    """
    if name == "openvino":
        # Of a module that is None, Python says that there is none.
        cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)
    if name == "onnxruntime":
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise StoppedError(
            f"{name} is needed and not installed: pip install 'u2net-tf[export]'"
        ) from None
    if name == "tf2onnx":
        # It logs each of its steps, through the logger of its package.
        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    return module


@functools.cache
def openvino_core() -> Any:
    """The `openvino.Core` of this process.

    There is one, which lives as long as the process. Each installs an alternate stack
    for signal handlers when it compiles a model, and restores the one before when it is
    freed; of two, that may be freed memory, and the next signal ends the process.

    Raises:
      StoppedError: if OpenVINO is not installed.
    """
    return import_package("openvino").Core()
