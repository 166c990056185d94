import errno
import os
import pathlib
import re

import pytest

from u2net_tf import files, temporary_names
from u2net_tf.errors import InputError


def write_half(path, error):
    with files.atomic_write(path) as partial:
        partial.write_text("half of the n")
        raise error


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_file_appears_once_it_is_complete(tmp_path):
    path = tmp_path / "made" / "too" / "report.nii.gz"
    with files.atomic_write(path) as partial:
        partial.write_text("new")
        assert partial.name.endswith("report.nii.gz")
        assert partial.parent == path.parent
        assert not path.exists()
    assert path.read_text() == "new"
    assert names(path.parent) == ["report.nii.gz"]


def test_old_file_is_replaced(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text("old and longer")
    files.write_text(path, "né")
    assert path.read_bytes() == "né".encode()
    assert names(tmp_path) == ["plan.json"]


@pytest.mark.parametrize("error", [RuntimeError("stop"), KeyboardInterrupt()])
def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "plan.json"
    path.write_text("old")
    with pytest.raises(type(error)):
        write_half(path, error)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["plan.json"]


def test_nothing_written_is_an_error_and_leaves_the_old_file(tmp_path):
    path = tmp_path / "plan.json"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), files.atomic_write(path):
        pass
    assert path.read_text() == "old"


def test_a_full_disk_names_the_file(tmp_path):
    path = tmp_path / "plan.json"
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(OSError, match="No space left.*plan.json"):
        write_half(path, full)
    assert names(tmp_path) == []


def test_an_error_that_names_a_file_is_unchanged(tmp_path):
    error = FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), "another")
    with pytest.raises(FileNotFoundError) as raised:
        write_half(tmp_path / "plan.json", error)
    assert raised.value.filename == "another"


@pytest.mark.parametrize("inside", ["", "graph.onnx"])
def test_an_error_that_names_a_temporary_file_names_the_final_one(tmp_path, inside):
    path = tmp_path / "plan.json"
    partial = temporary_names.temporary_path(path) / inside
    with pytest.raises(PermissionError) as raised, files.errors_name(path):
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(partial))
    assert raised.value.filename == str(path)


def test_a_read_only_file_system_names_the_file(tmp_path, monkeypatch):
    def refuse(path, *_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))

    monkeypatch.setattr(pathlib.Path, "write_text", refuse)
    # It refuses to remove even a file that does not exist.
    monkeypatch.setattr(pathlib.Path, "unlink", refuse)
    path = tmp_path / "plan.json"
    with pytest.raises(OSError, match="Read-only") as raised:
        files.write_text(path, "text")
    assert raised.value.filename == str(path)


class TestCheckWritable:
    @pytest.mark.parametrize("folder", [".", "new", "new/and/deep"])
    def test_it_creates_nothing(self, tmp_path, folder):
        files.check_writable(tmp_path / folder / "plan.json")
        assert names(tmp_path) == []

    @pytest.mark.parametrize("folder", ["file", "file/below", "link", "link/below"])
    def test_a_folder_that_cannot_be_created(self, tmp_path, folder):
        (tmp_path / "file").write_text("a file")
        (tmp_path / "link").symlink_to("nowhere")
        path = tmp_path / folder / "plan.json"
        with pytest.raises(OSError, match=re.escape(str(path))):
            files.check_writable(path)
        with pytest.raises(OSError, match=r"."):
            files.write_text(path, "text")

    def test_a_folder_that_cannot_be_written_to(self, tmp_path, monkeypatch):
        def refuse(path):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(path))

        monkeypatch.setattr(pathlib.Path, "touch", refuse)
        path = tmp_path / "new" / "plan.json"
        with pytest.raises(PermissionError) as raised:
            files.check_writable(path)
        assert raised.value.filename == str(path)

    @pytest.mark.parametrize("number", [0, 1, 2])
    def test_a_name_that_is_too_long(self, tmp_path, number):
        parts = ["new", "below", "plan.json"]
        parts[number] = "x" * 255
        files.check_writable(tmp_path.joinpath(*parts))
        parts[number] += "x"
        with pytest.raises(OSError, match="File name too long"):
            files.check_writable(tmp_path.joinpath(*parts))


def test_a_folder_in_the_way_is_an_error_that_names_it(tmp_path):
    (tmp_path / "work").write_text("a file")
    with pytest.raises(OSError, match="work"):
        files.write_text(tmp_path / "work" / "plan.json", "text")


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_text_is_utf_8_with_or_without_a_bom(tmp_path, encoding):
    path = tmp_path / "plan.json"
    path.write_bytes("Läsion\r\n\ufffd\r".encode(encoding))
    assert files.read_text(path) == ("Läsion\n\ufffd\n", "")
    assert files.require_text(path) == "Läsion\n\ufffd\n"


@pytest.mark.parametrize(
    ("content", "received"),
    [
        ("a\nLäsion".encode("utf-16"), "UTF-16"),
        ("a\nLäsion".encode("utf-16-be"), "invalid bytes in line 1"),
        ("a\nLäsion".encode("latin-1"), "invalid bytes in line 2"),
        (b"a\nb\n\0\0\0", "invalid bytes in line 3"),
        (b"\x1f\x8b\x08", "invalid bytes in line 1"),
    ],
)
def test_other_encodings_are_reported(tmp_path, content, received):
    path = tmp_path / "plan.json"
    path.write_bytes(content)
    assert files.read_text(path)[1] == f"expected UTF-8 text. Received: {received}"
    with pytest.raises(InputError) as caught:
        files.require_text(path, "a plan")
    assert str(caught.value) == (
        f"{path}: expected a plan, in UTF-8. Received: {received}. Save it as UTF-8"
    )
