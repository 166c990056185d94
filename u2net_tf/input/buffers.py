"""Sizes of the input pipeline's buffers, from one number of megabytes.

The domains share the memory equally. An eighth of it is for records that are shuffled
together, half for patches that are interleaved with those of other cases, a quarter for
patches that are being cropped (and the records of these, where each gives one patch
only), and the last eighth for batches that are ready. In
addition each domain needs a batch and, where a record gives several patches, the record
that they are cropped from (three times its size while it is parsed, and once more the
size of the one before it, whose last patches are being cropped).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

from absl import logging

from u2net_tf.machine import num_cores
from u2net_tf.plan.domains import Domain
from u2net_tf.shards.manifest import Manifest

_SHUFFLED, _INTERLEAVED, _CROPPED, _READY = 1 / 8, 1 / 2, 1 / 4, 1 / 8
# Copies of a record while it is parsed: serialized, as bytes, as numbers.
_COPIES_OF_RECORD = 3
# Copies of the patches that are interleaved: those in use, and the next ones twice.
_COPIES_OF_INTERLEAVED = 3
# Records of at most so many bytes are read for each patch, a tenth of a second; larger
# ones give a patch per `_BYTES_PER_PATCH`, but at most `_MAX_PATCHES`.
_SMALL_RECORD = 64e6
_BYTES_PER_PATCH = 64e6
_MAX_PATCHES = 16
_READY_BATCHES = 2


@dataclasses.dataclass(frozen=True)
class Buffers:
    """What the pipeline of one domain holds.

    Attributes:
      shuffled_records: records that are shuffled together.
      patches_per_volume: patches cropped from a record that was read.
      num_interleaved_volumes: records whose patches are interleaved.
      parallel_reads: records parsed at the same time; None for one after the other,
        and only when it is asked for.
      parallel_crops: the same of patches that are cropped.
    """

    shuffled_records: int
    patches_per_volume: int
    num_interleaved_volumes: int
    parallel_reads: int | None
    parallel_crops: int | None


def patch_bytes(domain: Domain, size: Sequence[int]) -> int:
    """Bytes of one patch: float32 for each modality and a byte for the label."""
    return math.prod(size) * (4 * domain.num_modalities + 1)


def allocate_buffers(
    manifest: Manifest,
    one_patch: int,
    *,
    cases: Collection[str],
    memory_mb: float,
    num_domains: int,
    patches_per_volume: int | None = None,
    parallel_crops: int | None = None,
) -> Buffers:
    """Divides the memory of one domain among its buffers.

    Args:
      manifest: of the domain.
      one_patch: bytes of a patch as the network gets it.
      cases: the cases that are read.
      memory_mb: for all domains together.
      num_domains: how many share it.
      patches_per_volume: how many are wanted; chosen by the size of the records if
        None, and lowered to as few as two where the patches of two volumes would not
        fit. Where not even those do, or not as many as were wanted, a warning names
        the memory that they need.
      parallel_crops: patches to crop at the same time, whatever memory they need;
        chosen if None.
    """
    entries = manifest.entries(cases)
    share = memory_mb * 1e6 / num_domains
    record = sum(entry.num_bytes for entry in entries) / len(entries)
    fitting = int(share * _INTERLEAVED / (_COPIES_OF_INTERLEAVED * one_patch))
    wanted = patches_per_volume or _wanted_patches(record)
    if patches_per_volume is None and len(entries) > 1 and 4 <= fitting < 2 * wanted:
        wanted = min(wanted, fitting // 2)
    interleaved = 1
    if wanted > 1:
        interleaved = max(1, min(fitting // wanted, len(entries)))
    if interleaved == 1 and wanted > 1 and len(entries) > 1:
        least = 2 * (wanted if patches_per_volume else 2)
        needed = num_domains * least * _COPIES_OF_INTERLEAVED * one_patch
        logging.warning(
            "%s: %d patches of one volume follow one another, as `input_memory_mb` of "
            "%g does not hold those of two; %d would",
            manifest.domain,
            wanted,
            memory_mb,
            math.ceil(needed / _INTERLEAVED / 1e6),
        )
    if parallel_crops is None:
        # While a patch is cropped from its record, the next record is parsed.
        records = (_COPIES_OF_RECORD + 1) * record if wanted == 1 else 0
        one_crop = one_patch + records
        parallel_crops = _parallel_crops(int(share * _CROPPED / one_crop), num_domains)
    return Buffers(
        shuffled_records=min(max(1, int(share * _SHUFFLED / record)), len(entries)),
        patches_per_volume=wanted,
        num_interleaved_volumes=interleaved,
        # Records that give several patches are large: one is parsed after the other.
        parallel_reads=parallel_crops if wanted == 1 else None,
        parallel_crops=parallel_crops,
    )


def _parallel_crops(fitting: int, num_domains: int) -> int | None:
    # Together the domains keep all cores busy.
    calls = min(max(2, math.ceil(num_cores() / num_domains)), fitting)
    return calls if calls > 1 else None


def num_ready_batches(batch_bytes: int, *, memory_mb: float) -> int:
    """How many batches are kept ready, all domains together: one or two.

    Args:
      batch_bytes: of the largest batch.
      memory_mb: for all domains together.
    """
    return max(1, min(_READY_BATCHES, int(memory_mb * 1e6 * _READY / batch_bytes)))


def _wanted_patches(record_bytes: float) -> int:
    if record_bytes <= _SMALL_RECORD:
        return 1
    return min(_MAX_PATCHES, math.ceil(record_bytes / _BYTES_PER_PATCH))
