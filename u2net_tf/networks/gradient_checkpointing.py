"""Gradient checkpointing: saves memory by computing blocks twice."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import tensorflow as tf

from u2net_tf.networks.ops import (
    IMPLEMENTATIONS,
    current_implementation,
    use_implementation,
)

# "none": the forward pass keeps all feature maps for the backward pass. "blocks": it
# keeps only the inputs of the stem and of the convolution units, and the backward pass
# recomputes the rest.
GRADIENT_CHECKPOINTING = ("none", "blocks")


def check_gradient_checkpointing(gradient_checkpointing: str) -> str:
    """Returns the argument if it is valid.

    Raises:
      ValueError: If it is not one of `GRADIENT_CHECKPOINTING`.
    """
    if gradient_checkpointing not in GRADIENT_CHECKPOINTING:
        raise ValueError(
            f"`gradient_checkpointing` must be one of {GRADIENT_CHECKPOINTING}. "
            f"Received: gradient_checkpointing={gradient_checkpointing!r}"
        )
    return gradient_checkpointing


def call_checkpointed(
    function: Callable[..., tf.Tensor],
    variables: Sequence[keras.Variable],
    *inputs: tf.Tensor,
) -> tf.Tensor:
    """Returns `function(*inputs)`, keeping only the inputs for the backward pass.

    Where XLA compiles both passes together, this requires the implementation
    "xla_module" or "triton": with the others, XLA merges the two computations into one.

    Args:
      function: Function of tensors that returns one tensor.
      variables: Keras variables that the function reads and that get gradients.
      *inputs: Tensors.
    """
    num_inputs, implementation = len(inputs), current_implementation()
    operations = IMPLEMENTATIONS[implementation]

    def run(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
        values = zip(variables, tensors[num_inputs:], strict=True)
        with keras.StatelessScope(state_mapping=list(values)):
            return function(*tensors[:num_inputs])

    @tf.custom_gradient
    def keep_inputs(*tensors: tf.Tensor) -> tuple[tf.Tensor, Callable]:
        def gradient(upstream: tf.Tensor) -> Sequence[tf.Tensor]:
            # Waiting for the upstream gradient keeps blocks from being recomputed
            # together, and from being merged with the forward pass.
            recomputed_from = operations.wait_for(upstream, tensors)
            with (
                # Another implementation may be current when the gradient is computed.
                use_implementation(implementation),
                tf.GradientTape(watch_accessed_variables=False) as tape,
            ):
                tape.watch(recomputed_from)
                outputs = run(recomputed_from)
            return tape.gradient(
                outputs,
                recomputed_from,
                output_gradients=upstream,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )

        # Otherwise an outer tape would record, and keep, the intermediate results.
        return run([tf.stop_gradient(tensor) for tensor in tensors]), gradient

    return keep_inputs(*inputs, *(tf.convert_to_tensor(v) for v in variables))


def add_checkpointed(
    total: tf.Tensor, function: Callable[..., tf.Tensor], *inputs: tf.Tensor
) -> tf.Tensor:
    """Returns `total + function(*inputs)`, keeping only inputs for the backward pass.

    In a sum of several such terms, only one term's feature maps are in memory at a
    time: the function is computed after `total`, and recomputed in the backward pass
    before the gradients of the terms in `total`.

    Args:
      total: Tensor, the sum so far.
      function: Function of tensors that returns a tensor like `total`.
      *inputs: Tensors.
    """
    operations = IMPLEMENTATIONS[current_implementation()]

    @tf.custom_gradient
    def delay_inputs(
        total: tf.Tensor, *inputs: tf.Tensor
    ) -> tuple[list[tf.Tensor], Callable]:
        def gradient(
            upstream: tf.Tensor, *upstream_inputs: tf.Tensor
        ) -> Sequence[tf.Tensor]:
            delayed = operations.wait_for(upstream_inputs[0], [upstream])
            return *delayed, *upstream_inputs

        return [tf.identity(total), *operations.wait_for(total, inputs)], gradient

    total, *delayed = delay_inputs(total, *inputs)
    return total + call_checkpointed(function, (), *delayed)
