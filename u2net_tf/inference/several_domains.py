"""Label maps of several domains of the same scans, each of which is read once.

Either a label map of all domains, in which those that come first in the order of
priority hide others, with a table that says which value is what; or the files of each
domain in a folder of its own, as if that alone had been predicted.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from u2net_tf.inference import label_maps, organs
from u2net_tf.inference.label_maps import Report
from u2net_tf.inference.organs import Organ
from u2net_tf.inference.output_layouts import FilesOfEach, Layout, MergedFiles
from u2net_tf.inference.scans import FoundScans


def predict_domains(
    chosen: Sequence[Organ],
    found: FoundScans,
    output_dir: pathlib.Path,
    *,
    priority: Sequence[str] = (),
    separate_files: bool = False,
    **options: Any,
) -> Report:
    """Writes label maps of several domains, except those that already exist.

    Args:
      chosen: the domains, in the order of the values that they get.
      found: the scans.
      output_dir: folder to write to.
      priority: see `organs.order_by_priority`.
      separate_files: whether each domain has files of its own, in a folder of its name.
      **options: of `label_maps.predict_files`.

    Raises:
      InputError: as `label_maps.predict_files`, and if a label map cannot hold the
        classes of all domains.
      StoppedError: as `label_maps.predict_files`.
    """
    order = organs.order_by_priority([organ.name for organ in chosen], priority)
    layout: Layout = (
        FilesOfEach(chosen) if separate_files else MergedFiles(chosen, order)
    )
    return label_maps.predict_files(layout, chosen, found, output_dir, **options)
