"""Buffers stay within the memory limit; expected sizes are derived by hand."""

import pytest
from test_pipeline import DOMAINS, make_entry

from u2net_tf.input import buffers, pipeline
from u2net_tf.shards import manifest


def make_manifest(num_bytes, cases=6):
    return manifest.Manifest(
        domain="Task90_Organ",
        plan_hash="-",
        image_dtype="float16",
        compression="none",
        cases=tuple(make_entry(f"c_{i}", "train", "", num_bytes) for i in range(cases)),
        skipped={},
    )


def allocate(record_mb, patch_mb, memory_mb, num_domains=1, cases=6, **options):
    return buffers.allocate_buffers(
        make_manifest(int(record_mb * 1e6), cases),
        int(patch_mb * 1e6),
        cases=[f"c_{i}" for i in range(cases)],
        memory_mb=memory_mb,
        num_domains=num_domains,
        **options,
    )


@pytest.fixture(autouse=True)
def eight_cores(monkeypatch):
    monkeypatch.setattr(buffers, "num_cores", lambda: 8)


def test_bytes_of_a_patch():
    assert buffers.patch_bytes(DOMAINS[1], (2, 3, 4)) == 24 * (2 * 4 + 1)


@pytest.mark.parametrize(
    ("memory_mb", "num_domains", "shuffled", "calls"),
    [
        # An eighth of 800 MB is enough for ten records of 10 MB; there are six.
        (800, 1, 6, 4),
        (400, 1, 5, 2),
        (400, 2, 2, None),
        (8, 1, 1, None),
        (80_000, 1, 6, 8),
        (80_000, 4, 6, 2),
        (80_000, 50, 6, 2),
    ],
)
def test_small_records(memory_mb, num_domains, shuffled, calls):
    # A patch of 10 MB and four times its record: as many times 50 MB as fit a quarter.
    found = allocate(10, 10, memory_mb, num_domains)
    assert found == buffers.Buffers(shuffled, 1, 1, calls, calls)


@pytest.mark.parametrize(
    ("record_mb", "per_volume"), [(63, 1), (65, 2), (550, 9), (5000, 16)]
)
def test_more_patches_are_cropped_from_large_records(record_mb, per_volume):
    assert allocate(record_mb, 1, 2000).patches_per_volume == per_volume


@pytest.mark.parametrize(
    ("memory_mb", "num_domains", "expected"),
    [
        # Half of it, for three copies of patches of 10 MB: 33, 16, 8 and 1 patches.
        (2000, 1, (9, 3)),
        (1000, 1, (8, 2)),
        (2000, 4, (4, 2)),
        # Not even two patches of each of two volumes: one volume after the other.
        (2000, 33, (9, 1)),
    ],
)
def test_patches_of_two_volumes_are_interleaved_if_they_fit(
    memory_mb, num_domains, expected
):
    found = allocate(550, 10, memory_mb, num_domains)
    assert (found.patches_per_volume, found.num_interleaved_volumes) == expected


@pytest.mark.parametrize(
    ("memory_mb", "requested", "needed"),
    [
        # Three copies of four patches of 10 MB, in half of the memory of 33 domains.
        (2000, None, 7920),
        # Twice twelve, likewise.
        (30_000, 12, 47_520),
    ],
)
def test_a_warning_names_the_memory_needed_to_interleave(
    caplog, memory_mb, requested, needed
):
    options = {"num_domains": 33, "patches_per_volume": requested}
    found = allocate(550, 10, memory_mb, **options)
    assert found.num_interleaved_volumes == 1
    (warning,) = caplog.messages
    assert f"so {found.patches_per_volume} in a row are from the same vol" in warning
    assert f"`input_memory_mb`={memory_mb:g} is" in warning
    assert f"; {needed} would" in warning
    assert allocate(550, 10, needed - 1, **options).num_interleaved_volumes == 1
    caplog.clear()
    assert allocate(550, 10, needed, **options).num_interleaved_volumes == 2
    # There is nothing to interleave with one case, or with one patch per case.
    allocate(550, 10, memory_mb, cases=1, **options)
    allocate(10, 10, memory_mb, num_domains=33)
    assert not caplog.messages


def test_requested_patches_per_volume_are_kept():
    found = allocate(550, 10, 1000, patches_per_volume=12)
    assert (found.patches_per_volume, found.num_interleaved_volumes) == (12, 1)
    assert allocate(550, 10, 1000, patches_per_volume=1).patches_per_volume == 1
    # No more volumes than there are.
    assert allocate(1, 1, 10_000, patches_per_volume=2).num_interleaved_volumes == 6


@pytest.mark.parametrize(("memory_mb", "ready"), [(1, 1), (159, 1), (161, 2), (1e6, 2)])
def test_ready_batches(memory_mb, ready):
    assert buffers.num_prefetched_batches(10_000_000, memory_mb=memory_mb) == ready


def test_tf_data_adds_no_prefetching():
    options = pipeline._options()
    assert options.autotune.enabled is False
    assert options.experimental_optimization.map_parallelization is False
    assert options.experimental_optimization.inject_prefetch is False
    assert options.experimental_optimization.parallel_batch is False


@pytest.mark.parametrize(("per_volume", "reads"), [(1, 3), (2, None)])
def test_requested_parallel_crops_are_kept(per_volume, reads):
    options = {"patches_per_volume": per_volume, "parallel_crops": 3}
    found = allocate(10, 10, 8, **options)
    assert (found.parallel_reads, found.parallel_crops) == (reads, 3)


@pytest.mark.parametrize(("memory_mb", "crops"), [(399, None), (401, 2), (601, 3)])
def test_parallel_crops_are_limited_by_the_memory(monkeypatch, memory_mb, crops):
    monkeypatch.setattr(buffers, "num_cores", lambda: 8)
    # A quarter is for patches: per call, one of 10 MB and four times a record of 10 MB.
    assert allocate(10, 10, memory_mb).parallel_crops == crops


def test_large_records_are_parsed_one_at_a_time():
    found = allocate(550, 10, 2000)
    assert found.parallel_reads is None
    assert found.parallel_crops == 8
