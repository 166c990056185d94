"""Gradient checkpointing: trades time for memory by computing blocks twice."""

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
# keeps the inputs of stem and convolution units, and the backward pass computes what
# is inside of these again.
GRADIENT_CHECKPOINTING = ("none", "blocks")


def check_gradient_checkpointing(gradient_checkpointing: str) -> str:
    """Returns its argument.

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
    """Returns `function(*inputs)` and keeps only the inputs for the backward pass.

    Where XLA compiles both passes together, only by the implementation "xla_module": by
    the others it merges what is computed twice.

    Args:
      function: Function of tensors that returns one tensor.
      variables: The Keras variables that it reads, for their gradients.
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
            # Not before the gradient is here, or all would be computed and kept at
            # once; and not found to be the same as the forward pass and merged with it.
            again = operations.wait_for(upstream, tensors)
            with (
                # Another one may be current where the gradient is computed.
                use_implementation(implementation),
                tf.GradientTape(watch_accessed_variables=False) as tape,
            ):
                tape.watch(again)
                outputs = run(again)
            return tape.gradient(
                outputs,
                again,
                output_gradients=upstream,
                unconnected_gradients=tf.UnconnectedGradients.ZERO,
            )

        # Or a tape around this would record, and keep, what is in the function.
        return run([tf.stop_gradient(tensor) for tensor in tensors]), gradient

    return keep_inputs(*inputs, *(tf.convert_to_tensor(v) for v in variables))


def add_checkpointed(
    total: tf.Tensor, function: Callable[..., tf.Tensor], *inputs: tf.Tensor
) -> tf.Tensor:
    """Returns `total + function(*inputs)`, of which it keeps only the inputs.

    Sums of several such summands have the feature maps of one at a time in memory: the
    function is computed once `total` is, and again, for its gradients, before those of
    what `total` is made of.

    Args:
      total: Tensor, what was added up so far.
      function: Function of tensors that returns a tensor like `total`.
      *inputs: Tensors.
    """
    operations = IMPLEMENTATIONS[current_implementation()]

    @tf.custom_gradient
    def in_turn(
        total: tf.Tensor, *inputs: tf.Tensor
    ) -> tuple[list[tf.Tensor], Callable]:
        def gradient(upstream: tf.Tensor, *of_inputs: tf.Tensor) -> Sequence[tf.Tensor]:
            return *operations.wait_for(of_inputs[0], [upstream]), *of_inputs

        return [tf.identity(total), *operations.wait_for(total, inputs)], gradient

    total, *waiting = in_turn(total, *inputs)
    return total + call_checkpointed(function, (), *waiting)
