import shutil
import types

import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.inference.backends.saved_model import SavedModelBackend


def save(folder, value):
    """Writes a SavedModel that returns the same number for each voxel."""

    @tf.function(input_signature=[tf.TensorSpec((1, 2, 2, 2, 1))])
    def segment(patches):
        return {"probabilities": patches * 0 + value}

    tf.saved_model.save(tf.Module(), folder, signatures={"segment_organ": segment})
    domain = types.SimpleNamespace(spec=None, fingerprint="", name="organ")
    return types.SimpleNamespace(path=folder, domain=domain)


def test_a_folder_may_be_exported_again(tmp_path):
    windows = np.zeros((1, 2, 2, 2, 1), np.float32)
    for value in (1, 2):
        shutil.rmtree(tmp_path / "exported", ignore_errors=True)
        backend = SavedModelBackend(save(tmp_path / "exported", value))
        found = backend.predict_windows(windows, 0)
        assert found == pytest.approx(value)
