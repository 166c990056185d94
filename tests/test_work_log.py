import hashlib
import json
import os
import pathlib

import pytest

from u2net_tf import files, schema, work_log
from u2net_tf.file_format import FileFormat


@schema.model
class Outcome:
    key: str
    value: int


FORMAT = FileFormat(
    name="an outcome", made_by="a test", kind=Outcome, oldest=1, upgrades=()
)


class TestKey:
    def test_is_stable_across_versions(self, tmp_path):
        """Otherwise, records of earlier versions would not be found."""
        path = tmp_path / "scan"
        path.write_bytes(b"12345")
        os.utime(path, ns=(1, 2))
        found = work_log.work_key(
            ["one", 0.5, True, str(path)], files.file_signatures([path])
        )
        text = f'["one", 0.5, true, "{path}", [[5, 2]]]'
        assert found == hashlib.sha256(text.encode()).hexdigest()

    def test_changes_with_settings_and_signatures(self):
        keys = {
            work_log.work_key(*arguments)
            for arguments in (
                ([1], [[1, 2]]),
                ([2], [[1, 2]]),
                ([1], [[1, 3]]),
                ([1], [None]),
            )
        }
        assert len(keys) == 4


class TestRecord:
    def test_round_trip(self, tmp_path):
        path = tmp_path / "folder" / "a.json"
        assert work_log.read_record(path, FORMAT) is None
        work_log.write_record(path, FORMAT, Outcome("k", 3))
        assert work_log.read_record(path, FORMAT) == Outcome("k", 3)
        assert json.loads(path.read_text())["format"] == 1

    @pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', "\0\0"])
    def test_an_incomplete_record_is_ignored(self, tmp_path, text):
        (tmp_path / "a.json").write_text(text)
        assert work_log.read_record(tmp_path / "a.json", FORMAT) is None


class TestLog:
    def test_contains_the_records_of_all_runs(self, tmp_path):
        path = tmp_path / "log.jsonl"
        assert work_log.Log(path, FORMAT).read() == {}
        for key in "ab":
            with work_log.Log(path, FORMAT) as log:
                log.append(Outcome(key, 1))
                # Written at once, so that a crash does not lose it.
                assert set(work_log.Log(path, FORMAT).read()) == set(
                    "ab"[: "ab".index(key) + 1]
                )
        assert work_log.Log(path, FORMAT).read()["b"] == Outcome("b", 1)

    def test_lines_that_are_incomplete_or_of_another_format_are_skipped(self, tmp_path):
        path = tmp_path / "log.jsonl"
        with work_log.Log(path, FORMAT) as log:
            log.append(Outcome("a", 1))
        with path.open("ab") as stream:
            stream.write(b'\n{"stamp": "b", "facts": {}}\n{"format": 2}\n{"form\xc3')
        with work_log.Log(path, FORMAT) as log:
            log.append(Outcome("c", 2))
        found = work_log.Log(path, FORMAT).read()
        assert found == {"a": Outcome("a", 1), "c": Outcome("c", 2)}


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")
def test_a_full_disk_names_the_log():
    path = pathlib.Path("/dev/full")
    log = work_log.Log(path, FORMAT)
    with pytest.raises(OSError, match="No space left on device: '/dev/full'"), log:
        log.append(Outcome("k", 3))
