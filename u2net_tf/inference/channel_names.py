"""File names of single modalities, as in nnU-Net: `case_0000.nii.gz`."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

from absl import logging

from u2net_tf.volumes.scan_names import scan_stem
from u2net_tf.wording import first_few

_NUMBERED = re.compile(r"^(?P<case>.+)_(?P<number>\d{4})$")
# If more files differ only in the number, it identifies patients, not modalities.
_MAX_CHANNELS = 8


def case_of(stem: str) -> str | None:
    """Returns the case in a file stem such as case_0000; None if there is no number."""
    match = _NUMBERED.match(stem)
    return match["case"] if match else None


def stems_of(case: str, num_modalities: int) -> list[str]:
    """Returns the names, without ending, of the files of a case."""
    return [f"{case}_{number:04d}" for number in range(num_modalities)]


def warn_of_channels(folder: pathlib.Path, files: Sequence[pathlib.Path]) -> None:
    """Warns of files that look like modalities, although each of them is a case.

    Args:
      folder: folder of the files.
      files: the files, sorted by name.
    """
    groups: dict[str, list[pathlib.Path]] = {}
    for path in files:
        if case := case_of(scan_stem(path)):
            groups.setdefault(case, []).append(path)
    suspicious = [
        path.name
        for case, paths in groups.items()
        # Numbered patients are more numerous or do not start at 0.
        if 1 < len(paths) <= _MAX_CHANNELS
        and [scan_stem(path) for path in paths] == stems_of(case, len(paths))
        for path in paths
    ]
    if suspicious:
        logging.warning(
            "%s: predicted as separate cases, since the model has one modality, but "
            "named like the channels of a single case: %s",
            folder,
            first_few(suspicious),
        )
