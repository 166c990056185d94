import functools
import shutil
import types

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.errors import StoppedError
from u2net_tf.inference.backends.saved_model import SavedModelBackend


def save(folder, make_value):
    """Writes a SavedModel that returns the same number for each voxel."""

    @tf.function(input_signature=[tf.TensorSpec((1, 2, 2, 2, 1))])
    def segment(patches):
        return {"probabilities": patches * 0 + make_value()}

    tf.saved_model.save(tf.Module(), folder, signatures={"segment_organ": segment})
    domain = types.SimpleNamespace(spec=None, fingerprint="", name="organ")
    return types.SimpleNamespace(path=folder, domain=domain)


def test_a_folder_may_be_exported_again(tmp_path):
    windows = np.zeros((1, 2, 2, 2, 1), np.float32)
    for value in (1, 2):
        shutil.rmtree(tmp_path / "exported", ignore_errors=True)
        exported = save(tmp_path / "exported", functools.partial(float, value))
        backend = SavedModelBackend(exported)
        found = backend.predict_windows(windows, 0)
        assert found == pytest.approx(value)


def test_memory_that_does_not_suffice(tmp_path):
    def exhaust():
        # More bytes than any machine has addresses.
        return tf.reduce_sum(tf.random.uniform([1 << 60]))

    backend = SavedModelBackend(save(tmp_path / "exported", exhaust))
    words = (
        r"^expected enough memory for 1 window of 2 × 2 × 2 voxels\. Received: OOM.*\. "
        "Use a device with more memory$"
    )
    with pytest.raises(StoppedError, match=words):
        backend.predict_windows(np.zeros((1, 2, 2, 2, 1), np.float32), 0)
