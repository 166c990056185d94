"""What workers tell each other; here, the others are simulated."""

import json

import pytest
import tensorflow as tf
from simulated_workers import ADDRESSES, Simulated

from u2net_tf.config.training import AdaptConfig, TrainConfig
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.training import adaptation, runs
from u2net_tf.training.stop_requests import StopRequested, StopRequests
from u2net_tf.training.workers import Workers


def texts(*values):
    """Results of the two calls by which the others exchange values."""
    encoded = [json.dumps(value).encode() for value in values]
    longest = 1000
    return [
        [[longest] for _ in encoded],
        [list(each.ljust(longest)) for each in encoded],
    ]


class TestAlone:
    def test_gathers_its_own_values(self):
        assert Workers().gather([3, 4]).tolist() == [[3, 4]]

    def test_exchanges_its_own_value(self):
        assert Workers().exchange({"a": "µ"}) == [{"a": "µ"}]

    def test_agrees_with_itself(self):
        Workers().require_same({"a": 1}, {})

    def test_is_the_chief(self):
        with Workers().chief_first():
            assert Workers().is_chief

    def test_its_errors_are_its_own(self):
        error = tf.errors.UnavailableError(
            None, None, "Collective ops is aborted by: x"
        )
        with pytest.raises(tf.errors.UnavailableError), Workers().reporting_lost():
            raise error


def test_exchanges_texts_of_different_lengths():
    workers = Simulated(1, texts("é", [1] * 99))
    assert workers.exchange({"a": 1}) == ["é", {"a": 1}, [1] * 99]


class TestRequireSame:
    def test_equal(self):
        facts = {"`seed`": "3", "step": 4}
        Simulated(0, texts(facts, facts)).require_same(facts, {})

    @pytest.mark.parametrize("index", [0, 1, 2])
    def test_every_worker_names_the_first_that_differs(self, index):
        facts = [{"seed": 3}, {"seed": 3}, {"seed": 4}]
        own = facts.pop(index)
        with pytest.raises(
            InputError,
            match=r"^worker 2 \(three:1\): seed: expected 3, as worker 0 \(one:1\). "
            r"Received: 4. Use one seed$",
        ):
            Simulated(index, texts(*facts)).require_same(own, {"seed": "Use one seed"})

    def test_a_fact_that_another_version_does_not_know(self):
        with pytest.raises(InputError, match=r"new: expected 1, .*Received: None"):
            Simulated(0, texts({}, {})).require_same({"new": 1}, {})

    def test_a_fact_that_the_chief_does_not_know(self):
        with pytest.raises(InputError, match=r"new: expected None, .*Received: 1"):
            Simulated(1, texts({}, {})).require_same({"new": 1}, {})


class TestLost:
    @pytest.mark.parametrize(
        "kind",
        [
            tf.errors.UnavailableError,
            tf.errors.AbortedError,
            tf.errors.CancelledError,
            tf.errors.InternalError,
        ],
    )
    def test_is_reported(self, kind):
        error = kind(None, None, "Collective ops is aborted by: Connection reset")
        with (
            pytest.raises(StoppedError, match=r"^worker 1 \(two:1\): another worker"),
            Simulated(1).reporting_lost(),
        ):
            raise error

    @pytest.mark.parametrize(
        "error",
        [
            tf.errors.InternalError(None, None, "another error"),
            tf.errors.ResourceExhaustedError(
                None, None, "Collective ops is aborted by"
            ),
            ValueError("Collective ops is aborted by"),
        ],
    )
    def test_other_errors_are_not(self, error):
        with pytest.raises(type(error)), Simulated(1).reporting_lost():
            raise error

    def test_clusters_of_different_sizes(self):
        error = tf.errors.InternalError(
            None,
            None,
            "Collective ops is aborted by: Device is joining a group with size3, but "
            "that group has size 2",
        )
        with (
            pytest.raises(InputError, match="^TF_CONFIG: expected the same workers"),
            Simulated(1).reporting_lost(),
        ):
            raise error


class TestLostBeforeTheFirstStep:
    """Another worker may end while this one still creates its variables."""

    @pytest.fixture(autouse=True)
    def lost(self, monkeypatch):
        def build(*arguments, **options):
            text = "Collective ops is aborted by: Connection reset"
            raise tf.errors.UnavailableError(None, None, text)

        config = {
            "cluster": {"worker": ADDRESSES},
            "task": {"type": "worker", "index": 1},
        }
        monkeypatch.setenv("TF_CONFIG", json.dumps(config))
        for module in (runs, adaptation):
            monkeypatch.setattr(module, "make_strategy", build)

    @pytest.mark.parametrize("train", [runs.train, runs.train_independently])
    def test_when_training(self, train, tiny_data, tmp_path):
        config = TrainConfig.from_flat(
            {"data_dir": str(tiny_data.data_dir), "model_dir": str(tmp_path / "model")}
        )
        with pytest.raises(StoppedError, match=r"^worker 1 \(two:1\): another worker"):
            train(config)

    def test_when_adapting(self, tiny_data, tmp_path):
        config = AdaptConfig.from_flat(
            {
                "from_": str(tmp_path / "parent"),
                "domain": tiny_data.plan.names[0],
                "data_dir": str(tiny_data.data_dir),
                "model_dir": str(tmp_path / "model"),
            }
        )
        with pytest.raises(StoppedError, match=r"^worker 1 \(two:1\): another worker"):
            adaptation.adapt(config)


class TestOrder:
    def test_the_chief_lets_others_run_after_it(self):
        workers = Simulated(0, [[[0], [0]]])
        with workers.chief_first():
            assert workers.calls == []
        assert workers.calls == [[0]]

    def test_others_wait_for_the_chief(self):
        workers = Simulated(2, [[[0], [0]]])
        with workers.chief_first():
            assert workers.calls == [[0]]
        assert workers.calls == [[0]]


class TestStopRequests:
    def stop_now(self):
        clock = iter([0.0, 100.0, 100.0, 100.0]).__next__
        return StopRequests(1.0, clock=clock)

    def test_none(self):
        StopRequests().check_all(Simulated(0, [[[0], [0]]]))
        StopRequests().check_all(Workers())

    def test_its_own(self):
        workers = Simulated(1, [[[0], [143]]])
        with pytest.raises(StopRequested, match="^`max_minutes`=1$") as error:
            self.stop_now().check_all(workers)
        assert error.value.exit_status == 75
        assert workers.calls == [[75]]

    def test_that_of_another_worker(self):
        with pytest.raises(StopRequested, match=r"^worker 2 \(three:1\)$") as error:
            StopRequests().check_all(Simulated(1, [[[0], [143]]]))
        assert error.value.exit_status == 143

    def test_its_own_may_be_ignored(self):
        workers = Simulated(0, [[[0], [0]]])
        self.stop_now().check_all(workers, ignore_own=True)
        assert workers.calls == [[0]]

    def test_alone(self):
        with pytest.raises(StopRequested, match="max_minutes"):
            self.stop_now().check_all(Workers())
