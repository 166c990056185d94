"""Memory for time: what lies inside a block is computed again for its gradient."""

import keras
import tensorflow as tf

from u2net_tf.networks.ops import current_route, use_route

# "none": the backward pass finds all maps kept. "blocks": it finds the inputs of stem
# and convolution units, and computes what is inside of these again.
RECOMPUTE = ("none", "blocks")


def check_recompute(recompute):
    """Returns `recompute`, or raises ValueError if it is none of `RECOMPUTE`."""
    if recompute not in RECOMPUTE:
        raise ValueError(
            f"`recompute` must be one of {RECOMPUTE}. Received: recompute={recompute!r}"
        )
    return recompute


def recomputed(function, variables, *inputs):
    """Returns `function(*inputs)`, of which the backward pass keeps the inputs alone.

    Not where XLA compiles both passes together: it merges what is computed twice.

    Args:
        function: Of tensors; what it returns is one tensor.
        variables: The Keras variables that it reads, for their gradients.
        *inputs: Tensors.
    """
    num_inputs, route = len(inputs), current_route()

    def run(tensors):
        values = zip(variables, tensors[num_inputs:], strict=True)
        with keras.StatelessScope(state_mapping=list(values)):
            return function(*tensors[:num_inputs])

    @tf.custom_gradient
    def keep_inputs(*tensors):
        def gradient(upstream):
            # Not before the gradient is here, or all would be computed and kept at
            # once; and not found to be the same as the forward pass and merged with it.
            with tf.control_dependencies([upstream]):
                again = [tf.identity(tensor) for tensor in tensors]
            with (
                # The gradient may be taken where another one counts.
                use_route(route),
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
