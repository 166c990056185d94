"""Runs an exported domain, an OpenVINO or ONNX model, with OpenVINO."""

from __future__ import annotations

import numpy as np

from u2net_tf import machine
from u2net_tf.errors import InputError
from u2net_tf.export_packages import import_package, openvino_core
from u2net_tf.models.exported import INPUT, OUTPUT
from u2net_tf.models.exported_files import ExportedFile


class OpenVinoBackend:
    """A `Backend` of one domain that OpenVINO runs on the CPU, in float32.

    Args:
      exported: the exported file.
      batch_size: windows per call; for 1, the graph is compiled for that size.

    Raises:
      InputError: if OpenVINO cannot read or compile the file.
      StoppedError: if OpenVINO is not installed.
    """

    is_exported = True

    def __init__(self, exported: ExportedFile, *, batch_size: int = 1):
        openvino = import_package("openvino")
        self.spec = exported.domain.spec
        # The last bits of probabilities differ between runtimes.
        self.fingerprint = f"{exported.domain.fingerprint} openvino"
        self.checkpoint = str(exported.path)
        domain = self.spec.plan.domains[0]
        number = 1 if batch_size == 1 else -1
        shape = [number, *domain.patch_size, domain.num_modalities]
        options = {
            # Otherwise OpenVINO computes in bfloat16 on processors that support it.
            "INFERENCE_PRECISION_HINT": "f32",
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": machine.num_cores(),
        }
        core = openvino_core()
        try:
            model = core.read_model(exported.source())
            model.reshape({INPUT: openvino.PartialShape(shape)})
            self._output = model.output(OUTPUT).get_index()
            self._request = core.compile_model(
                model, "CPU", options
            ).create_infer_request()
        except RuntimeError as error:
            raise InputError(
                self.checkpoint,
                expected="a model that OpenVINO runs",
                received=error,
            ) from None

    def predict_windows(
        self, windows: np.ndarray, domain: int, *, few: bool = False
    ) -> np.ndarray:
        """Returns the class probabilities of windows; see `Backend`."""
        # The file has one domain, and was compiled when it was opened.
        del domain, few
        return self._request.infer([windows], share_inputs=True)[self._output]
