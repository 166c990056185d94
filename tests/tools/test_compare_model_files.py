"""Sizes and Dice of model files, as quoted in the documentation."""

import pytest
import toy

pytest.importorskip("onnx", reason="needs the extra `export`")
pytest.importorskip("onnxruntime", reason="needs the extra `export`")

from tools import compare_model_files
from u2net_tf.models.loading import save_model


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
