"""Where in the stream of a domain's patches a run is, counted in records and patches.

A run that is resumed begins there, and so gets the patches that it would have had.
"""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True)
class Position:
    """What comes before a patch. Reads of records are counted through all epochs.

    Patches are interleaved within windows of several volumes, so the stream can begin
    with the first patch of a window only.

    Attributes:
      epoch: the epoch of the window's first record.
      records_before: records of that epoch that come before it.
      record_read: its number among all reads.
      patches_before: patches of the window that come before the patch.
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
        """The position of a patch.

        Args:
          number: of the patch, from 0.
          num_records: records of an epoch.
          patches_per_volume: patches of every read of a record.
          num_interleaved_volumes: reads whose patches form a window.
        """
        window, patches_before = divmod(
            number, num_interleaved_volumes * patches_per_volume
        )
        record_read = window * num_interleaved_volumes
        epoch, records_before = divmod(record_read, num_records)
        return cls(epoch, records_before, record_read, patches_before)
