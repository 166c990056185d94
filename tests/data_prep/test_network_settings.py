import pytest

from data_prep.plan import network_settings


# Median shapes and numbers of cases of the published datasets.
@pytest.mark.parametrize(
    ("task", "median_shape", "num_cases", "agrees"),
    [
        ("Task02_Heart", (115, 320, 232), 20, False),
        ("Task03_Liver", (482, 512, 512), 131, True),
        ("Task04_Hippocampus", (36, 50, 35), 260, True),
        ("Task05_Prostate", (20, 320, 319), 32, True),
        ("Task07_Pancreas", (96, 512, 512), 282, True),
        ("Task09_Spleen", (90, 512, 512), 41, True),
    ],
)
def test_published_rows(task, median_shape, num_cases, agrees):
    found = network_settings.plan_network_settings(median_shape, num_cases=num_cases)
    published = network_settings.PRESETS[task].network
    assert (found == published) == agrees
    if not agrees:
        assert found.patch_size == (128, 128, 128)
        assert found.pools == (5, 5, 5)
        assert found.batch_size == 2


@pytest.mark.parametrize(
    ("median_shape", "patch_size", "pools"),
    [
        # No axis would keep 4 voxels, but at least one is halved.
        ((1, 3, 7), (1, 3, 8), (0, 0, 1)),
        ((3, 7, 5), (3, 8, 5), (0, 1, 0)),
        ((6, 6, 6), (6, 6, 6), (0, 0, 1)),
        ((1, 1, 1), (1, 1, 2), (0, 0, 1)),
        ((4, 8, 9), (4, 8, 10), (0, 1, 1)),
        ((9, 234, 198), (10, 192, 192), (1, 5, 5)),
        ((44, 71, 96), (48, 80, 96), (3, 4, 4)),
        ((128, 128, 128), (128, 128, 128), (5, 5, 5)),
        ((600, 10, 20), (192, 10, 20), (5, 1, 2)),
    ],
)
def test_other_shapes(median_shape, patch_size, pools):
    found = network_settings.plan_network_settings(median_shape, num_cases=100)
    assert found.patch_size == patch_size
    assert found.pools == pools


@pytest.mark.parametrize(
    ("median_shape", "max_patch_voxels", "patch_size", "pools", "batch_size"),
    [
        ((127, 128, 78), 64**3, (64, 64, 64), (4, 4, 4), 2),
        ((32, 128, 128), 64**3, (32, 96, 80), (3, 4, 4), 2),
        ((9, 234, 198), 64**3, (10, 160, 160), (1, 5, 5), 2),
        ((36, 50, 35), 64**3, (40, 56, 40), (3, 3, 3), 5),
        ((127, 128, 78), 16**3, (16, 16, 16), (2, 2, 2), 2),
    ],
)
def test_max_patch_voxels(
    median_shape, max_patch_voxels, patch_size, pools, batch_size
):
    found = network_settings.plan_network_settings(
        median_shape, num_cases=500, max_patch_voxels=max_patch_voxels
    )
    assert found == network_settings.NetworkSettings(patch_size, pools, batch_size)


def test_limits():
    lengths = (1, 5, 17, 31, 63, 90, 127, 129, 200, 700)
    for shape in [(z, y, x) for z in lengths for y in lengths for x in lengths]:
        found = network_settings.plan_network_settings(shape, num_cases=40)
        voxels = 1
        for size, pools, length in zip(
            found.patch_size, found.pools, shape, strict=True
        ):
            voxels *= size
            assert pools <= 5
            assert size % 2**pools == 0
            # A volume without a long axis is still halved once.
            assert pools == 0 or size / 2**pools >= 4 or max(shape) < 8
            assert size <= max(4, 1.25 * length)
        assert found.batch_size >= 2
        assert voxels * found.batch_size <= 2 * 128**3


def test_batch_is_limited_by_budget_and_by_the_number_of_cases():
    shape = (64, 64, 64)
    assert (
        network_settings.plan_network_settings(shape, num_cases=1000).batch_size == 16
    )
    assert network_settings.plan_network_settings(shape, num_cases=100).batch_size == 5
    assert network_settings.plan_network_settings(shape, num_cases=1).batch_size == 2
