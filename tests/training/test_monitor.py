import csv
import dataclasses
import json
import math

import pytest
import tensorflow as tf
import toy
from tensorboard.backend.event_processing import event_accumulator

from u2net_tf.plan.domains import Plan
from u2net_tf.training import monitor
from u2net_tf.training.epoch_metrics import EpochMetrics
from u2net_tf.training.monitor import Monitor

COLUMNS = [
    "epoch",
    "step",
    "loss",
    "loss_moving_average",
    "learning_rate",
    "seconds_per_step",
    "input_wait_share",
    "steps_left_out",
    "loss/Task91_One",
    "loss/Task92_Two",
    "dice/Task91_One/organ",
    "dice/Task92_Two/rim",
    "dice/Task92_Two/core",
]
# Column -> its tag in TensorBoard.
TAGS = {
    "loss": "loss/all",
    "loss_moving_average": "loss/moving_average",
    "learning_rate": "run/learning_rate",
    "seconds_per_step": "run/seconds_per_step",
    "input_wait_share": "run/input_wait_share",
    "steps_left_out": "run/steps_left_out",
    **{name: name for name in COLUMNS[8:]},
}


def make_row(epoch, **changes):
    row = {name: epoch + i / 16 for i, name in enumerate(COLUMNS[2:])}
    return {"epoch": epoch, "step": 10 * epoch, **row, **changes}


def write(folder, *rows, first_step=0):
    writer = Monitor(folder, toy.PLAN, first_step=first_step)
    for row in rows:
        writer.write(row)
    writer.close()
    pad_numbers(folder / "tensorboard")
    return writer


def pad_numbers(folder):
    """Makes the names of event files sort in the order in which they were made.

    TensorBoard reads them in the order of their names. These consist of the second, the
    process and the number of the file, so that 10 comes before 9 in the same second.
    """
    for path in folder.glob("*.v2"):
        start, number, suffix = path.name.rsplit(".", 2)
        path.rename(path.with_name(f"{start}.{int(number):06}.{suffix}"))


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


def steps_by_tag(folder):
    return {
        tag: [step for step, _ in points] for tag, points in scalars(folder).items()
    }


def test_columns_are_those_of_the_plan():
    assert monitor.columns(toy.PLAN) == COLUMNS


class TestToLogs:
    """Columns and their order are names on disk: `row` of a checkpoint."""

    METRICS = EpochMetrics(
        epoch=1,
        step=10,
        loss=1.0,
        loss_moving_average=1.0625,
        learning_rate=1.125,
        seconds_per_step=1.1875,
        input_wait_share=1.25,
        skipped_steps=3,
        loss_by_domain={"Task91_One": 1.375, "Task92_Two": 1.4375},
        dice={
            "Task91_One": {"organ": 1.5},
            "Task92_Two": {"rim": 1.5625, "core": 1.625},
        },
    )

    def test_has_every_column_in_order(self):
        expected = make_row(1, steps_left_out=3)
        logs = monitor.to_logs(self.METRICS)
        assert json.dumps(logs) == json.dumps(expected)
        assert list(logs) == COLUMNS

    def test_without_scaling_and_validation(self):
        metrics = dataclasses.replace(self.METRICS, skipped_steps=None, dice={})
        logs = monitor.to_logs(metrics)
        assert list(logs) == [*COLUMNS[:7], *COLUMNS[8:10]]


class TestCsv:
    def test_has_a_row_per_epoch(self, tmp_path):
        write(tmp_path, make_row(1), make_row(2))
        assert read(tmp_path) == [
            COLUMNS,
            ["1", "10"] + [f"{1 + i / 16:.6g}" for i in range(11)],
            ["2", "20"] + [f"{2 + i / 16:.6g}" for i in range(11)],
        ]

    def test_nan_and_missing_values_are_empty(self, tmp_path):
        row = make_row(1, **{"loss/Task92_Two": math.nan})
        for name in COLUMNS[10:]:
            del row[name]
        write(tmp_path, row)
        assert read(tmp_path)[1][9:] == ["", "", "", ""]

    def test_rows_are_written_before_the_run_ends(self, tmp_path):
        writer = Monitor(tmp_path, toy.PLAN)
        writer.write(make_row(1))
        assert len(read(tmp_path)) == 2
        assert scalars(tmp_path)["loss/all"] == [(10, 1.0)]
        writer.close()

    def test_a_name_with_a_comma_is_quoted(self, tmp_path):
        plan = Plan((dataclasses.replace(toy.ONE, name="one, two"),))
        writer = Monitor(tmp_path, plan)
        writer.write({"epoch": 1, "step": 2, "loss/one, two": 0.5})
        writer.close()
        Monitor(tmp_path, plan, first_step=2).close()
        assert read(tmp_path)[0][8:] == ["loss/one, two", "dice/one, two/organ"]
        assert read(tmp_path)[1][8:] == ["0.5", ""]


class TestResume:
    def test_keeps_only_the_rows_of_saved_epochs(self, tmp_path):
        write(tmp_path, make_row(1), make_row(2), make_row(3))
        uninterrupted = read(tmp_path)
        writer = write(tmp_path, first_step=20)
        assert read(tmp_path) == uninterrupted[:3]
        assert writer.last_step == 20

    def test_a_run_from_the_start_writes_a_new_file(self, tmp_path):
        write(tmp_path, make_row(1))
        writer = write(tmp_path)
        assert read(tmp_path) == [COLUMNS]
        assert writer.last_step == 0

    @pytest.mark.parametrize("left", range(1, 24))
    def test_a_truncated_last_row_is_removed(self, tmp_path, left):
        # A row that was cut within its step would look like an earlier one: 20 → 2.
        write(tmp_path, make_row(1), make_row(2))
        uninterrupted = (tmp_path / "training.csv").read_text()
        first = uninterrupted[: uninterrupted.index("2,20,")]
        (tmp_path / "training.csv").write_text(uninterrupted[: len(first) + left])
        assert write(tmp_path, first_step=20).last_step == 10
        assert (tmp_path / "training.csv").read_text() == first

    def test_a_short_row_is_padded(self, tmp_path):
        (tmp_path / "training.csv").write_text(",".join(COLUMNS) + "\n1,10,0.5\n")
        write(tmp_path, first_step=10)
        assert read(tmp_path)[1] == ["1", "10", "0.5"] + 10 * [""]

    def test_columns_of_an_edited_plan_are_empty_in_old_rows(self, tmp_path):
        write(tmp_path, make_row(1))
        path = tmp_path / "training.csv"
        path.write_text(path.read_text().replace("Two/rim", "Two/renamed"))
        write(tmp_path, first_step=10)
        rows = read(tmp_path)
        assert rows[0] == COLUMNS
        assert rows[1][11:] == ["", "1.625"]

    def test_new_columns_are_added_to_a_file_of_an_earlier_version(self, tmp_path):
        old = [name for name in COLUMNS if name != "steps_left_out"]
        cells = ["1", "10", *map(str, range(len(old) - 2))]
        text = ",".join(old) + "\n" + ",".join(cells) + "\n"
        (tmp_path / "training.csv").write_text(text)
        write(tmp_path, make_row(2), first_step=10)
        rows = read(tmp_path)
        assert rows[0] == COLUMNS
        row = dict(zip(COLUMNS, rows[1], strict=True))
        assert row.pop("steps_left_out") == ""
        assert list(row.values()) == cells
        assert len(rows) == 3


def latin(text):
    return text.replace("loss/Task91_One", "loss/Größe").encode("latin-1")


def semicolons(text):
    return text.replace(",", ";").encode()


class TestDamaged:
    """A `training.csv` that another program or a failing disk has modified."""

    @pytest.fixture
    def damage(self, tmp_path):
        """Writes three epochs and applies `change` to the text; returns the bytes."""

        def call(change):
            write(tmp_path, make_row(1), make_row(2), make_row(3))
            path = tmp_path / "training.csv"
            changed = change(path.read_text())
            content = changed if isinstance(changed, bytes) else changed.encode()
            path.write_bytes(content)
            return content

        return call

    def steps(self, folder):
        header, *rows = read(folder)
        assert header == COLUMNS
        return [int(row[1]) for row in rows]

    @pytest.mark.parametrize(
        ("change", "steps", "words"),
        [
            (semicolons, [], "epoch, step, loss, …. Received: 'epoch;step;"),
            (lambda t: t[t.index("\n") + 1 :], [], "loss, …. Received: '1,10,"),
            (lambda t: t[:5], [], "loss, …. Received: 'epoch'"),
            (lambda t: t[:30], [], "loss, …. Received: 'loss_moving_av'"),
            (lambda t: t.replace("step,", "stop,", 1), [], "loss, …. Received: 'stop'"),
            (lambda t: t.replace("epoch,", ",", 1), [10, 20, 30], "…. Received: ''"),
            (
                lambda t: t.replace("loss,", "note,", 1),
                [10, 20, 30],
                "Received: 'note'",
            ),
            (latin, [10, 20, 30], "UTF-8 text. Received: invalid bytes in line 1"),
            (lambda t: t.encode("utf-16"), [], "expected UTF-8 text"),
            (lambda t: b"\xff" * len(t), [], "expected UTF-8 text"),
            (lambda t: t + 9 * "\0", [10, 20, 30], "invalid bytes in line 5"),
            (lambda t: t + 9 * "\0" + "\n", [10, 20, 30], "invalid bytes in line 5"),
            (lambda t: t[:-40] + 40 * "\0", [10, 20], "invalid bytes in line 4"),
            (lambda t: t.replace(",20,", ",²,"), [10, 30], "numbers in line 3. Rec"),
            (lambda t: t.replace(",20,", ",20.0,"), [10, 30], "Received: '2,20.0,2,"),
            (lambda t: t.replace(",20,", ",,"), [10, 30], "Received: '2,,2,2.0625,"),
            (lambda t: t.replace("\n2,", "\ntwo,"), [10, 30], "Received: 'two,20,2,"),
            (lambda t: t.replace(",20,", ",20,,,"), [10, 30], "numbers in line 3"),
            (lambda t: t.replace(",20,", ',20,"'), [10, 30], "numbers in line 3"),
            (lambda t: t.replace(",20,", ',20,"0,5",'), [10, 30], "numbers in line 3"),
            # More digits than Python converts to a number, and than a cell may have.
            (
                lambda t: t.replace("2,20", "2," + 5000 * "2"),
                [10, 30],
                f"in line 3. Received: '2,{78 * '2'}'",
            ),
            (lambda t: t.replace("2,20", "2," + 2**18 * "2"), [10, 30], "in line 3"),
        ],
    )
    def test_is_kept_next_to_the_readable_rows(
        self, damage, tmp_path, caplog, change, steps, words
    ):
        content = damage(change)
        writer = write(tmp_path, first_step=30)
        assert self.steps(tmp_path) == steps
        assert writer.last_step == (steps or [0])[-1]
        backup = tmp_path / "training.csv.damaged"
        assert backup.read_bytes() == content
        (warning,) = [record.getMessage() for record in caplog.records]
        assert warning.startswith(f"{tmp_path / 'training.csv'}: expected ")
        assert words in warning
        assert warning.endswith(
            f". Renamed it to {backup}; the new file starts with the rows that could "
            f"be read: {len(steps)}"
        )
        caplog.clear()
        write(tmp_path, make_row(4), first_step=30)
        assert self.steps(tmp_path) == [*steps, 40]
        assert not caplog.records

    def test_never_replaces_an_earlier_one(self, damage, tmp_path):
        endings = ("", "-2", "-3")
        for ending in endings:
            damage(lambda text, ending=ending: f"damage{ending}\n{text}")
            write(tmp_path, first_step=30)
        for ending in endings:
            text = (tmp_path / f"training.csv.damaged{ending}").read_text()
            assert text.startswith(f"damage{ending}\n")

    @pytest.mark.parametrize(
        "change",
        [
            lambda t: t,
            lambda t: t.encode("utf-8-sig"),
            lambda t: t.replace("\n", "\r\n"),
            lambda t: t.replace("\n", "\n\n"),
            lambda t: t.replace("1,10,", '"1","10",'),
            lambda t: t + "4,40,0.",
        ],
    )
    def test_is_not_a_file_with_every_row(self, damage, tmp_path, caplog, change):
        uninterrupted = damage(lambda t: t)
        damage(change)
        write(tmp_path, first_step=30)
        assert (tmp_path / "training.csv").read_bytes() == uninterrupted
        assert not (tmp_path / "training.csv.damaged").exists()
        assert not caplog.records

    def test_is_not_an_empty_file(self, damage, tmp_path, caplog):
        damage(lambda t: "")
        assert write(tmp_path, first_step=30).last_step == 0
        assert self.steps(tmp_path) == []
        assert not caplog.records


class TestTensorBoard:
    def test_has_every_column_with_its_tag_and_step(self, tmp_path):
        write(tmp_path, make_row(1), make_row(2))
        assert scalars(tmp_path) == {
            tag: [(10, pytest.approx(1 + i / 16)), (20, pytest.approx(2 + i / 16))]
            for i, tag in enumerate(TAGS.values())
        }

    def test_nan_and_missing_values_are_left_out(self, tmp_path):
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

    def test_unsaved_steps_are_purged(self, tmp_path):
        write(tmp_path, make_row(1), make_row(2), make_row(3))
        changed = make_row(2, loss=0.5)
        write(tmp_path, changed, make_row(3), first_step=10)
        points = scalars(tmp_path)
        assert points["loss/all"] == [(10, 1.0), (20, 0.5), (30, 3.0)]
        assert steps_by_tag(tmp_path) == dict.fromkeys(TAGS.values(), [10, 20, 30])

    def test_a_run_from_the_start_purges_everything(self, tmp_path):
        write(tmp_path, make_row(1))
        write(tmp_path, make_row(1))
        assert [step for step, _ in scalars(tmp_path)["loss/all"]] == [10]

    def test_killed_before_the_row_of_the_last_epoch(self, tmp_path):
        """Some or all of its scalars exist already, and will be written again."""
        write(tmp_path, make_row(1), make_row(2))
        path = tmp_path / "training.csv"
        path.write_text("".join(path.read_text().splitlines(keepends=True)[:2]))
        writer = write(tmp_path, make_row(2), make_row(3), first_step=20)
        assert writer.last_step == 10
        assert steps_by_tag(tmp_path) == dict.fromkeys(TAGS.values(), [10, 20, 30])

    def test_truncated_anywhere(self, tmp_path):
        """A killed run leaves an incomplete file."""
        write(tmp_path / "uninterrupted", make_row(1), make_row(2))
        (source,) = (tmp_path / "uninterrupted" / "tensorboard").iterdir()
        content = source.read_bytes()
        for left in range(0, len(content), 97):
            folder = tmp_path / str(left)
            (folder / "tensorboard").mkdir(parents=True)
            (folder / "tensorboard" / source.name).write_bytes(content[:left])
            write(folder, make_row(1), make_row(2))
            found = steps_by_tag(folder)
            assert found == dict.fromkeys(TAGS.values(), [10, 20]), left

    def test_removed_rows_purge_nothing(self, tmp_path):
        write(tmp_path, make_row(1), make_row(2))
        (tmp_path / "training.csv").unlink()
        write(tmp_path, make_row(2), make_row(3), first_step=20)
        assert [step for step, _ in scalars(tmp_path)["loss/all"]] == [10, 20, 30]

    def test_other_files_are_left_alone(self, tmp_path):
        (tmp_path / "tensorboard").mkdir()
        (tmp_path / "tensorboard" / "notes").write_text("no events")
        write(tmp_path, make_row(1))
        assert (tmp_path / "tensorboard" / "notes").read_text() == "no events"
