"""Names of files that hold a modality each, as nnU-Net has them: `case_0000.nii.gz`."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

from absl import logging

from u2net_tf.volumes.scan_names import scan_stem
from u2net_tf.wording import first_few

_NUMBERED = re.compile(r"^(?P<case>.+)_(?P<number>\d{4})$")
# More files whose names differ in the number only are patients.
_MAX_CHANNELS = 8


def case_of(stem: str) -> str | None:
    """The case that a file is a modality of, by its name without folder and ending."""
    match = _NUMBERED.match(stem)
    return match["case"] if match else None


def stems_of(case: str, num_modalities: int) -> list[str]:
    """Names without ending of the files of a case."""
    return [f"{case}_{number:04d}" for number in range(num_modalities)]


def warn_of_channels(folder: pathlib.Path, files: Sequence[pathlib.Path]) -> None:
    """Says which files look like modalities, where each is a case of one modality.

    Args:
      folder: of the files.
      files: sorted by name.
    """
    groups: dict[str, list[pathlib.Path]] = {}
    for path in files:
        if case := case_of(scan_stem(path)):
            groups.setdefault(case, []).append(path)
    suspicious = [
        path.name
        for case, paths in groups.items()
        # Numbered patients are more, or do not start at 0.
        if 1 < len(paths) <= _MAX_CHANNELS
        and [scan_stem(path) for path in paths] == stems_of(case, len(paths))
        for path in paths
    ]
    if suspicious:
        logging.warning(
            "%s: predicted as cases of their own, since the model takes one modality, "
            "but named like the channels of one case: %s",
            folder,
            first_few(suspicious),
        )
