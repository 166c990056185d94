import json
import os

import pytest

from u2net_tf.errors import InputError
from u2net_tf.files import file_signatures
from u2net_tf.inference.outputs import LABEL_MAP, PROBABILITIES, Outputs


@pytest.fixture
def outputs(tmp_path):
    """Returns a function that makes the `Outputs` of a scan with a given key."""

    def call(key="one", *, probabilities=False):
        paths = {LABEL_MAP: tmp_path / "a.nii.gz"}
        if probabilities:
            paths[PROBABILITIES] = tmp_path / "a_probabilities.nii.gz"
        return Outputs(tmp_path, "a", paths, key)

    return call


def write(outputs, content):
    outputs.require_unedited()
    outputs.begin()
    for path in outputs.paths:
        path.write_bytes(content)
    outputs.finish()


def test_are_complete_once_all_are_written(outputs, tmp_path):
    first = outputs()
    assert not first.is_complete()
    first.begin()
    (tmp_path / "a.nii.gz").write_bytes(b"half")
    assert not outputs().is_complete()
    first.finish()
    assert outputs().is_complete()
    assert outputs().edited() == []
    assert not outputs("two").is_complete()
    (tmp_path / "a.nii.gz").unlink()
    assert not outputs().is_complete()


def test_interrupted_outputs_are_replaced(outputs, tmp_path):
    """The process is killed after another model's label map, before its record."""
    write(outputs(), b"first")
    second = outputs("two")
    second.begin()
    (tmp_path / "a.nii.gz").write_bytes(b"of the second")
    assert not outputs().is_complete()
    write(outputs(), b"first again")
    assert outputs().is_complete()


def test_files_of_an_interrupted_run_are_removed(outputs, tmp_path):
    """The process is killed after the probabilities; the next run writes none."""
    path = tmp_path / "a_probabilities.nii.gz"
    outputs(probabilities=True).begin()
    path.write_bytes(b"half")
    write(outputs("two"), b"second")
    assert not path.exists()
    write(outputs("two", probabilities=True), b"second")
    assert path.exists()


@pytest.mark.parametrize("kept", [False, True])
def test_files_edited_while_others_are_predicted(outputs, tmp_path, kept):
    write(outputs(), b"first")
    second = outputs("two")
    if kept:
        second.require_unedited()
    (tmp_path / "a.nii.gz").write_bytes(b"corrected")
    if kept:
        with pytest.raises(InputError, match="Received: one that was edited since"):
            second.begin()
        assert outputs().edited() == [tmp_path / "a.nii.gz"]
    else:
        second.begin()


def test_outputs_of_another_model_are_replaced(outputs, tmp_path):
    write(outputs(), b"first")
    write(outputs("two"), b"second")
    assert outputs("two").is_complete()
    assert (tmp_path / "a.nii.gz").read_bytes() == b"second"


def test_files_of_others_are_not_replaced(outputs, tmp_path):
    (tmp_path / "a.nii.gz").write_bytes(b"a reference")
    with pytest.raises(InputError) as caught:
        outputs().require_unedited()
    assert str(caught.value) == (
        f"{tmp_path / 'a.nii.gz'}: expected no file, or one that was predicted "
        "here. Received: a different file. Use `overwrite` to replace it"
    )


def test_edited_outputs_are_kept_or_refused(outputs, tmp_path):
    write(outputs(), b"first")
    (tmp_path / "a.nii.gz").write_bytes(b"corrected")
    assert outputs().is_complete()
    assert outputs().edited() == [tmp_path / "a.nii.gz"]
    with pytest.raises(InputError, match="Received: one that was edited since. Use"):
        outputs("two").require_unedited()


def test_probabilities_of_an_earlier_model_are_removed(outputs, tmp_path):
    path = tmp_path / "a_probabilities.nii.gz"
    write(outputs(probabilities=True), b"first")
    write(outputs("two"), b"second")
    assert not path.exists()
    assert not outputs("two", probabilities=True).is_complete()
    write(outputs("two", probabilities=True), b"second")
    assert outputs("two", probabilities=True).is_complete()
    # An edited file is not removed.
    os.utime(path, (1, 1))
    write(outputs("three"), b"third")
    assert path.exists()


@pytest.mark.parametrize("where", ["beside", "above", "absolute", "backslash"])
def test_a_record_that_names_other_files_removes_none(outputs, tmp_path, where):
    """The record may have been edited, or come with a folder from others."""
    folder = tmp_path / "out"
    (folder / "sub").mkdir(parents=True)
    other = tmp_path / "kept.nii.gz"
    if where in ("beside", "backslash"):
        other = folder / {"beside": "b.nii.gz", "backslash": r"..\a.nii.gz"}[where]
    other.write_bytes(b"somebody else's")
    names = {"above": "../kept.nii.gz", "absolute": str(other)}
    # A name that starts like those of the scan removes none either.
    for name in (names.get(where, other.name), f"sub/../../{other.name}", "a/../b"):
        first = Outputs(folder, "a", {LABEL_MAP: folder / "a.nii.gz"}, "one")
        first.begin()
        record = folder / ".predicted" / "a.json"
        content = json.loads(record.read_text())
        content["stamps"] = {name: file_signatures([other])[0]}
        record.write_text(json.dumps(content))
        first.finish()
        assert other.read_bytes() == b"somebody else's"


@pytest.mark.parametrize("text", ["", "[]", "{}", "{"])
def test_an_unreadable_record_is_ignored(outputs, tmp_path, text):
    write(outputs(), b"first")
    (tmp_path / ".predicted" / "a.json").write_text(text)
    assert not outputs().is_complete()
    with pytest.raises(InputError, match="Received: a different file"):
        outputs().require_unedited()
