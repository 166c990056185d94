"""The checksum of named arrays, which does not depend on how they are stored."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np


def checksum_of_arrays(arrays: Mapping[str, np.ndarray]) -> str:
    """Returns the SHA-256 over arrays: their names, types, shapes and values.

    In the alphabetical order of the names; of each array a line of UTF-8 with its name,
    its type and the sizes of its axes, such as "stem/conv/bias float32 16", and then
    its values, little-endian, the last axis fastest.

    Args:
      arrays: name -> array.
    """
    checksum = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        head = " ".join([name, array.dtype.name, *map(str, array.shape)])
        checksum.update(f"{head}\n".encode())
        checksum.update(array.astype(array.dtype.newbyteorder("<")).tobytes())
    return checksum.hexdigest()
