"""Buffer sizes of the input pipeline, derived from one memory limit in megabytes.

The domains share the memory equally. An eighth of it is for records that are shuffled
together, half for patches that are interleaved with those of other cases, a quarter for
patches that are being cropped (and their records, if each yields only one patch), and
the last eighth for prefetched batches. In addition, each domain needs a batch and, if a
record yields several patches, the record that they are cropped from (three times its
size while it is parsed, plus the size of the previous record, whose last patches are
still being cropped).

The batches of a domain depend on all sizes but those of parallel calls and prefetched
batches.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Sequence

from absl import logging

from u2net_tf.machine import num_cores
from u2net_tf.plan.domains import Domain
from u2net_tf.shards.manifest import Manifest

_SHUFFLED, _INTERLEAVED, _CROPPED, _PREFETCHED = 1 / 8, 1 / 2, 1 / 4, 1 / 8
# Copies of a record while it is parsed: serialized, as bytes and as numbers.
_COPIES_OF_RECORD = 3
# Copies of interleaved patches: those in use, and the next ones twice.
_COPIES_OF_INTERLEAVED = 3
# Records of at most this many bytes are read once per patch, in a tenth of a second;
# larger ones yield a patch per `_BYTES_PER_PATCH`, but at most `_MAX_PATCHES`.
_SMALL_RECORD = 64e6
_BYTES_PER_PATCH = 64e6
_MAX_PATCHES = 16
_MAX_PREFETCHED = 2


@dataclasses.dataclass(frozen=True)
class Buffers:
    """Buffer sizes of the pipeline of one domain.

    Attributes:
      shuffled_records: records that are shuffled together.
      patches_per_volume: patches cropped each time a record is read.
      num_interleaved_volumes: records whose patches are interleaved.
      parallel_reads: records parsed in parallel; None for one at a time, on demand.
      parallel_crops: patches cropped in parallel; None for one at a time, on demand.
    """

    shuffled_records: int
    patches_per_volume: int
    num_interleaved_volumes: int
    parallel_reads: int | None
    parallel_crops: int | None


def patch_bytes(domain: Domain, size: Sequence[int]) -> int:
    """Returns the bytes of a patch: float32 per modality, one byte for the label."""
    return math.prod(size) * (4 * domain.num_modalities + 1)


def allocate_buffers(
    manifest: Manifest,
    bytes_per_patch: int,
    *,
    cases: Collection[str],
    memory_mb: float,
    num_domains: int,
    patches_per_volume: int | None = None,
    parallel_crops: int | None = None,
) -> Buffers:
    """Divides the memory of one domain among its buffers.

    Args:
      manifest: manifest of the domain.
      bytes_per_patch: bytes of a patch as passed to the network.
      cases: the cases that are read.
      memory_mb: memory of all domains together.
      num_domains: number of domains that share the memory.
      patches_per_volume: patches to crop each time a record is read. If None, chosen by
        the size of the records, and lowered to as few as two if the patches of two
        volumes would not fit. If even those do not fit, or not the requested number, a
        warning reports the memory that they need.
      parallel_crops: patches to crop in parallel, regardless of the memory they need;
        chosen if None.
    """
    entries = manifest.entries(cases)
    domain_bytes = memory_mb * 1e6 / num_domains
    bytes_per_record = sum(entry.num_bytes for entry in entries) / len(entries)
    num_fitting = int(
        domain_bytes * _INTERLEAVED / (_COPIES_OF_INTERLEAVED * bytes_per_patch)
    )
    num_patches = patches_per_volume or _choose_patches_per_volume(bytes_per_record)
    if (
        patches_per_volume is None
        and len(entries) > 1
        and 4 <= num_fitting < 2 * num_patches
    ):
        num_patches = min(num_patches, num_fitting // 2)
    interleaved = 1
    if num_patches > 1:
        interleaved = max(1, min(num_fitting // num_patches, len(entries)))
    if interleaved == 1 and num_patches > 1 and len(entries) > 1:
        min_patches = 2 * (num_patches if patches_per_volume else 2)
        needed = num_domains * min_patches * _COPIES_OF_INTERLEAVED * bytes_per_patch
        logging.warning(
            "%s: patches are not interleaved, so %d in a row are from the same volume. "
            "`input_memory_mb`=%g is too small for the patches of two volumes; "
            "%d would suffice",
            manifest.domain,
            num_patches,
            memory_mb,
            math.ceil(needed / _INTERLEAVED / 1e6),
        )
    if parallel_crops is None:
        # While a patch is cropped from its record, the next record is parsed.
        records = (_COPIES_OF_RECORD + 1) * bytes_per_record if num_patches == 1 else 0
        bytes_per_crop = bytes_per_patch + records
        parallel_crops = _parallel_crops(
            int(domain_bytes * _CROPPED / bytes_per_crop), num_domains
        )
    return Buffers(
        shuffled_records=min(
            max(1, int(domain_bytes * _SHUFFLED / bytes_per_record)), len(entries)
        ),
        patches_per_volume=num_patches,
        num_interleaved_volumes=interleaved,
        # Records that yield several patches are large: they are parsed one at a time.
        parallel_reads=parallel_crops if num_patches == 1 else None,
        parallel_crops=parallel_crops,
    )


def _parallel_crops(num_fitting: int, num_domains: int) -> int | None:
    # All domains together keep all cores busy.
    num_calls = min(max(2, math.ceil(num_cores() / num_domains)), num_fitting)
    return num_calls if num_calls > 1 else None


def num_prefetched_batches(batch_bytes: int, *, memory_mb: float) -> int:
    """Returns how many batches to prefetch for all domains together: one or two.

    Args:
      batch_bytes: bytes of the largest batch.
      memory_mb: memory of all domains together.
    """
    return max(
        1, min(_MAX_PREFETCHED, int(memory_mb * 1e6 * _PREFETCHED / batch_bytes))
    )


def _choose_patches_per_volume(record_bytes: float) -> int:
    if record_bytes <= _SMALL_RECORD:
        return 1
    return min(_MAX_PATCHES, math.ceil(record_bytes / _BYTES_PER_PATCH))
