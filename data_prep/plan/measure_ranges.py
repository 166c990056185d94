"""Measures the ranges of a domain's scans; prediction warns of scans outside them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from data_prep.survey import measurements
from data_prep.survey.examine_case import CaseFacts
from u2net_tf.plan.scan_ranges import PERCENTILES, Range, ScanRanges

_SURVEYED = [measurements.PERCENTILES.index(p) for p in PERCENTILES]


def measure_ranges(cases: Sequence[CaseFacts]) -> ScanRanges | None:
    """Returns the ranges of the usable scans.

    Args:
      cases: cases with the same number of modalities.

    Returns:
      None if no scan was measured.
    """
    cases = [case for case in cases if case.percentiles]
    if not cases:
        return None
    spacing = np.array([case.spacing_mm for case in cases])
    extent = spacing * [case.shape for case in cases]
    # (case, modality, percentile)
    intensities = np.array([case.percentiles for case in cases])[..., _SURVEYED]
    return ScanRanges(
        spacing_mm=_triple(spacing.T),
        extent_mm=_triple(extent.T),
        intensities=tuple(
            _triple(modality.T) for modality in intensities.swapaxes(0, 1)
        ),
    )


def _triple(rows: Iterable[np.ndarray]) -> tuple[Range, Range, Range]:
    first, second, third = ((_short(row.min()), _short(row.max())) for row in rows)
    return first, second, third


def _short(value: float) -> float:
    return float(f"{value:.6g}")
