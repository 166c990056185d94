import errno
import os

import pytest

from u2net_tf import system_errors


def message(function):
    with pytest.raises(OSError) as caught:  # noqa: PT011 (of any kind)
        function()
    return str(system_errors.as_input_error(caught.value))


def test_names_the_path(tmp_path):
    file = tmp_path / "file"
    file.touch()
    assert message((tmp_path / "no").read_text) == (
        f"{tmp_path / 'no'}: expected an existing file or folder. Received: no such "
        "file or directory"
    )
    assert message(tmp_path.read_text) == (
        f"{tmp_path}: expected a file. Received: a folder"
    )
    assert message((file / "x").read_text) == (
        f"{file / 'x'}: expected a path of folders. Received: a file in place of one"
    )
    assert message(file.mkdir) == (
        f"{file}: expected nothing of this name. Received: a file or folder"
    )
    assert message(lambda: os.rename(tmp_path / "a", tmp_path / "b")).startswith(
        f"{tmp_path / 'a'} -> {tmp_path / 'b'}: expected an existing file"
    )


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (errno.ENOSPC, "expected space on the disk. Received: no space left on device"),
        (errno.EACCES, "expected permission to use it. Received: permission denied"),
        (
            errno.EIO,
            "expected a file that can be read and written. Received: input/out",
        ),
    ],
)
def test_other_errors(number, text):
    error = OSError(number, os.strerror(number), b"a file")
    assert str(system_errors.as_input_error(error)).startswith(f"a file: {text}")
    nameless = OSError(number, os.strerror(number))
    assert str(system_errors.as_input_error(nameless)).startswith(text)


def test_an_error_with_its_own_text_keeps_it():
    assert system_errors.as_input_error(OSError("no checkpoint")) is None


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_the_system_s_message_in_that_of_a_library(number):
    message = f"{{{{function_node}}}} a.tempstate; {os.strerror(number)} [Op:SaveV2]"
    error = system_errors.of_library("TensorFlow", message, "a folder")
    assert str(error) == str(OSError(number, os.strerror(number), "a folder"))
    nameless = system_errors.of_library("TensorFlow", message)
    assert (nameless.errno, nameless.filename) == (number, None)


def test_other_messages_of_a_library_are_kept():
    error = system_errors.of_library("OpenVINO", "cannot open", "a file")
    assert str(system_errors.as_input_error(error)) == (
        "a file: expected a file that can be read and written. Received: an error of "
        "OpenVINO: cannot open"
    )
