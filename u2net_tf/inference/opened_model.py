"""An opened model of any format."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable

from u2net_tf.errors import InputError
from u2net_tf.inference.predictor import Predictor
from u2net_tf.plan.domains import Plan
from u2net_tf.wording import first_few


class OpenedModel:
    """A model of any format, whose domains are loaded when they are first used.

    Args:
      path: path of the model, or the paths of an ensemble, joined by ", ".
      runtime: "tensorflow", "openvino" or "onnxruntime"; those of an ensemble are
        joined by " and ".
      domains: names of its domains.
      load: returns the predictor of the domain with a given name. The model of the
        predictor may have additional domains.
    """

    def __init__(
        self,
        path: str | os.PathLike,
        runtime: str,
        domains: tuple[str, ...],
        load: Callable[[str], Predictor],
    ):
        self.path = path
        self.runtime = runtime
        self.domains = domains
        self._load = functools.cache(load)

    def predictor(self, domain: str) -> Predictor:
        """Returns the predictor of a domain, whose index is `plan.index(domain)`.

        Args:
          domain: its name.

        Raises:
          InputError: if the model has no such domain, or cannot be loaded.
        """
        if domain not in self.domains:
            raise InputError(
                "`domain`",
                expected=f"one of {first_few(self.domains)}",
                received=domain,
            )
        return self._load(domain)

    @functools.cached_property
    def plan(self) -> Plan:
        """The plan of all domains; loads each of them."""
        plans = ((self.predictor(name).plan, name) for name in self.domains)
        return Plan(tuple(plan.domain(name) for plan, name in plans))
