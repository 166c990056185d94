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
        expected = f"{SUMMARY}; Dice: a/x 0.500, a/y –, b/x 1.000"
        assert EpochMetrics(**METRICS, dice=dice).summary() == expected

    def test_with_compiling(self):
        message = EpochMetrics(**METRICS, seconds_compiling=75.0).summary()
        assert message == f"{SUMMARY}, 1 min 15 s of compilation"


class TestTotals:
    @pytest.fixture(params=[0, 1, 3], ids="stopped after {}".format)
    def totals(self, request):
        """Totals of three steps, which two processes may have taken."""
        totals = EpochTotals(["a", "b", "c"])
        for number, (domain, loss, waiting, computing) in enumerate(
            (("a", 1.0, 0.5, 1.5), ("b", 2.0, 0.0, 1.0), ("a", 6.0, 0.5, 0.5)), start=1
        ):
            totals.add(
                domain,
                loss,
                seconds_waiting=waiting,
                seconds_computing=computing,
                compiled=number < 3,
                skipped=int(number == 2),
            )
            if number == request.param:
                totals = EpochTotals(["a", "b", "c"], totals.to_partial())
        return totals

    def test_counts(self, totals):
        assert totals.num_steps == 3
        assert totals.skipped_steps == 1
        assert totals.seconds_compiling == 2.5
        assert totals.loss_so_far() == 3.0

    def test_losses(self, totals):
        assert totals.loss() == 3.0
        by_domain = totals.loss_by_domain()
        assert math.isnan(by_domain.pop("c"))
        assert by_domain == {"a": 3.5, "b": 2.0}

    def test_durations(self, totals):
        assert totals.seconds_per_step() == pytest.approx(4 / 3)
        assert totals.input_wait_share() == 0.25
