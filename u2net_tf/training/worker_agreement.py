"""Checks that all workers of a run train the same network in the same way."""

from __future__ import annotations

import hashlib
from typing import Any

from u2net_tf.config import flagfile
from u2net_tf.config.training import RunningConfig
from u2net_tf.plan.domains import Plan
from u2net_tf.training.step import Trainer
from u2net_tf.training.workers import Workers

# Flags that may differ between workers: machines may have their own folders and
# numbers of cores.
_MAY_DIFFER = (
    "data_dir",
    "from",
    "init_from",
    "log_every_seconds",
    "model_dir",
    "num_parallel_calls",
)
_SAME_FOLDER = "`model_dir` must be the same folder on all machines"
_HINTS = {
    "records": "All workers need the same shards",
    "step": _SAME_FOLDER,
    "variables": f"{_SAME_FOLDER}, and `from` or `init_from` the same model",
}


def require_same_run(
    workers: Workers,
    trainer: Trainer,
    config: RunningConfig,
    *,
    step: int,
    records: str,
    plan: Plan,
) -> None:
    """Checks that settings, plan, shards and variables are the same on all workers.

    Args:
      workers: the workers of the run.
      trainer: has the restored variables.
      config: settings of the run.
      step: number of steps done.
      records: result of `hash_records`.
      plan: plan of the trained domains.

    Raises:
      InputError: names the first worker and value that differ.
      StoppedError: if another worker has ended.
    """
    if workers.count == 1:
        return
    flags = flagfile.values(flagfile.to_text(config))
    facts: dict[str, Any] = {
        f"`{name}`": value for name, value in flags.items() if name not in _MAY_DIFFER
    }
    variables = {
        **trainer.network.variables_by_path(),
        **trainer.variables_by_path(),
    }
    checksum = hashlib.sha256()
    for _, variable in sorted(variables.items()):
        checksum.update(variable.numpy().tobytes())
    planned = _planned_facts(plan)
    facts |= planned
    facts |= {"records": records, "step": step, "variables": checksum.hexdigest()}
    hints = dict.fromkeys(planned, "All workers need the same plan.json")
    workers.require_same(facts, _HINTS | hints)


def _planned_facts(plan: Plan) -> dict[str, Any]:
    """Returns what shards and variables do not depend on, but training does."""
    facts: dict[str, Any] = {}
    for domain in plan.domains:
        facts |= {
            f"{domain.name}: batch_size": domain.batch_size,
            f"{domain.name}: mirror_axes": domain.mirror_axes,
            f"{domain.name}: regions": {r.name: r.classes for r in domain.regions},
        }
    return facts
