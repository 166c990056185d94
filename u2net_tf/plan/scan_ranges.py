"""Ranges of spacing, extent and intensity of the scans that a plan was made from."""

from __future__ import annotations

from u2net_tf import schema

# Minimum and maximum over all scans.
Range = tuple[float, float]
# Percentiles of the intensities of a scan.
PERCENTILES = (2, 50, 98)


@schema.model
class ScanRanges:
    """Ranges over the scans of a domain. Triples are in the order z, y, x.

    Attributes:
      spacing_mm: ranges of the voxel size, mm.
      extent_mm: ranges of the size of the volume, mm.
      intensities: per modality, the ranges of each of `PERCENTILES`.
    """

    spacing_mm: tuple[Range, Range, Range]
    extent_mm: tuple[Range, Range, Range]
    intensities: tuple[tuple[Range, Range, Range], ...]
