"""Predicts several domains of the same scans, each of which is read once.

The output is either one label map of all domains, in which those of higher priority
hide others, with a table of its values; or the files of each domain in a separate
folder, as if it had been predicted alone.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from u2net_tf.inference import label_maps, organs
from u2net_tf.inference.label_maps import Report
from u2net_tf.inference.organs import Organ
from u2net_tf.inference.output_layouts import Layout, MergedFiles, SeparateFiles
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
      chosen: the domains, in the order of their values in the label map.
      found: the scans.
      output_dir: folder to write to.
      priority: see `organs.order_by_priority`.
      separate_files: whether to write separate files for each domain, in a folder with
        its name.
      **options: options of `label_maps.predict_files`.

    Raises:
      InputError: see `label_maps.predict_files`; also if there are more classes than
        a label map can have.
      StoppedError: see `label_maps.predict_files`.
    """
    order = organs.order_by_priority([organ.name for organ in chosen], priority)
    layout: Layout = (
        SeparateFiles(chosen) if separate_files else MergedFiles(chosen, order)
    )
    return label_maps.predict_files(layout, chosen, found, output_dir, **options)
