"""The table that `summary` prints: the parts of a network, their shapes and sizes."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf
from tabulate import SEPARATING_LINE, tabulate

from u2net_tf.networks import ops
from u2net_tf.networks.layers import DomainLayer


def format_summary(
    network: keras.Model, *, patch_size: Sequence[int], domain: int
) -> str:
    """Returns a table with a row per part of a network, in the order of computation.

    Args:
      network: A `DomainNetwork`, built.
      patch_size: D, H and W of the input.
      domain: Index of the domain whose shapes and parameters are shown.
    """
    signature = tf.TensorSpec((None, *patch_size, network.num_modalities[domain]))
    shapes: dict[str, str] = {}

    @tf.function(input_signature=[signature], autograph=False)
    def call(patches: tf.Tensor) -> tf.Tensor:
        return network(patches, domain=domain)

    # Traced only: nothing is computed. This implementation is traced fastest.
    with (
        _record_shapes(network.parts, shapes),
        ops.use_implementation("plain"),
        ops.without_gradients(),
    ):
        call.get_concrete_function()
    parts = network.parts
    # Parts that are not computed come last.
    rows = [
        (
            f"{name} ({type(parts[name]).__name__})",
            shapes.get(name, "not computed"),
            f"{_count(parts[name].variables):,}",
            f"{_count(parts[name].domain_variables(domain)):,}",
        )
        for name in dict.fromkeys([*shapes, *parts])
    ]
    total = (
        "total",
        "",
        f"{_count(network.variables):,}",
        f"{_count(network.domain_variables(domain)):,}",
    )
    return tabulate(
        [*rows, SEPARATING_LINE, total],
        headers=["layer", "output shape", "parameters", f"of domain {domain} only"],
        tablefmt="simple",
        colalign=("left", "left", "right", "right"),
        disable_numparse=True,
    )


def _count(variables: Iterable[keras.Variable]) -> int:
    return sum(variable.shape.num_elements() for variable in variables)


@contextlib.contextmanager
def _record_shapes(
    parts: Mapping[str, DomainLayer], shapes: dict[str, str]
) -> Iterator[None]:
    """Within this context, adds the output shape of each part that is called."""

    def recording(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def call_and_record(*args: Any, **kwargs: Any) -> Any:
            outputs = call(*args, **kwargs)
            shapes[name] = str(tuple(outputs.shape))
            return outputs

        return call_and_record

    for name, part in parts.items():
        # Past Keras, which would track the attribute.
        object.__setattr__(part, "call", recording(name, part.call))
    try:
        yield
    finally:
        for part in parts.values():
            object.__delattr__(part, "call")
