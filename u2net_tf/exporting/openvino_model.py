"""Converts an ONNX graph to an OpenVINO model."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from u2net_tf import system_errors
from u2net_tf.export_packages import import_package, openvino_core
from u2net_tf.models.exported import METADATA_PREFIX, OPENVINO_ROOT

if TYPE_CHECKING:
    import onnx


def save_openvino(model: onnx.ModelProto, path: str | os.PathLike) -> None:
    """Writes the file PATH, which ends with ".xml", and a ".bin" file next to it.

    The weights stay float32. `Core.compile_model` computes in bfloat16 on processors
    that support it, unless `INFERENCE_PRECISION_HINT` is "f32".

    Args:
      model: as returned by `to_onnx`.
      path: path of the first file.

    Raises:
      StoppedError: if OpenVINO is not installed.
      OSError: if the files cannot be written.
    """
    openvino = import_package("openvino")
    converted = openvino_core().read_model(model.SerializeToString())
    for entry in model.metadata_props:
        # The name is given as a path, since OpenVINO splits strings at dots.
        name = entry.key.removeprefix(METADATA_PREFIX)
        converted.set_rt_info(entry.value, [OPENVINO_ROOT, name])
    try:
        openvino.save_model(converted, os.fspath(path), compress_to_fp16=False)
    except RuntimeError as error:
        # Such as a full disk, without saying so.
        raise system_errors.of_library("OpenVINO", str(error)) from error
