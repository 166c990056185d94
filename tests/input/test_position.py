import pytest

from u2net_tf.input.position import Position


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        (0, (0, 0, 0, 0)),
        (4, (0, 4, 4, 0)),
        (5, (1, 0, 5, 0)),
        (13, (2, 3, 13, 0)),
    ],
)
def test_one_patch_of_each_of_five_records(number, expected):
    found = Position.of_patch(
        number, num_records=5, patches_per_volume=1, num_interleaved_volumes=1
    )
    assert found == Position(*expected)


@pytest.mark.parametrize(
    ("number", "expected"),
    [
        # A window is 3 patches of each of 2 records: 6 patches.
        (5, (0, 0, 0, 5)),
        (6, (0, 2, 2, 0)),
        # The third window begins with the last of five records.
        (13, (0, 4, 4, 1)),
        (18, (1, 1, 6, 0)),
    ],
)
def test_interleaved_patches(number, expected):
    found = Position.of_patch(
        number, num_records=5, patches_per_volume=3, num_interleaved_volumes=2
    )
    assert found == Position(*expected)


def test_several_patches_that_are_not_interleaved():
    found = Position.of_patch(
        17, num_records=2, patches_per_volume=4, num_interleaved_volumes=1
    )
    assert found == Position(2, 0, 4, 1)
