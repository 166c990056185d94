"""Runs an exported domain, an ONNX model, with onnxruntime."""

from __future__ import annotations

import numpy as np

from u2net_tf import machine
from u2net_tf.errors import InputError
from u2net_tf.export_packages import import_package
from u2net_tf.models.exported import INPUT, OUTPUT
from u2net_tf.models.exported_files import ExportedFile

# onnxruntime's log level of errors, which it also raises; warnings are not logged.
_ERRORS = 3


class OnnxRuntimeBackend:
    """A `Backend` of one domain that onnxruntime runs on the CPU, in float32.

    Args:
      exported: the exported file.

    Raises:
      InputError: if onnxruntime cannot read the file.
      StoppedError: if onnxruntime is not installed.
    """

    is_exported = True

    def __init__(self, exported: ExportedFile):
        onnxruntime = import_package("onnxruntime")
        self.spec = exported.domain.spec
        # The last bits of probabilities differ between runtimes.
        self.fingerprint = f"{exported.domain.fingerprint} onnxruntime"
        self.checkpoint = str(exported.path)
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = machine.num_cores()
        options.log_severity_level = _ERRORS
        try:
            self._session = onnxruntime.InferenceSession(
                exported.source(), options, providers=["CPUExecutionProvider"]
            )
        except _errors_of(onnxruntime) as error:
            raise InputError(
                self.checkpoint,
                expected="a model that onnxruntime runs",
                received=error,
            ) from None

    def predict_windows(
        self, windows: np.ndarray, domain: int, *, few: bool = False
    ) -> np.ndarray:
        """Returns the class probabilities of windows; see `Backend`."""
        # The file has one domain, and was compiled when it was opened.
        del domain, few
        (probabilities,) = self._session.run([OUTPUT], {INPUT: windows})
        return probabilities


def _errors_of(onnxruntime: object) -> tuple[type[Exception], ...]:
    """Returns the exceptions of onnxruntime, whose only base is `Exception`."""
    state = onnxruntime.capi.onnxruntime_pybind11_state  # type: ignore[attr-defined]
    kinds = (kind for kind in vars(state).values() if isinstance(kind, type))
    return tuple(kind for kind in kinds if issubclass(kind, Exception))
