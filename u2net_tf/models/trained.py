"""Trained models that come with the package, found by their names."""

from __future__ import annotations

import os
import pathlib

from u2net_tf.models.model_file_format import SUFFIX

_FOLDER = pathlib.Path(__file__).parents[1] / "trained"


def trained_models() -> list[str]:
    """Returns the names of the models that come with the package, sorted."""
    return sorted(path.stem for path in _FOLDER.glob(f"*{SUFFIX}"))


def find_trained(model: str | os.PathLike) -> str | os.PathLike:
    """Returns the path of a model, given by path or by name.

    Args:
      model: a path, or the name of a model that comes with the package. A file or
        folder of this name takes precedence.

    Returns:
      The path of the model file for a name; anything else unchanged.
    """
    if os.fspath(model) not in trained_models() or os.path.exists(model):
        return model
    return _FOLDER / f"{model}{SUFFIX}"
