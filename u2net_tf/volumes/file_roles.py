"""Check that each file is used only once, as an image, a modality or a label map."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable

from u2net_tf.errors import InputError


def require_one_role_each(
    where: object, roles: Iterable[tuple[pathlib.Path, str]]
) -> None:
    """Checks that no file is used twice. Links to a file count as that file.

    Args:
      where: what lists the files, for error messages.
      roles: each file and its role.

    Raises:
      InputError: if a file is used twice; names the first one and both uses.
    """
    seen: dict[str, tuple[pathlib.Path, str]] = {}
    for path, role in roles:
        target = os.path.realpath(path)
        if target in seen:
            other, first = seen[target]
            links = "" if path == other else f" ({path})"
            raise InputError(
                where,
                expected="each file once",
                received=f"{other} as {first} and as {role}{links}",
                hint="If two files with the same content are intended, copy one",
            )
        seen[target] = path, role
