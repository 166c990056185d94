"""Predicts a scan and writes its label map and other requested files."""

from __future__ import annotations

import numpy as np
from absl import logging

from u2net_tf.inference import plausibility
from u2net_tf.inference.outputs import PREVIEW, PROBABILITIES, Outputs
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.prepared_scan import PreparedScan
from u2net_tf.plan.domains import Domain
from u2net_tf.visualization.preview import draw_preview
from u2net_tf.volumes import images, label_map_files
from u2net_tf.volumes.grid import Volume
from u2net_tf.wording import escape_controls


def warn_of_differences(image: Volume, domain: Domain) -> None:
    """Warns if a scan differs strongly from those of a domain."""
    if found := plausibility.differences(image, domain):
        logging.warning(
            "%s: does not look like a scan of %s: %s",
            image.grid.path,
            domain.name,
            "; ".join(found),
        )


def write_label_map(
    predictor: Predictor,
    index: int,
    scan: PreparedScan,
    outputs: Outputs,
    *,
    num_scans: int | None = None,
) -> np.ndarray:
    """Predicts a scan; writes its label map and, if requested, other files.

    Args:
      predictor: the model.
      index: index of the domain.
      scan: the scan, preprocessed for the domain.
      outputs: its output files.
      num_scans: see `Predictor.predict_prepared`.

    Returns:
      (z, y, x) uint8 class indices, on the grid of the scan.
    """
    domain = predictor.spec.plan.domains[index]
    probabilities_path = outputs.path(PROBABILITIES)
    prediction = predictor.predict_prepared(
        scan,
        index,
        with_probabilities=probabilities_path is not None,
        num_scans=num_scans,
    )
    outputs.begin()
    if prediction.probabilities is not None and probabilities_path is not None:
        images.save_probabilities(
            probabilities_path, prediction.probabilities, scan.raw.grid
        )
    save_classes(scan.raw, prediction.classes, domain, outputs)
    return prediction.classes


def save_classes(
    scan: Volume, classes: np.ndarray, domain: Domain, outputs: Outputs
) -> None:
    """Writes the last files of a scan: the preview, if requested, and the label map.

    Args:
      scan: image and grid of the scan.
      classes: (z, y, x) class indices.
      domain: defines the classes.
      outputs: the output files of the scan.
    """
    preview_path = outputs.path(PREVIEW)
    if preview_path is not None:
        draw_preview(
            scan,
            classes,
            [label.name for label in domain.labels],
            preview_path,
            title=escape_controls(f"{domain.name}, {outputs.name}"),
        )
    label_map_files.save_label_map(outputs.label_map, classes, scan.grid, domain)
    outputs.finish()
