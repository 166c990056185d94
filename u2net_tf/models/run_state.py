"""State of a training run, stored as JSON in each checkpoint next to the variables."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from u2net_tf import migrations, schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.models.best import Best
from u2net_tf.schema import Count, Size, Step, Text
from u2net_tf.source_commit import source_commit

# Column of `training.csv` -> number; NaN for a mean over nothing.
Logs: TypeAlias = dict[str, Count | Annotated[float, Field(allow_inf_nan=True)]]
# Losses are float32 in the network and in TensorBoard. Float64 sums of them are finite.
_FLOAT32_MAX = (2 - 2.0**-23) * 2.0**127
_Loss = Annotated[float, Field(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)]
_Seconds = Annotated[float, Field(ge=0, le=1e12)]


@schema.model
class ScheduleState:
    """State of the learning-rate schedule.

    Attributes:
      learning_rate: learning rate of the next epoch.
      epochs: number of completed epochs.
      moving_average: moving average of the epochs' losses; None before the first. The
        mean of the losses so far until a window is full.
      reference: moving average at the last comparison; None before the first one.
      finished: whether training has ended.
      window: losses in the window of a windowed average, oldest first; empty with the
        exponential average.
    """

    learning_rate: float
    epochs: Count = 0
    moving_average: _Loss | None = None
    reference: _Loss | None = None
    finished: bool = False
    window: tuple[_Loss, ...] = ()


@schema.model
class PartialEpoch:
    """Metrics of the steps so far of an unfinished epoch.

    Attributes:
      losses: domain -> training losses of its steps, in order.
      seconds_waiting: time spent waiting for batches.
      seconds_computing: remaining duration of the steps.
      seconds_compiling: part of `seconds_computing` spent on steps that had to be
        compiled.
      skipped_steps: number of steps whose gradients overflowed.
    """

    losses: dict[str, tuple[_Loss, ...]]
    seconds_waiting: _Seconds
    seconds_computing: _Seconds
    seconds_compiling: _Seconds
    skipped_steps: Count


@schema.model
class SeenCases:
    """Cases of a domain that weights were trained on.

    Attributes:
      domain: name of the domain.
      cases: names of the cases.
      complete: whether these are all; False if a model did not contain case names.
    """

    domain: Text
    cases: tuple[Text, ...]
    complete: bool


@schema.model
class RunState:
    """State of a run after a step.

    Attributes:
      step: number of steps taken; 0 for a composed model.
      schedule: state of the learning-rate schedule; None for a composed model.
      logs: row of `training.csv` of the last epoch; None for a composed model and
        before the end of the first epoch.
      partial_epoch: the steps taken since then; None at the end of an epoch.
      invariants: settings that must be the same when the run is resumed; JSON.
      best: the best checkpoint so far; None if there is none.
      records: hash of the training records and of their shards; None if unknown.
      num_replicas: number of devices that shared each batch; None if unknown.
      initial_cases: the cases that the initial weights had been trained on; empty for
        random weights.
    """

    step: Step = 0
    schedule: ScheduleState | None = None
    logs: Logs | None = Field(default=None, alias="row")
    partial_epoch: PartialEpoch | None = None
    invariants: dict[str, Any] = Field(default_factory=dict, alias="run")
    best: Best | None = None
    records: str | None = None
    num_replicas: Size | None = None
    initial_cases: tuple[SeenCases, ...] = ()

    @property
    def known_invariants(self) -> dict[str, Any]:
        """The invariants, with those that an earlier version did not record."""
        return {**migrations.EARLIER_INVARIANTS, **self.invariants}

    def __post_init__(self) -> None:
        names = [seen.domain for seen in self.initial_cases]
        schema.require_distinct("initial_cases", names, "each domain once")
        if self.logs is not None:
            step = self.logs.get("step")
            if not isinstance(step, int) or step > schema.MAX_STEP:
                raise InputError("row.step", expected="a step", received=step)
            for column, value in self.logs.items():
                if math.isfinite(value) and abs(value) > _FLOAT32_MAX:
                    raise InputError(
                        f"row.{column:.80}",
                        expected="a number in the range of float32",
                        received=value,
                    )


STATE = FileFormat(
    name="the state of a run",
    made_by="python -m u2net_tf.train",
    kind=RunState,
    oldest=0,
    upgrades=(
        migrations.run_state,
        migrations.run_state_between_epochs,
        migrations.run_state_without_replicas,
        migrations.run_state_with_initial_cases,
    ),
)


def state_to_json(state: RunState) -> str:
    """Returns the state as JSON; its "written_by" includes the commit, if known."""
    content = STATE.to_dict(state)
    if commit := source_commit():
        content["written_by"] += f", commit {commit}"
    return json.dumps(content)


def state_from_json(text: str, source: object) -> RunState:
    """Reads the JSON that `state_to_json` of this version or an earlier one returned.

    Args:
      text: JSON.
      source: name of the checkpoint, for error messages.

    Raises:
      InputError: if the text is damaged or was written by a later version.
    """
    return STATE.from_text(text, source)
