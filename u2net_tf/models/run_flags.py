"""The flagfile that a training run writes into the folder of its model."""

from __future__ import annotations

import os
import pathlib

from u2net_tf import files
from u2net_tf.config import flagfile


def flags_path(model_dir: str | os.PathLike) -> pathlib.Path:
    """Returns the path of the flagfile."""
    return pathlib.Path(model_dir) / "flags.txt"


def read_flags(model_dir: str | os.PathLike) -> dict[str, str]:
    """Returns flag -> value of the last run; empty if there is no such file."""
    path = flags_path(model_dir)
    text, _ = files.read_text(path) if path.is_file() else ("", "")
    return flagfile.values(text)
