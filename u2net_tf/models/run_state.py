"""State of a run, as a checkpoint holds it besides the variables. JSON in and out."""

from __future__ import annotations

import json
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from u2net_tf import migrations, schema
from u2net_tf.file_format import FileFormat
from u2net_tf.models.best import Best
from u2net_tf.schema import Count
from u2net_tf.source_commit import source_commit

# Column of `training.csv` -> number; NaN for a mean over nothing.
Logs: TypeAlias = dict[str, int | Annotated[float, Field(allow_inf_nan=True)]]


@schema.model
class PlateauState:
    """State of the learning-rate schedule.

    Attributes:
      learning_rate: learning rate of the next epoch.
      epochs: number of epochs done.
      moving_average: moving average of the epochs' losses; None before the first. The
        mean of the losses so far while a window is not full.
      reference: moving average at the last comparison; None before the first one.
      finished: whether training has ended.
      window: losses in the window of a windowed average, oldest first; empty with the
        exponential average.
    """

    learning_rate: float
    epochs: Count = 0
    moving_average: float | None = None
    reference: float | None = None
    finished: bool = False
    window: tuple[float, ...] = ()


@schema.model
class PartialEpoch:
    """What the metrics of an epoch take from its steps so far.

    Attributes:
      losses: domain -> training losses of its steps, in their order.
      seconds_waiting: time spent waiting for batches.
      seconds_computing: duration of the rest of the steps.
      seconds_compiling: part of it that was spent on steps that were compiled.
      skipped_steps: number of steps whose gradients overflowed.
    """

    losses: dict[str, tuple[float, ...]]
    seconds_waiting: float
    seconds_computing: float
    seconds_compiling: float
    skipped_steps: Count


@schema.model
class RunState:
    """State of a run after a step.

    Attributes:
      step: number of steps done; 0 for a model that was composed, not trained.
      schedule: state of the learning-rate schedule; None for such a model.
      logs: row of `training.csv` of the last epoch; None for such a model and before
        the end of the first epoch.
      partial_epoch: the steps taken since; None at the end of an epoch.
      invariants: what a run that resumes must have in common with this one; JSON.
      best: the best checkpoint so far; None if there is none.
      records: hash of the training records and of their shards; None if not known.
    """

    step: Count = 0
    schedule: PlateauState | None = None
    logs: Logs | None = Field(default=None, alias="row")
    partial_epoch: PartialEpoch | None = None
    invariants: dict[str, Any] = Field(default_factory=dict, alias="run")
    best: Best | None = None
    records: str | None = None


STATE = FileFormat(
    name="the state of a run",
    made_by="python -m u2net_tf.train",
    kind=RunState,
    oldest=0,
    upgrades=(migrations.run_state, migrations.run_state_between_epochs),
)


def state_to_json(state: RunState) -> str:
    """Returns the state as JSON; written_by names the commit, too, if it is known."""
    content = STATE.to_dict(state)
    if commit := source_commit():
        content["written_by"] += f", commit {commit}"
    return json.dumps(content)


def state_from_json(text: str, source: object) -> RunState:
    """Reads what `state_to_json` wrote, in this version or an earlier one.

    Raises:
      InputError: names the source, if the text is damaged or a later version's.
    """
    return STATE.from_text(text, source)
