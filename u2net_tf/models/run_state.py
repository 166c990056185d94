"""State of a run, as a checkpoint holds it besides the variables. JSON in and out."""

from __future__ import annotations

import json
import math
from typing import Annotated, Any, TypeAlias

from pydantic import Field

from u2net_tf import migrations, schema
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.models.best import Best
from u2net_tf.schema import Count, Step
from u2net_tf.source_commit import source_commit

# Column of `training.csv` -> number; NaN for a mean over nothing.
Logs: TypeAlias = dict[str, Count | Annotated[float, Field(allow_inf_nan=True)]]
# What a network computes and TensorBoard holds. Sums of such numbers are finite.
_FLOAT32_MAX = (2 - 2.0**-23) * 2.0**127
_Loss = Annotated[float, Field(ge=-_FLOAT32_MAX, le=_FLOAT32_MAX)]
_Seconds = Annotated[float, Field(ge=0, le=1e12)]


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
    moving_average: _Loss | None = None
    reference: _Loss | None = None
    finished: bool = False
    window: tuple[_Loss, ...] = ()


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

    losses: dict[str, tuple[_Loss, ...]]
    seconds_waiting: _Seconds
    seconds_computing: _Seconds
    seconds_compiling: _Seconds
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

    step: Step = 0
    schedule: PlateauState | None = None
    logs: Logs | None = Field(default=None, alias="row")
    partial_epoch: PartialEpoch | None = None
    invariants: dict[str, Any] = Field(default_factory=dict, alias="run")
    best: Best | None = None
    records: str | None = None

    def __post_init__(self) -> None:
        if self.logs is not None:
            step = self.logs.get("step")
            if not isinstance(step, int) or step > schema.MAX_STEP:
                raise InputError("row.step", expected="a step", received=step)
            for column, value in self.logs.items():
                if math.isfinite(value) and abs(value) > _FLOAT32_MAX:
                    raise InputError(
                        f"row.{column:.80}",
                        expected="a number that float32 holds",
                        received=value,
                    )


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
