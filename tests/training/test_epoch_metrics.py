import math

import pytest

from u2net_tf.training.epoch_metrics import EpochMetrics, EpochTotals

METRICS = {
    "epoch": 2,
    "step": 10,
    "loss": 0.5,
    "loss_moving_average": 0.25,
    "learning_rate": 3e-4,
    "seconds_per_step": 1.5,
    "input_wait_share": 0.125,
    "loss_by_domain": {"a": 0.5},
}
SUMMARY = (
    "step 10, loss 0.5000 (moving average 0.2500), learning rate 0.0003, 1.50 s per "
    "step, 12 % of it waiting for data"
)


class TestSummary:
    def test_without_validation(self):
        assert EpochMetrics(**METRICS).summary() == SUMMARY

    def test_with_validation(self):
        dice = {"a": {"x": 0.5, "y": math.nan}, "b": {"x": 1.0}}
        expected = f"{SUMMARY}; Dice: a/x 0.500, a/y nan, b/x 1.000"
        assert EpochMetrics(**METRICS, dice=dice).summary() == expected


class TestTotals:
    @pytest.fixture
    def totals(self):
        totals = EpochTotals(["a", "b", "c"])
        for domain, loss, waiting, computing in (
            ("a", 1.0, 0.5, 1.5),
            ("b", 2.0, 0.0, 1.0),
            ("a", 6.0, 0.5, 0.5),
        ):
            totals.add(
                domain, loss, seconds_waiting=waiting, seconds_computing=computing
            )
        return totals

    def test_losses(self, totals):
        assert totals.loss() == 3.0
        by_domain = totals.loss_by_domain()
        assert math.isnan(by_domain.pop("c"))
        assert by_domain == {"a": 3.5, "b": 2.0}

    def test_durations(self, totals):
        assert totals.seconds_per_step() == pytest.approx(4 / 3)
        assert totals.input_wait_share() == 0.25
