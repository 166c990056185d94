"""A checksum of named arrays that does not depend on how they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np


def checksum_of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 of the names, types, shapes and values of arrays.

    The arrays are hashed in alphabetical order of their names. Each one contributes a
    line of UTF-8 with its name, type and axis lengths, such as
    "stem/conv/bias float32 16", followed by its values in little-endian C order.

    Args:
      arrays: name -> array.
    """
    checksum = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        head = " ".join([name, array.dtype.name, *map(str, array.shape)])
        checksum.update(f"{head}\n".encode())
        checksum.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return checksum.hexdigest()
