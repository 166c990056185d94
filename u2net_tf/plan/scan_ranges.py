"""What the scans of a domain were like when its plan was made."""

from __future__ import annotations

from u2net_tf import schema

# The lowest and the highest of all scans.
Range = tuple[float, float]
# Of the intensities of a scan.
PERCENTILES = (2, 50, 98)


@schema.model
class ScanRanges:
    """Ranges that scans of a domain lie in. Triples are in the order z, y, x.

    Attributes:
      spacing_mm: voxel size, mm.
      extent_mm: size of the volume, mm.
      intensities: per modality, the ranges of each of `PERCENTILES`.
    """

    spacing_mm: tuple[Range, Range, Range]
    extent_mm: tuple[Range, Range, Range]
    intensities: tuple[tuple[Range, Range, Range], ...]
