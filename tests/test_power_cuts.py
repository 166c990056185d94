"""A power cut at any time leaves files that load: the old ones or the new ones."""

import os

import pytest
from power_cuts import PowerCuts

from u2net_tf import files


class TestRecorder:
    """The recorder finds the states that it should."""

    def contents(self, states, name):
        return {dict(state).get(name) for state in states}

    def test_an_unflushed_file_may_be_empty(self, tmp_path):
        (tmp_path / "a").write_bytes(b"old")
        with PowerCuts(tmp_path) as cuts:
            (tmp_path / "b").write_bytes(b"new")
            os.replace(tmp_path / "b", tmp_path / "a")
        assert self.contents(cuts.states, "a") == {b"old", b"", b"new"}

    def test_names_change_in_any_order_until_the_folder_is_flushed(self, tmp_path):
        (tmp_path / "a").write_bytes(b"old")
        with PowerCuts(tmp_path) as cuts:
            (tmp_path / "b").write_bytes(b"b")
            files.sync_file(tmp_path / "b")
            (tmp_path / "c").write_bytes(b"c")
            files.sync_file(tmp_path / "c")
            (tmp_path / "a").unlink()
            files.sync_folder(tmp_path)
            os.replace(tmp_path / "b", tmp_path / "d")
        found = {"".join(sorted(dict(state))) for state in cuts.states}
        before = {name for name in found if "d" not in name}
        assert before == {"", "a", "b", "c", "ab", "ac", "bc", "abc"}
        assert len(cuts.last) == 4
        assert all(dict(state)["c"] == b"c" for state in cuts.last)

    def test_what_is_in_a_folder_is_lost_with_its_name(self, tmp_path):
        with PowerCuts(tmp_path) as cuts:
            (tmp_path / "in").mkdir()
            (tmp_path / "in" / "a").write_bytes(b"a")
            files.sync_file(tmp_path / "in" / "a")
            files.sync_folder(tmp_path / "in")
        assert cuts.last == {frozenset(), frozenset({("in/a", b"a")})}


@pytest.mark.parametrize("before", [b"old and longer", None])
def test_a_text_file_is_the_old_one_or_the_new_one(tmp_path, before):
    path = tmp_path / "made" / "plan.json"
    if before is not None:
        path.parent.mkdir()
        path.write_bytes(before)
    with PowerCuts(tmp_path) as cuts:
        files.write_text(path, "new")
    for state in cuts.states:
        assert dict(state).get("made/plan.json") in (before, b"new")
    # After the write has returned, only the new file is possible.
    assert {dict(state).get("made/plan.json") for state in cuts.last} == {b"new"}


def test_a_created_folder_is_kept(tmp_path):
    with PowerCuts(tmp_path) as cuts:
        assert files.make_folder(tmp_path / "a" / "b") == [
            tmp_path / "a",
            tmp_path / "a" / "b",
        ]
        assert files.make_folder(tmp_path / "a" / "b") == []
        (tmp_path / "a" / "b" / "c").touch()
        files.sync_folder(tmp_path / "a" / "b")
    assert cuts.last == {frozenset({("a/b/c", b"")})}
