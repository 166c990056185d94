"""Runs exported domains of a SavedModel with TensorFlow, without Keras."""

from __future__ import annotations

import functools
import pathlib
from typing import Any

import numpy as np
import tensorflow as tf

from u2net_tf import files
from u2net_tf.errors import InputError
from u2net_tf.models.exported import INPUT, OUTPUT, SIGNATURE
from u2net_tf.models.exported_files import ExportedFile
from u2net_tf.networks.device_memory import describe_windows, reporting_exhausted


class SavedModelBackend:
    """A `Backend` of one domain of a SavedModel.

    Args:
      exported: the SavedModel and its domain.

    Raises:
      InputError: if TensorFlow cannot load the SavedModel, or it has no such domain.
    """

    is_exported = True

    def __init__(self, exported: ExportedFile):
        self.spec = exported.domain.spec
        # The last bits of probabilities differ between runtimes.
        self.fingerprint = f"{exported.domain.fingerprint} saved_model"
        self.checkpoint = str(exported.path)
        # Kept, since the module owns the variables of its functions.
        parts = sorted(exported.path.rglob("*"))
        self._module = _load(exported.path, str(files.file_signatures(parts)))
        name = SIGNATURE + exported.domain.name
        if name not in self._module.signatures:
            raise InputError(
                exported.path,
                expected=f"the signature {name}",
                received=", ".join(self._module.signatures) or "none",
            )
        self._segment = self._module.signatures[name]

    def predict_windows(
        self, windows: np.ndarray, domain: int, *, few: bool = False
    ) -> np.ndarray:
        """Returns the class probabilities of windows; see `Backend`."""
        # The signature has one domain, and is not compiled for a batch size.
        del domain, few
        describe = functools.partial(describe_windows, windows, is_precision_fixed=True)
        with reporting_exhausted(describe):
            segmented = self._segment(**{INPUT: tf.constant(windows)})
            # On a CPU this is the tensor's own memory; `numpy` would copy it.
            return np.asarray(segmented[OUTPUT])


# Cached: all domains of a model are loaded together.
@functools.lru_cache(maxsize=1)
def _load(folder: pathlib.Path, signatures: str) -> Any:
    """Loads a SavedModel; its signatures change when another is exported there."""
    del signatures
    try:
        return tf.saved_model.load(folder)
    except (OSError, ValueError, KeyError, tf.errors.OpError) as error:
        raise InputError(
            folder, expected="a SavedModel that TensorFlow loads", received=error
        ) from None
