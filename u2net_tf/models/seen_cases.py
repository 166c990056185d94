"""Which cases the weights of a model were trained on."""

from __future__ import annotations

from collections.abc import Iterable

from u2net_tf.models.run_state import RunState, SeenCases
from u2net_tf.models.spec import ModelSpec


def seen_cases(spec: ModelSpec, state: RunState) -> dict[str, SeenCases]:
    """Returns the cases that the weights of a model were trained on.

    These are the training cases of its plan and the cases that its initial weights had
    been trained on, which may include domains that the model does not have.

    Args:
      spec: specification of the model.
      state: state of its run.

    Returns:
      Domain -> its cases.
    """
    found = {seen.domain: seen for seen in state.initial_cases}
    for index, domain in enumerate(spec.plan.domains):
        before = found.get(domain.name, SeenCases(domain.name, (), True))
        found[domain.name] = SeenCases(
            domain.name,
            tuple(dict.fromkeys((*before.cases, *domain.train))),
            before.complete and spec.has_case_names(index),
        )
    return found


def seen_domains(
    sources: Iterable[tuple[ModelSpec, RunState]], spec: ModelSpec
) -> tuple[SeenCases, ...]:
    """Returns the domains that a model lacks and its weights were trained on.

    Their cases are not named, since case names may identify patients.

    Args:
      sources: specification, and state of the run, of each model with weights of it.
      spec: specification of the model.
    """
    names = dict.fromkeys(name for source in sources for name in seen_cases(*source))
    return tuple(
        SeenCases(name, (), False) for name in names if name not in spec.plan.names
    )
