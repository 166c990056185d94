"""What the workers of a run on several machines tell each other besides gradients.

They use TensorFlow's collective operations on the CPU, which do not wait for work that
is queued on a GPU. Every worker makes the same calls in the same order; a call returns
when all workers have made it.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from u2net_tf.errors import InputError, StoppedError
from u2net_tf.training.cluster import ALONE, CONFIG_VARIABLE, Cluster

# Groups of devices have numbers; those of `tf.distribute` start at 1.
_GROUP_KEY = 1 << 20
# TensorFlow reports the end of another worker as one of these, and in this text.
_LOST_ERRORS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.InternalError,
)
_LOST_TEXT = "Collective ops is aborted by"
_DIFFERENT_SIZES = "joining a group with size"


class Workers:
    """The workers of a run, seen from one of them.

    Args:
      cluster: addresses of the workers; a single worker exchanges nothing.
    """

    def __init__(self, cluster: Cluster = ALONE):
        self.cluster = cluster
        self.count = len(cluster.addresses)
        self.index = cluster.index
        self._gathers: dict[int, Callable[[tf.Tensor], tf.Tensor]] = {}

    @property
    def is_chief(self) -> bool:
        """See `Cluster.is_chief`."""
        return self.cluster.is_chief

    def gather(self, values: Sequence[int]) -> np.ndarray:
        """Returns the integers of every worker.

        Args:
          values: int32 values of this worker, as many as those of each other worker.

        Returns:
          (workers, values) int32.

        Raises:
          StoppedError: if another worker has ended.
        """
        own = np.array(values, np.int32)
        if self.count == 1:
            return own[None]
        if own.size not in self._gathers:
            key = len(self._gathers) + 1
            self._gathers[own.size] = _make_gather(self.count, key)
        with self.reporting_lost():
            gathered = self._gathers[own.size](tf.constant(own))
        return gathered.numpy().reshape(self.count, own.size)

    def wait(self) -> None:
        """Waits until all workers have called this; raises as `gather` does."""
        self.gather([0])

    @contextlib.contextmanager
    def chief_first(self) -> Iterator[None]:
        """Runs a block on the chief, then on the other workers."""
        if not self.is_chief:
            self.wait()
        yield
        if self.is_chief:
            self.wait()

    def exchange(self, value: Any) -> list[Any]:
        """Returns the value of every worker; raises as `gather` does.

        Args:
          value: anything that JSON can represent.
        """
        text = np.frombuffer(json.dumps(value).encode(), np.uint8)
        sizes = self.gather([text.size])[:, 0]
        padded = np.pad(text, (0, sizes.max() - text.size))
        texts = self.gather(padded.tolist()).astype(np.uint8)
        return [
            json.loads(row[:size].tobytes())
            for row, size in zip(texts, sizes, strict=True)
        ]

    def require_same(self, facts: Mapping[str, Any], hints: Mapping[str, str]) -> None:
        """Checks that facts are the same on all workers.

        Args:
          facts: name -> value.
          hints: name -> how to fix a difference; may be incomplete.

        Raises:
          InputError: names the first worker and fact that differ from the chief's.
          StoppedError: see `gather`.
        """
        if self.count == 1:
            return
        first, *others = self.exchange(dict(facts))
        for index, other in enumerate(others, start=1):
            for name in {**first, **other}:
                expected, received = (str(each.get(name)) for each in (first, other))
                if expected != received:
                    raise InputError(
                        f"{self.cluster.name(index)}: {name}",
                        expected=f"{expected}, as {self.cluster.name(0)}",
                        received=received,
                        hint=hints.get(name, ""),
                    )

    @contextlib.contextmanager
    def reporting_lost(self) -> Iterator[None]:
        """Converts TensorFlow's errors about workers that have ended.

        Raises:
          StoppedError: instead of such an error.
          InputError: instead of one about another number of workers.
        """
        try:
            yield
        except _LOST_ERRORS as error:
            if self.count == 1 or _LOST_TEXT not in str(error):
                raise
            if _DIFFERENT_SIZES in str(error):
                raise InputError(
                    CONFIG_VARIABLE,
                    expected="the same workers on all machines",
                    received=f"a different number of them than {self.count}",
                ) from error
            own = self.cluster.name(self.index)
            raise StoppedError(
                f"{own}: another worker has ended or cannot be reached; its own log "
                "may say why. Rerun the same command on all workers to resume from the "
                "last checkpoint"
            ) from error


def _make_gather(count: int, instance_key: int) -> Callable[[tf.Tensor], tf.Tensor]:
    @tf.function(autograph=False)
    def gather(values: tf.Tensor) -> tf.Tensor:
        with tf.device("CPU:0"):
            return tf.raw_ops.CollectiveGatherV2(
                input=values,
                group_size=count,
                group_key=_GROUP_KEY,
                instance_key=instance_key,
                ordering_token=[],
                communication_hint="ring",
            )

    return gather
