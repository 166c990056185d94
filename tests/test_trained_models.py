"""The models that come with the package."""

import hashlib
import json
import pathlib
import re

import numpy as np
import pytest
from scipy import ndimage

import u2net_tf
from u2net_tf.errors import InputError
from u2net_tf.models import trained
from u2net_tf.models.model_file import read_model_file
from u2net_tf.models.trained import find_trained, trained_models

ROOT = pathlib.Path(__file__).parents[1]
# Run lengths of the labels of `draw_phantom`, as the model predicted them when it was
# packed: `python tests/test_trained_models.py` writes them.
EXPECTED = pathlib.Path(__file__).parent / "trained_labels.json"


def draw_phantom():
    """(z, y, x) a bent rod of bright tissue with a dark rim, about a hippocampus."""
    draw = np.random.default_rng(0)
    shape = (36, 50, 35)
    z, y, x = np.indices(shape)
    depth, height, width = (size / 2 for size in shape)
    image = 300 + 60 * ndimage.gaussian_filter(draw.normal(size=shape), 1.0)
    along = y - height
    across = np.hypot(
        (z - depth - 4 * np.sin(along / 12)) / 0.9,
        (x - width - 3 * np.cos(along / 14)) / 1.1,
    )
    beyond_the_ends = np.clip((np.abs(along) - 18) / 3, 0, None)
    distance = np.hypot(across, beyond_the_ends) - (6 - 0.08 * along)
    image = image + 120 * (distance < 0) - 80 * (np.abs(distance - 1.5) < 1)
    return image.astype(np.float32)


def segment_phantom():
    model = u2net_tf.load("hippocampus")
    return model(draw_phantom(), spacing_mm=(1, 1, 1), orientation="RAS").labels


def encode(labels):
    """(value, count) of each run of equal labels."""
    flat = labels.ravel()
    starts = np.flatnonzero(np.diff(flat, prepend=-1))
    counts = np.diff(starts, append=flat.size)
    return [[int(flat[i]), int(n)] for i, n in zip(starts, counts, strict=True)]


def decode(runs):
    values, counts = np.array(runs).T
    return np.repeat(values, counts)


def test_a_phantom_has_the_labels_that_it_had():
    expected = decode(json.loads(EXPECTED.read_text(encoding="utf-8")))
    assert set(np.unique(expected)) == {0, 1, 2}
    found = segment_phantom().ravel()
    # Other processors round otherwise.
    assert (found != expected).mean() < 1e-3


def test_names():
    assert trained_models() == ["hippocampus"]
    path = find_trained("hippocampus")
    assert pathlib.Path(path).stat().st_size < 1_000_000
    assert find_trained("other") == "other"
    assert find_trained("hippocampus.u2net") == "hippocampus.u2net"


def test_a_file_of_that_name_takes_precedence(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "hippocampus").mkdir()
    assert find_trained("hippocampus") == "hippocampus"


def test_an_unknown_name_is_answered_with_those_that_exist(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        InputError,
        match=r"^liver: expected a folder of a model, a file .*, or the "
        r"name of a model that comes with the package \(hippocampus\)",
    ):
        u2net_tf.load("liver")


def test_the_card():
    packed = read_model_file(find_trained("hippocampus"))
    card = packed.page
    assert "CC-BY-SA-4.0" in card
    assert "not given" not in card.partition("## ")[0]
    # Dice with its spread, from all test cases.
    assert re.search(r"\| Anterior .*\| 42 ", card), card
    assert re.search(r"\| Posterior .*\| 42 ", card), card
    assert "hippocampus_" not in card


def test_the_document_gives_the_checksum_and_the_dice():
    text = (ROOT / "docs" / "trained_models.md").read_text(encoding="utf-8")
    path = pathlib.Path(find_trained("hippocampus"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() in text
    page = read_model_file(path).page
    for name in ("Anterior", "Posterior"):
        ((mean, deviation),) = re.findall(
            rf"\| {name} +\| (\d+\.\d) +\| (\d+\.\d) ", page
        )
        assert f"{name} {mean} ± {deviation}" in text


def test_licences():
    text = (trained._FOLDER / "LICENSE.md").read_text(encoding="utf-8")
    for name in trained_models():
        assert f"`{name}.u2net`" in text


if __name__ == "__main__":
    EXPECTED.write_text(json.dumps(encode(segment_phantom())), encoding="utf-8")
