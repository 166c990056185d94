"""Moves the weights of ONNX graphs to shared external data."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.export_packages import import_package
from u2net_tf.models.model_file_format import WeightsPrecision

if TYPE_CHECKING:
    import onnx

# Below this size, a tensor takes about as many bytes as a reference to external data.
MIN_BYTES = 256
# Offsets are multiples of a cache line.
_ALIGNMENT = 64


class SharedWeights:
    """Bytes to which the weights of graphs are moved; equal tensors are stored once.

    Args:
      location: name of the file of these bytes, to which graphs refer.
      precision: float16 halves the size; graphs cast the weights to float32 and compute
        in float32. Tensors of less than `MIN_BYTES` stay in the graph, in float32.
    """

    def __init__(self, location: str, precision: WeightsPrecision = "float32"):
        self.content = bytearray()
        self._location = location
        self._precision = precision
        # Hash of the bytes -> offset.
        self._offsets: dict[bytes, int] = {}

    def move(self, model: onnx.ModelProto) -> None:
        """Moves the weights of a graph to the shared bytes.

        Args:
          model: the graph; modified in place.

        Raises:
          InputError: if a weight is out of range for float16.
        """
        onnx = import_package("onnx")
        casts = []
        for tensor in model.graph.initializer:
            array = onnx.numpy_helper.to_array(tensor)
            if array.dtype != np.float32 or array.nbytes < MIN_BYTES:
                continue
            if self._precision == "float16":
                array = _to_float16(array, tensor.name)
                name = f"{tensor.name}__float16"
                casts.append(
                    onnx.helper.make_node(
                        "Cast", [name], [tensor.name], name, to=onnx.TensorProto.FLOAT
                    )
                )
                tensor.name = name
                tensor.data_type = onnx.TensorProto.FLOAT16
            self._refer(tensor, np.ascontiguousarray(array).tobytes())
        nodes = [*casts, *model.graph.node]
        del model.graph.node[:]
        model.graph.node.extend(nodes)

    def _refer(self, tensor: onnx.TensorProto, content: bytes) -> None:
        onnx = import_package("onnx")
        key = hashlib.sha256(content).digest()
        if key not in self._offsets:
            self.content += bytes(-len(self.content) % _ALIGNMENT)
            self._offsets[key] = len(self.content)
            self.content += content
        for field in ("raw_data", "float_data"):
            tensor.ClearField(field)
        tensor.data_location = onnx.TensorProto.EXTERNAL
        for name, text in (
            ("location", self._location),
            ("offset", str(self._offsets[key])),
            ("length", str(len(content))),
        ):
            tensor.external_data.add(key=name, value=text)


def _to_float16(array: np.ndarray, name: str) -> np.ndarray:
    with np.errstate(over="ignore"):
        half = array.astype(np.float16)
    if not np.isfinite(half).all():
        raise InputError(
            "`precision`",
            expected=f"float32, as weights of {name} are out of range for float16",
            received="float16",
        )
    return half
