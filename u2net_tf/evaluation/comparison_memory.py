"""Limits how many label maps are compared at the same time to what fits into memory."""

from __future__ import annotations

from collections.abc import Sequence

from absl import logging

from u2net_tf.volumes.memory import limit_gb

_GB = 1e9
# A process with NumPy and SimpleITK that has not read anything.
_BYTES_PER_WORKER = 0.2 * _GB
# Bytes per voxel while two label maps are read and compared; most of them while voxels
# are counted for the Dice, in int64. At most 23.8 were measured, with and without
# surfaces and an ignore label.
_BYTES_PER_VOXEL = 25


def comparison_bytes(num_voxels: int) -> float:
    """Estimates the memory of a worker process that compares label maps.

    Args:
      num_voxels: number of voxels of the label map.
    """
    return _BYTES_PER_WORKER + _BYTES_PER_VOXEL * num_voxels


def fitting_workers(
    requested: int, num_voxels: Sequence[int], max_memory_gb: float | None
) -> int:
    """Returns the number of worker processes that fit into memory, at least 1.

    Args:
      requested: maximum number.
      num_voxels: number of voxels of each label map.
      max_memory_gb: memory for all workers, GB; None for half of the machine's memory.
    """
    requested = max(1, min(requested, len(num_voxels)))
    limit = limit_gb(max_memory_gb)
    largest = comparison_bytes(max(num_voxels, default=0))
    number = max(1, min(requested, int(limit * _GB / largest)))
    if number < requested:
        logging.info(
            "comparing %d label maps at a time instead of %d, to stay within %.3g GB "
            "(`max_memory_gb`)",
            number,
            requested,
            limit,
        )
    return number
