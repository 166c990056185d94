"""Who reads and writes the folder of a run, and when."""

import pytest
import toy
from simulated_workers import Simulated

from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.run_state import RunState
from u2net_tf.training import run_folder
from u2net_tf.training.run_folder import open_run_folder
from u2net_tf.training.step import Trainer


@pytest.fixture
def open_folder(monkeypatch, make_config, tmp_path):
    """Opens a folder as one of three workers; also returns what happened in order."""

    def make(index):
        workers, events = Simulated(index, [[[0], [0]]]), []

        class Recorded(Checkpoints):
            def __init__(self, *arguments, **options):
                events.append(("waited", len(workers.calls)))
                super().__init__(*arguments, **options)

        monkeypatch.setattr(run_folder, "Checkpoints", Recorded)
        spec, network = toy.make_model()
        trainer = Trainer(network, learning_rate=0.1, weight_decay=0.0)
        config = make_config(tmp_path / "model")
        opened = open_run_folder(trainer, spec, spec.plan, config, {}, workers)
        return opened, events, workers

    return make


@pytest.mark.parametrize(
    ("index", "before"),
    [(0, 0), (1, 1), pytest.param(2, 1, marks=pytest.mark.slow)],
)
def test_the_chief_removes_leftovers_before_others_read(index, before, open_folder):
    _, events, workers = open_folder(index)
    assert events == [("waited", before)]
    assert len(workers.calls) == 1


@pytest.mark.parametrize("index", [0, 1])
def test_only_the_chief_writes(index, open_folder, tmp_path):
    folder, _, _ = open_folder(index)
    with folder.logging_epochs(0, None):
        folder.save(RunState(step=3, schedule=None, logs=None))
        folder.log({"epoch": 1, "step": 3, "loss": 0.5})
    assert folder.saved_step == 3
    written = {path.name for path in (tmp_path / "model").glob("*")}
    if index == 0:
        assert {"checkpoints", "training.csv", "tensorboard"} <= written
    else:
        assert not written
