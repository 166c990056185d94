"""The numbers about model files in the documentation."""

import numpy as np
import pytest
import toy

pytest.importorskip("onnx", reason="needs the extra `export`")
pytest.importorskip("onnxruntime", reason="needs the extra `export`")

from packed import SPEC, compute, make_members, write

from tools import compare_model_files
from u2net_tf.models.loading import save_model
from u2net_tf.models.model_file import read_model_file


def test_runs_the_graph_of_a_domain(tmp_path):
    model = read_model_file(write(tmp_path / "x.u2net", make_members()))
    backend = compare_model_files.OnnxBackend(model, SPEC)
    assert (backend.fingerprint, backend.checkpoint) == ("f", str(model.path))
    for index, domain in enumerate(SPEC.plan.domains):
        shape = (1, *domain.patch_size, domain.num_modalities)
        windows = np.random.default_rng(0).standard_normal(shape).astype(np.float32)
        found = backend.predict_windows(windows, index)
        expected = compute(index, windows)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


@pytest.mark.slow
def test_prints_sizes_and_dice(tmp_path, capsys):
    pytest.importorskip("tf2onnx", reason="needs the extra `export`")
    plan = toy.write_scans(tmp_path / "raw")
    save_model(tmp_path / "model", *toy.make_model(domains=plan.domains))
    compare_model_files.compare(
        str(tmp_path / "model"), str(tmp_path / "raw"), tmp_path / "files"
    )
    text = capsys.readouterr().out
    for precision in ("float32", "float16"):
        for number in (1, 2):
            path = tmp_path / "files" / f"{precision}-{number}.u2net"
            size = f"{path.stat().st_size:,}"
            assert any(
                line.split()[:3] == [precision, str(number), size]
                for line in text.splitlines()
            )
    assert "Task92_Two  core" in text
