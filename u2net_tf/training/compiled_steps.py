"""Calls of steps, compiled for the shapes of a domain's variables and of a batch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

_Signature: TypeAlias = tuple[Any, ...]


class CompiledSteps:
    """Calls step functions, and knows which have been called.

    Args:
      functions: function of each domain that is traced.
      traced_domains: domain -> the one whose function it uses.
      strategy: distribution strategy.
    """

    def __init__(
        self,
        functions: Mapping[int, tf.types.experimental.PolymorphicFunction],
        traced_domains: Mapping[int, int],
        strategy: tf.distribute.Strategy,
    ):
        self._functions = functions
        self._traced_domains = traced_domains
        self._strategy = strategy
        self._compiled: dict[_Signature, Any] = {}
        self._called: set[_Signature] = set()

    def is_compiled(self, domain: int, batch: Mapping[str, tf.Tensor]) -> bool:
        """Returns whether a step with the shapes of the domain and batch was taken."""
        return self._signature(domain, batch) in self._called

    def call(
        self, domain: int, batch: Mapping[str, tf.Tensor], arguments: Sequence[Any]
    ) -> tf.Tensor:
        """Calls the step of a domain.

        Args:
          domain: index of the domain.
          batch: {"image": …, "labels": …}, per replica if there are several.
          arguments: arguments of the step, with the tensors of the batch.

        Returns:
          The loss.
        """
        signature = self._signature(domain, batch)
        loss = self._find(signature, arguments)(*arguments)
        self._called.add(signature)
        return loss

    def _signature(self, domain: int, batch: Mapping[str, tf.Tensor]) -> _Signature:
        """Returns what a step is compiled for; of the batch, the shape per replica."""
        tensors = (
            tensor
            for name in ("image", "labels")
            for tensor in self._strategy.experimental_local_results(batch[name])
        )
        shapes = ((tuple(tensor.shape), tensor.dtype) for tensor in tensors)
        return self._traced_domains[domain], *shapes

    def _find(self, signature: _Signature, arguments: Sequence[Any]) -> Any:
        """Returns the step of a signature, compiled.

        A `tf.function` would look it up by itself, but with hundreds of variables as
        arguments that takes several milliseconds per call.
        """
        function = self._functions[signature[0]]
        is_distributed = self._strategy.num_replicas_in_sync > 1
        if is_distributed or tf.config.functions_run_eagerly():
            return function
        if signature not in self._compiled:
            self._compiled[signature] = function.get_concrete_function(*arguments)
        return self._compiled[signature]
