"""Moving averages of the weights, which take their place in validation and models."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence

import keras

from u2net_tf.training.adam import TorchAdam


class WeightAverages:
    """The averages that optimizers keep; none if they keep none.

    Args:
      optimizers: the optimizers, built.
    """

    def __init__(self, optimizers: Sequence[TorchAdam]):
        self._optimizers = optimizers
        self._pairs = [pair for each in optimizers for pair in each.averages()]

    def start(self) -> None:
        """Sets the averages of variables that no step has changed to their values."""
        for optimizer in self._optimizers:
            if not optimizer.iterations.numpy():
                for variable, average in optimizer.averages():
                    average.assign(variable)

    @contextlib.contextmanager
    def in_use(self) -> Iterator[None]:
        """Replaces the variables by their averages, and restores them at the end."""
        values = [variable.numpy() for variable, _ in self._pairs]
        try:
            for variable, average in self._pairs:
                variable.assign(average)
            yield
        finally:
            for (variable, _), value in zip(self._pairs, values, strict=True):
                variable.assign(value)

    def by_path(self, names: Mapping[int, str]) -> dict[str, keras.Variable]:
        """Returns path of a variable -> its average.

        Args:
          names: id of a variable -> its path.
        """
        return {names[id(variable)]: average for variable, average in self._pairs}
