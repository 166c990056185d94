import dataclasses
import json

import pytest

from u2net_tf.config.training import OptimizerConfig, RunningConfig, ScheduleConfig
from u2net_tf.models.run_state import (
    RunState,
    ScheduleState,
    state_from_json,
    state_to_json,
)
from u2net_tf.training import schedule

# Checks every second epoch; without decay, the moving average is the last loss.
RULE = RunningConfig.from_flat(
    {
        "data_dir": "a",
        "model_dir": "b",
        "learning_rate": 1.0,
        "patience_epochs": 2,
        "plateau_min_delta": 0.1,
        "plateau_factor": 0.25,
        "min_learning_rate": 0.2,
        "loss_ema_decay": 0.0,
    }
)


def run(losses, state=None, learning_rate=1.0, **changes):
    """Returns the states after each of the losses."""
    rule = RULE.with_changes(learning_rate=learning_rate, **changes)
    state = state or schedule.initial_state(learning_rate)
    states = []
    for loss in losses:
        state = schedule.advance(rule, state, loss)
        states.append(state)
    return states


def rates(losses, **changes):
    return [state.learning_rate for state in run(losses, **changes)]


class TestLearningRate:
    def test_starts_with_the_initial_one(self):
        assert schedule.initial_state(1.0) == ScheduleState(learning_rate=1.0)

    def test_is_not_reduced_at_the_first_check(self):
        # There is no earlier average to compare with.
        assert rates([5.0, 5.0]) == [1.0, 1.0]

    def test_is_reduced_at_a_check_without_enough_decrease(self):
        assert rates([5.0, 5.0, 5.0, 5.0]) == [1.0, 1.0, 1.0, 0.25]

    def test_is_kept_after_enough_decrease(self):
        assert rates([5.0, 5.0, 5.0, 4.75]) == [1.0, 1.0, 1.0, 1.0]

    def test_is_reduced_when_the_loss_increased(self):
        assert rates([5.0, 5.0, 5.0, 6.0])[-1] == 0.25

    def test_each_check_compares_with_the_previous_one(self):
        # 5 → 4 is a decrease; 4 → 4.5 is not, although 4.5 is below the first average.
        assert rates([5, 5, 4, 4, 4.5, 4.5]) == [1.0] * 5 + [0.25]

    def test_losses_between_two_checks_do_not_count_without_an_average(self):
        assert rates([5.0, 5.0, 0.0, 5.0])[-1] == 0.25


class TestEnd:
    def test_is_reached_once_the_rate_is_below_the_minimum(self):
        states = run([5.0] * 6)
        assert [s.learning_rate for s in states] == [1.0, 1.0, 1.0, 0.25, 0.25, 0.0625]
        assert [s.finished for s in states] == [False] * 5 + [True]

    def test_is_not_reached_at_the_minimum_itself(self):
        assert not run([5.0] * 4, min_learning_rate=0.25)[-1].finished


class TestEveryFieldMatters:
    LOSSES = (5.0, 5.0, 4.75, 4.75)

    def test_learning_rate(self):
        assert rates(self.LOSSES, learning_rate=2.0)[0] == 2.0

    def test_patience_epochs(self):
        assert rates(self.LOSSES, patience_epochs=1) == [1.0, 0.25, 0.25, 0.0625]

    def test_min_delta(self):
        assert rates(self.LOSSES, plateau_min_delta=0.25)[-1] == 1.0
        assert rates(self.LOSSES, plateau_min_delta=0.26)[-1] == 0.25

    def test_factor(self):
        assert rates([5.0] * 4, plateau_factor=0.5)[-1] == 0.5

    def test_min_learning_rate(self):
        assert run([5.0] * 4, min_learning_rate=0.5)[-1].finished

    def test_decay(self):
        averages = [s.moving_average for s in run([4.0, 8.0, 0.0], loss_ema_decay=0.75)]
        # 4; then 3/4 of 4 plus 1/4 of 8; then 3/4 of 5.
        assert averages == [4.0, 5.0, 3.75]
        # The average falls too little, although the decrease of the loss is enough.
        assert rates([4.5, 4.5, 4.5, 4.25], loss_ema_decay=0.75)[-1] == 0.25
        assert rates([4.5, 4.5, 4.5, 4.25])[-1] == 1.0


# The mean of three epochs, checked after each epoch, as in the published code.
WINDOW = {"loss_window_epochs": 3, "patience_epochs": 1}


class TestWindow:
    LOSSES = (6.0, 3.0, 3.0, 0.0, 6.0, 3.0)
    # 6; 9/2; 12/3; from then on, the oldest loss is dropped: 6/3, 9/3, 9/3.
    MEANS = (6.0, 4.5, 4.0, 2.0, 3.0, 3.0)

    def test_the_average_is_the_mean_of_the_window(self):
        states = run(self.LOSSES, **WINDOW)
        assert tuple(s.moving_average for s in states) == self.MEANS
        assert states[1].window == (6.0, 3.0)
        assert states[-1].window == (0.0, 6.0, 3.0)

    def test_decay_has_no_effect(self):
        states = run(self.LOSSES, loss_ema_decay=0.5, **WINDOW)
        assert tuple(s.moving_average for s in states) == self.MEANS

    def test_is_checked_once_it_is_full(self):
        # The window is full at the third epoch, the first check. 4 → 2 is a decrease;
        # 2 → 3 and 3 → 3 are not.
        expected = [1.0, 1.0, 1.0, 1.0, 0.25, 0.0625]
        assert rates(self.LOSSES, **WINDOW) == expected
        # Before that, growing losses have no effect.
        assert rates([1.0, 2.0, 9.0], **WINDOW) == [1.0] * 3

    def test_is_checked_every_patience_epochs(self):
        # At the second epoch, the window is not full; the fourth is the first check; at
        # the sixth, the mean has risen from 2 to 3.
        rule = {**WINDOW, "patience_epochs": 2}
        assert rates(self.LOSSES, **rule) == [1.0] * 5 + [0.25]
        states = run(self.LOSSES, **rule)
        assert [s.reference for s in states] == [None] * 3 + [2.0, 2.0, 3.0]

    @pytest.mark.parametrize(("plateau_min_delta", "rate"), [(0.5, 1.0), (0.51, 0.25)])
    def test_min_delta(self, plateau_min_delta, rate):
        # The means are 4 and then 3.5.
        losses = [4.0, 4.0, 4.0, 2.5]
        assert rates(losses, plateau_min_delta=plateau_min_delta, **WINDOW)[-1] == rate

    def test_consecutive_windows_are_compared_if_patience_is_their_length(self):
        rule = {"loss_window_epochs": 2, "patience_epochs": 2}
        assert rates([9.0, 1.0, 4.0, 5.0, 1.0, 8.1], **rule) == [1.0] * 5 + [0.25]

    def test_the_exponential_average_has_none(self):
        assert {state.window for state in run(self.LOSSES)} == {()}

    def test_the_published_rule_by_hand(self):
        rule = {
            "loss_window_epochs": 20,
            "patience_epochs": 1,
            "plateau_min_delta": 1e-4,
        }
        # The loss falls by 0.1 per epoch for 40 epochs and then stays: the mean of 20
        # falls for 19 more epochs, by 0.095, 0.09, …, 0.005, and not in the 20th.
        losses = [5.0 - 0.1 * min(epoch, 39) for epoch in range(60)]
        states = run(losses, plateau_factor=0.5, **rule)
        assert states[19].moving_average == pytest.approx(5.0 - 0.95)
        assert [s.learning_rate for s in states[:59]] == [1.0] * 59
        assert states[59].learning_rate == 0.5


def test_the_paper_s_rule_is_the_default():
    rule = ScheduleConfig()
    assert (rule.patience_epochs, rule.plateau_min_delta) == (30, 5e-4)
    assert (rule.plateau_factor, rule.min_learning_rate) == (0.2, 1e-8)
    assert rule.loss_window_epochs == 0
    learning_rate = OptimizerConfig().learning_rate
    assert learning_rate == 3e-4
    # 3e-4 / 5⁶ is above 1e-8 and 3e-4 / 5⁷ below: a first check and seven reductions.
    states = run([1.0] * 250, learning_rate=learning_rate, **rule.flat())
    assert [s.finished for s in states].index(True) + 1 == 30 * 8


class TestResume:
    @pytest.mark.parametrize("changes", [{"loss_ema_decay": 0.5}, WINDOW])
    def test_equals_an_uninterrupted_run(self, changes):
        losses = [5.0, 4.0, 4.5, 3.0, 3.2, 3.1, 3.3]
        uninterrupted = run(losses, **changes)
        for stop in range(1, len(losses)):
            text = state_to_json(RunState(schedule=uninterrupted[stop - 1]))
            rule = RULE.with_changes(**changes)
            state = schedule.resumed(rule, state_from_json(text, "-").schedule)
            assert state == uninterrupted[stop - 1]
            assert run(losses[stop:], state, **changes) == uninterrupted[stop:]

    def test_a_run_of_a_version_without_windows(self):
        state = run([5.0, 5.0, 4.0])[-1]
        fields = dataclasses.asdict(state)
        del fields["window"]
        old = {"state": {"step": 3, "schedule": fields, "row": None}, "run": {}}
        saved = state_from_json(json.dumps(old), "-").schedule
        assert schedule.resumed(RULE, saved) == state

    def test_another_kind_of_average_starts_with_a_first_check(self):
        exponential = run([5.0, 5.0, 5.0])[-1]
        window = RULE.with_changes(**WINDOW)
        state = schedule.resumed(window, exponential)
        # The losses have grown: compared with earlier ones, they would reduce the rate.
        states = run([9.0, 9.0, 9.0, 9.0], state, **WINDOW)
        assert [s.learning_rate for s in states] == [1.0, 1.0, 1.0, 0.25]
        state = schedule.resumed(RULE, states[2])
        assert state.reference is None
        assert run([99.0, 99.0], state)[-1].window == ()

    def test_the_end_is_recomputed_from_the_rule(self):
        saved = run([5.0] * 6)[-1]
        assert schedule.resumed(RULE, saved).finished
        lower = RULE.with_changes(min_learning_rate=0.01)
        assert not schedule.resumed(lower, saved).finished
        assert schedule.resumed(lower, saved).learning_rate == 0.0625


class TestPolynomial:
    RULE = {"learning_rate_schedule": "polynomial", "max_epochs": 4}
    # (1 - epochs / 4) ** 0.9
    RATES = (1.0, 0.75**0.9, 0.5**0.9, 0.25**0.9, 0.0)

    def test_the_rate_after_each_epoch(self):
        # Not that of plateaus, even if the loss rises.
        assert rates([1.0, 5.0, 9.0, 9.0], **self.RULE) == pytest.approx(self.RATES[1:])

    def test_power_and_initial_rate(self):
        found = rates([1.0] * 3, learning_rate=8.0, polynomial_power=2.0, **self.RULE)
        assert found == [4.5, 2.0, 0.5]

    def test_ends_after_the_last_epoch(self):
        # The rate falls below `min_learning_rate` before.
        states = run([1.0] * 4, min_learning_rate=0.9, **self.RULE)
        assert [s.finished for s in states] == [False, False, False, True]
        assert states[-1].learning_rate == 0

    def test_the_average_of_the_loss_is_logged_as_before(self):
        states = run([4.0, 8.0, 0.0], loss_ema_decay=0.75, **self.RULE)
        assert [s.moving_average for s in states] == [4.0, 5.0, 3.75]

    def test_a_resumed_run_is_the_same(self):
        uninterrupted = run([1.0] * 4, **self.RULE)
        for stop in (1, 2, 3):
            state = schedule.resumed(
                RULE.with_changes(**self.RULE), uninterrupted[stop - 1]
            )
            assert state == uninterrupted[stop - 1]
            assert run([1.0] * (4 - stop), state, **self.RULE) == uninterrupted[stop:]

    def test_a_resumed_run_with_other_settings(self):
        saved = run([1.0] * 2, **self.RULE)[-1]
        longer = RULE.with_changes(**self.RULE | {"max_epochs": 8})
        state = schedule.resumed(longer, saved)
        assert state.learning_rate == 0.75**0.9
        # A run that had ended continues.
        ended = run([1.0] * 4, **self.RULE)[-1]
        assert schedule.resumed(longer, ended).learning_rate == 0.5**0.9
        assert not schedule.resumed(longer, ended).finished
        shorter = RULE.with_changes(**self.RULE | {"max_epochs": 1})
        assert schedule.resumed(shorter, saved).finished
        # From plateaus.
        other = run([5.0] * 4)[-1]
        state = schedule.resumed(longer, other)
        assert (state.learning_rate, state.finished) == (0.5**0.9, False)

    def test_needs_an_end(self):
        with pytest.raises(ValueError, match="`max_epochs`: expected a number of epo"):
            RULE.with_changes(learning_rate_schedule="polynomial")

    def test_settings_without_effect_are_logged(self, caplog):
        caplog.set_level("INFO", logger="absl")
        polynomial = RULE.with_changes(**self.RULE, polynomial_power=2.0)
        schedule.warn_of_unused_settings(polynomial.schedule)
        (message,) = caplog.messages
        assert message == (
            "without effect with `learning_rate_schedule`=polynomial: "
            "`patience_epochs`=2, `plateau_min_delta`=0.1, `plateau_factor`=0.25, "
            "`min_learning_rate`=0.2"
        )
        caplog.clear()
        plateaus = ScheduleConfig(polynomial_power=2.0)
        schedule.warn_of_unused_settings(plateaus)
        assert caplog.messages == [
            "`polynomial_power`=2 has no effect with `learning_rate_schedule`=plateau"
        ]
        caplog.clear()
        schedule.warn_of_unused_settings(ScheduleConfig())
        assert caplog.messages == []


class TestErrors:
    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("min_learning_rate", 0.0),
            ("patience_epochs", 0),
            ("plateau_factor", 1.0),
            ("loss_ema_decay", 1.0),
            ("loss_ema_decay", -0.1),
            ("loss_window_epochs", -1),
            ("polynomial_power", 0.0),
        ],
    )
    def test_name_the_field_out_of_range(self, name, value):
        with pytest.raises(ValueError, match=rf"(?s){name}.*input_value={value}"):
            RULE.with_changes(**{name: value})

    @pytest.mark.parametrize("rate", [0.1, float("nan")])
    def test_a_rate_below_the_last(self, rate):
        values = {"data_dir": "a", "model_dir": "b", "min_learning_rate": 0.2}
        with pytest.raises(ValueError, match="learning_rate"):
            RunningConfig.from_flat({**values, "learning_rate": rate})
        assert RunningConfig.from_flat({**values, "learning_rate": 0.2})
