"""Position of a run in the stream of a domain's patches, in records and patches.

A resumed run starts at this position and gets the same patches as an uninterrupted one.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Position:
    """Position of a patch. Reads of records are counted through all epochs.

    Patches are interleaved within windows of several volumes, so the stream can only
    start with the first patch of a window.

    Attributes:
      epoch: epoch of the first record of the patch's window.
      records_before: number of records of that epoch before it.
      record_read: number of that record among all reads.
      patches_before: number of patches of the window before the patch.
    """

    epoch: int
    records_before: int
    record_read: int
    patches_before: int

    @classmethod
    def of_patch(
        cls,
        number: int,
        *,
        num_records: int,
        patches_per_volume: int,
        num_interleaved_volumes: int,
    ) -> Position:
        """Returns the position of a patch.

        Args:
          number: number of the patch, from 0.
          num_records: records per epoch.
          patches_per_volume: patches of each read of a record.
          num_interleaved_volumes: reads whose patches form a window.
        """
        window, patches_before = divmod(
            number, num_interleaved_volumes * patches_per_volume
        )
        record_read = window * num_interleaved_volumes
        epoch, records_before = divmod(record_read, num_records)
        return cls(epoch, records_before, record_read, patches_before)
