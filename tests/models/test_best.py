import math

import pytest

from u2net_tf.models.best import DICE, LOSS, Best, candidate


@pytest.mark.parametrize(
    ("one", "other", "expected"),
    [
        ((DICE, 0.5), None, True),
        ((LOSS, 0.5), None, True),
        ((DICE, 0.6), (DICE, 0.5), True),
        ((DICE, 0.5), (DICE, 0.5), False),
        ((DICE, 0.4), (DICE, 0.5), False),
        ((LOSS, 0.4), (LOSS, 0.5), True),
        ((LOSS, 0.5), (LOSS, 0.5), False),
        ((LOSS, 0.6), (LOSS, 0.5), False),
        # Runs in which validation is switched on or off later.
        ((DICE, 0.1), (LOSS, 0.5), True),
        ((LOSS, 0.1), (DICE, 0.5), False),
    ],
)
def test_beats(one, other, expected):
    assert Best(2, *one).beats(other and Best(1, *other)) == expected


class TestCandidate:
    def candidate(self, dice, **classes):
        return candidate(7, loss_moving_average=0.8, dice=dice, classes=classes)

    def test_without_validation(self):
        assert self.candidate({}) == Best(7, LOSS, 0.8)

    def test_is_the_mean_over_every_defined_dice(self):
        dice = {"a": {"x": 0.5, "y": math.nan}, "b": {"x": 1.0}}
        assert self.candidate(dice, a="xy", b="x") == Best(7, DICE, 0.75)

    def test_is_none_in_an_epoch_without_validation(self):
        assert self.candidate({}, a="x") is None
        assert self.candidate({"a": {"x": math.nan}}, a="x") is None

    def test_is_not_affected_by_test_cases(self):
        dice = {"a": {"x": 0.5}, "ab": {"x": 1.0}}
        assert self.candidate(dice, a="x") == Best(7, DICE, 0.5)
        assert self.candidate(dice) == Best(7, LOSS, 0.8)

    def test_is_not_affected_by_regions(self):
        dice = {"a": {"x": 0.5, "y": 0.25, "whole": 1.0}}
        assert self.candidate(dice, a="xy") == Best(7, DICE, 0.375)
