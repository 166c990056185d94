import csv
import dataclasses
import math

import pytest
import tensorflow as tf
import toy
from tensorboard.backend.event_processing import event_accumulator

from u2net_tf.domains import Plan
from u2net_tf.training import monitor
from u2net_tf.training.monitor import Monitor

COLUMNS = [
    "epoch",
    "step",
    "loss",
    "loss_moving_average",
    "learning_rate",
    "seconds_per_step",
    "input_wait_share",
    "loss/Task91_One",
    "loss/Task92_Two",
    "dice/Task91_One/organ",
    "dice/Task92_Two/rim",
    "dice/Task92_Two/core",
]
# What each column is called in TensorBoard.
TAGS = {
    "loss": "loss/all",
    "loss_moving_average": "loss/moving_average",
    "learning_rate": "run/learning_rate",
    "seconds_per_step": "run/seconds_per_step",
    "input_wait_share": "run/input_wait_share",
    **{name: name for name in COLUMNS[7:]},
}


def make_row(epoch, **changes):
    row = {name: epoch + i / 16 for i, name in enumerate(COLUMNS[2:])}
    return {"epoch": epoch, "step": 10 * epoch, **row, **changes}


def write(folder, *rows, first_step=0):
    told = Monitor(folder, toy.PLAN, first_step=first_step)
    for row in rows:
        told.write(row)
    told.close()
    return told


def read(folder):
    with (folder / "training.csv").open(newline="") as stream:
        return list(csv.reader(stream))


def scalars(folder):
    """Tag -> [(step, value), …]."""
    events = event_accumulator.EventAccumulator(
        str(folder / "tensorboard"), size_guidance={event_accumulator.TENSORS: 0}
    )
    events.Reload()
    return {
        tag: [
            (event.step, float(tf.make_ndarray(event.tensor_proto)))
            for event in events.Tensors(tag)
        ]
        for tag in events.Tags()["tensors"]
    }


def test_columns_are_those_of_the_plan():
    assert monitor.columns(toy.PLAN) == COLUMNS
    assert monitor.dice_column("Task92_Two", "core") == COLUMNS[-1]


class TestCsv:
    def test_holds_a_row_per_epoch(self, tmp_path):
        write(tmp_path, make_row(1), make_row(2))
        assert read(tmp_path) == [
            COLUMNS,
            ["1", "10"] + [f"{1 + i / 16:.6g}" for i in range(10)],
            ["2", "20"] + [f"{2 + i / 16:.6g}" for i in range(10)],
        ]

    def test_nan_and_what_is_missing_stay_empty(self, tmp_path):
        row = make_row(1, **{"loss/Task92_Two": math.nan})
        for name in COLUMNS[9:]:
            del row[name]
        write(tmp_path, row)
        assert read(tmp_path)[1][8:] == ["", "", "", ""]

    def test_rows_are_there_before_the_run_ends(self, tmp_path):
        told = Monitor(tmp_path, toy.PLAN)
        told.write(make_row(1))
        assert len(read(tmp_path)) == 2
        assert scalars(tmp_path)["loss/all"] == [(10, 1.0)]
        told.close()

    def test_a_name_with_a_comma_is_quoted(self, tmp_path):
        plan = Plan((dataclasses.replace(toy.ONE, name="one, two"),))
        told = Monitor(tmp_path, plan)
        told.write({"epoch": 1, "step": 2, "loss/one, two": 0.5})
        told.close()
        Monitor(tmp_path, plan, first_step=2).close()
        assert read(tmp_path)[0][7:] == ["loss/one, two", "dice/one, two/organ"]
        assert read(tmp_path)[1][7:] == ["0.5", ""]


class TestResume:
    def test_keeps_the_rows_that_were_saved_and_no_others(self, tmp_path):
        write(tmp_path, make_row(1), make_row(2), make_row(3))
        whole = read(tmp_path)
        told = write(tmp_path, first_step=20)
        assert read(tmp_path) == whole[:3]
        assert told.last_step == 20

    def test_a_run_from_the_start_begins_a_new_file(self, tmp_path):
        write(tmp_path, make_row(1))
        told = write(tmp_path)
        assert read(tmp_path) == [COLUMNS]
        assert told.last_step == 0

    @pytest.mark.parametrize("left", range(1, 24))
    def test_a_last_row_that_was_cut_anywhere_is_removed(self, tmp_path, left):
        # Cut in its step, it would be a row of an earlier step: 20 → 2.
        write(tmp_path, make_row(1), make_row(2))
        whole = (tmp_path / "training.csv").read_text()
        first = whole[: whole.index("2,20,")]
        (tmp_path / "training.csv").write_text(whole[: len(first) + left])
        assert write(tmp_path, first_step=20).last_step == 10
        assert (tmp_path / "training.csv").read_text() == first

    def test_a_row_that_is_too_short_is_filled_up(self, tmp_path):
        (tmp_path / "training.csv").write_text(",".join(COLUMNS) + "\n1,10,0.5\n")
        write(tmp_path, first_step=10)
        assert read(tmp_path)[1] == ["1", "10", "0.5"] + 9 * [""]

    def test_columns_of_an_edited_plan_stay_empty_in_old_rows(self, tmp_path):
        write(tmp_path, make_row(1))
        path = tmp_path / "training.csv"
        path.write_text(path.read_text().replace("Two/rim", "Two/renamed"))
        write(tmp_path, first_step=10)
        rows = read(tmp_path)
        assert rows[0] == COLUMNS
        assert rows[1][10:] == ["", "1.5625"]


class TestTensorBoard:
    def test_has_every_column_with_its_tag_and_step(self, tmp_path):
        write(tmp_path, make_row(1), make_row(2))
        assert scalars(tmp_path) == {
            tag: [(10, pytest.approx(1 + i / 16)), (20, pytest.approx(2 + i / 16))]
            for i, tag in enumerate(TAGS.values())
        }

    def test_nan_and_what_is_missing_are_left_out(self, tmp_path):
        row = make_row(1, loss=math.nan)
        del row["dice/Task91_One/organ"]
        write(tmp_path, row, make_row(2))
        found = scalars(tmp_path)
        assert found["loss/all"] == [(20, 2.0)]
        assert [step for step, _ in found["dice/Task91_One/organ"]] == [20]

    def test_a_resumed_run_is_one_curve(self, tmp_path):
        write(tmp_path, make_row(1))
        write(tmp_path, make_row(2), first_step=10)
        assert [step for step, _ in scalars(tmp_path)["loss/all"]] == [10, 20]
