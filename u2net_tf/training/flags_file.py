"""Writes the flags of a run, and reports those that a resumed run changes."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import logging

from u2net_tf import files
from u2net_tf.config import flagfile
from u2net_tf.config.training import RunningConfig, TrainConfig
from u2net_tf.models.run_flags import flags_path
from u2net_tf.training.loop import Run


def write_flags(run: Run, config: RunningConfig) -> None:
    """Writes `flags.txt`; logs the flags that a resumed run changes.

    A run that has ended uses none of them, and keeps the flags that it had.

    Args:
      run: the restored run.
      config: its settings.
    """
    path = flags_path(run.model_dir)
    text = flagfile.to_text(config)
    if run.step and path.is_file():
        before, problem = files.read_text(path)
        if problem:
            logging.warning(
                "%s: %s. Renamed it to %s; changed flags cannot be reported",
                path,
                problem,
                files.rename_as_damaged(path),
            )
        else:
            text = flagfile.to_text(_with_initial_weights(before, config, path))
            optional = flagfile.optional_flags(type(config))
            _report_changes(run, config, flagfile.changes(before, text, optional))
    if not run.has_ended:
        files.write_text(path, text)


def _report_changes(run: Run, config: RunningConfig, changes: Sequence[str]) -> None:
    """Logs flags that a resumed run changes; see `flagfile.changes`."""
    if not changes:
        return
    effect = f"the run has ended at step {run.step}, so changed flags have no effect"
    if not run.has_ended:
        rate = f"{run.state.learning_rate:.2g}"
        effect = (
            f"resuming from step {run.step} with changed flags; the new values apply "
            f"from here, but the learning rate is the checkpoint's, {rate}"
        )
        if config.schedule.learning_rate_schedule == "polynomial":
            effect = (
                f"resuming from step {run.step} with changed flags; the new values "
                f"apply from here, where the learning rate is {rate}"
            )
    logging.warning("%s: %s", effect, "; ".join(changes))


def _with_initial_weights(
    before: str, config: RunningConfig, path: pathlib.Path
) -> RunningConfig:
    """Returns the settings of a resumed run with the `init_from` that it began with."""
    used = flagfile.values(before).get("init_from")
    if isinstance(config, TrainConfig) and config.init_from != used:
        logging.warning(
            "%s: `init_from` is used at the start of a run only, so the change has no "
            "effect: was %s, now %s",
            path,
            used or "not given",
            config.init_from or "not given",
        )
        return config.with_changes(init_from=used)
    return config
