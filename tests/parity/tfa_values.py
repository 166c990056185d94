"""Writes what tensorflow-addons computes from given numbers.

    python tfa_values.py INPUTS.npz OUTPUTS.npz

`test_oracle.py` runs this with the Python of the oracle's environment, in which this
project is not installed. The arrays are named kind/case/argument in one file and
kind/case/result in the other.
"""

import sys

import numpy as np
import tensorflow as tf
import tensorflow_addons as tfa


def norm(inputs, gamma, beta, upstream, epsilon, negative_slope):
    """Instance normalization and LeakyReLU; a slope of 1 means no activation."""
    layer = tfa.layers.InstanceNormalization(
        epsilon=epsilon.item(), dtype=inputs.dtype.name
    )
    layer.build(inputs.shape)
    layer.set_weights([gamma, beta])
    inputs = tf.constant(inputs)
    with tf.GradientTape() as tape:
        tape.watch(inputs)
        normalized = layer(inputs)
        # tf.nn.leaky_relu would round the slope to float32.
        outputs = tf.where(normalized > 0, normalized, normalized * negative_slope)
    gradients = tape.gradient(
        outputs, [inputs, layer.gamma, layer.beta], output_gradients=upstream
    )
    names = ("inputs_gradient", "gamma_gradient", "beta_gradient")
    return {"outputs": outputs, **dict(zip(names, gradients, strict=True))}


def adam(rows, order, gradients, learning_rate, weight_decay, betas, epsilons, counts):
    """Lazy Adam on the rows of one variable, one of them at each step.

    Args:
        rows: The initial values, of shape (T, C).
        order: The row that is used at each step, (S,).
        gradients: The gradient of that row, (S, C).
        learning_rate: A scalar.
        weight_decay: Factor of the used row that is added to its gradient.
        betas: The two decay rates.
        epsilons: Epsilon of each step, (S,).
        counts: How many steps the optimizer has counted before each step, (S,).

    Returns:
        The rows and both moments before the first and after each step, (S + 1, T, C).
    """
    variable = tf.Variable(rows)
    # Tensors, as Keras 2 makes a float32 variable of a Python number.
    optimizer = tfa.optimizers.LazyAdam(
        tf.constant(learning_rate), *(tf.constant(beta) for beta in betas)
    )
    values, means, squares = [rows], [np.zeros_like(rows)], [np.zeros_like(rows)]
    for row, gradient, epsilon, count in zip(
        order, gradients, epsilons, counts, strict=True
    ):
        optimizer.epsilon = epsilon
        optimizer.iterations.assign(count)
        slices = tf.IndexedSlices(
            (gradient + weight_decay * variable[row])[tf.newaxis],
            tf.constant([row]),
            variable.shape,
        )
        optimizer.apply_gradients([(slices, variable)])
        values.append(variable.numpy())
        means.append(optimizer.get_slot(variable, "m").numpy())
        squares.append(optimizer.get_slot(variable, "v").numpy())
    return {"rows": values, "means": means, "squares": squares}


def focal(labels, logits, alpha, gamma):
    """Focal loss of each voxel and the gradient of their sum."""
    loss = tfa.losses.SigmoidFocalCrossEntropy(
        from_logits=True, alpha=alpha.item(), gamma=gamma.item()
    )
    logits = tf.constant(logits)
    with tf.GradientTape() as tape:
        tape.watch(logits)
        # The softmax over two logits is the sigmoid of their difference.
        values = loss(labels[:, np.newaxis], logits[:, 1:] - logits[:, :1])
    return {"values": values, "logits_gradient": tape.gradient(values, logits)}


def main(inputs_path, outputs_path):
    """Computes every case of one file and writes the results to the other."""
    cases = {}
    with np.load(inputs_path, allow_pickle=False) as archive:
        for name, array in archive.items():
            kind, case, argument = name.split("/")
            cases.setdefault((kind, case), {})[argument] = array
    functions = {"norm": norm, "adam": adam, "focal": focal}
    results = {}
    for (kind, case), arguments in cases.items():
        for name, array in functions[kind](**arguments).items():
            results[f"{kind}/{case}/{name}"] = np.asarray(array)
    np.savez(outputs_path, **results)


if __name__ == "__main__":
    main(*sys.argv[1:])
