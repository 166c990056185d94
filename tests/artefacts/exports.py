"""Files of each release by which models and domains are exchanged, in `exports/`.

`make_artefacts.py` writes them with these commands, `test_exports.py` reads them.
SavedModels and OpenVINO models are left out: their graphs take half a megabyte, and
their descriptions are those of the ONNX file.
"""

from __future__ import annotations

import pathlib

FOLDER = "exports"
ADAPTER, HALF_ADAPTER = "adapter.safetensors", "adapter_float16.safetensors"
CERTIFICATE, MODEL_FILE = "certificate.json", "model.u2net"
# The models that they are made from.
SEPARABLE, ADAPTED = "models/separable", "models/adapted"


def onnx_file(domain: str) -> str:
    """Returns the path of a domain's ONNX file in `exports/`."""
    return f"onnx/{domain}.onnx"


def commands(packed: str, adapted: str) -> list[tuple[str, ...]]:
    """Returns the command lines: module, then arguments.

    Args:
      packed: a domain of the separable model.
      adapted: the domain that was added to it.
    """
    export = ("u2net_tf.adapter", "export", f"--model_dir={ADAPTED}")
    export += (f"--domain={adapted}", "--licence=CC-BY-4.0")
    return [
        (*export, f"--output={FOLDER}/{ADAPTER}"),
        (*export, f"--output={FOLDER}/{HALF_ADAPTER}", "--precision=float16"),
        (
            "u2net_tf.certify",
            f"--before={SEPARABLE}",
            f"--after={ADAPTED}",
            f"--output={FOLDER}/{CERTIFICATE}",
        ),
        (
            "u2net_tf.pack",
            f"--model_dir={SEPARABLE}",
            f"--domains={packed}",
            "--evaluation=evaluation",
            "--intended_use=Tests",
            f"--output={FOLDER}/{MODEL_FILE}",
        ),
        (
            "u2net_tf.export",
            f"--model_dir={ADAPTED}",
            f"--domains={adapted}",
            "--format=onnx",
            f"--output={FOLDER}/{pathlib.PurePosixPath(onnx_file(adapted)).parent}",
        ),
    ]
