"""Imports the packages of the extra `export` with their telemetry disabled."""

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

    On import, OpenVINO sends usage data to its vendor if it can import the package
    `openvino_telemetry`, which is installed with it; that import is blocked here.
    onnxruntime (since 1.29 also on Linux) sends such data, including the names of
    models, unless `ORT_DISABLE_TELEMETRY` is set before it is loaded; it is set here.

    Args:
      name: "onnx", "onnxruntime", "openvino" or "tf2onnx".

    Raises:
      StoppedError: if it is not installed.
    """
    if name == "openvino":
        # An entry of None makes the import fail as if the module were missing.
        cast(dict[str, Any], sys.modules).setdefault("openvino_telemetry", None)
    if name == "onnxruntime":
        os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    handlers = list(logging.root.handlers)
    try:
        module = importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        raise StoppedError(
            f"{name} is required but not installed: pip install 'u2net-tf[export]'"
        ) from None
    # OpenVINO removes absl's, which writes time and place of a message.
    for handler in handlers:
        logging.root.addHandler(handler)
    if name == "tf2onnx":
        # It logs each of its steps through this logger.
        logging.getLogger("tf2onnx").setLevel(logging.ERROR)
    return module


@functools.cache
def openvino_core() -> Any:
    """Returns the only `openvino.Core` of this process, which is never freed.

    A core installs an alternate signal stack when it compiles a model and restores the
    previous one when it is freed. With two cores, the restored stack may be freed
    memory, and the next signal would crash the process.

    Raises:
      StoppedError: if OpenVINO is not installed.
    """
    return import_package("openvino").Core()
