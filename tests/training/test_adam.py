import keras
import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.training.adam import TorchAdam

SHAPES = ((3, 2), (4,))
NUM_STEPS = 50


def make_variables(dtype="float64", seed=0):
    generator = np.random.default_rng(seed)
    return [
        keras.Variable(generator.normal(size=shape), dtype=dtype) for shape in SHAPES
    ]


def draw_gradients(step):
    """Draws gradients whose sizes range from 1e-6 to 10."""
    generator = np.random.default_rng(step)
    return [
        generator.normal(size=shape) * 10.0 ** generator.uniform(-6, 1, size=shape)
        for shape in SHAPES
    ]


def train(num_steps=NUM_STEPS, dtype="float64", learning_rate=0.25, **options):
    """Returns the values after the given number of compiled steps."""
    variables = make_variables(dtype)
    optimizer = TorchAdam(learning_rate, **options)
    optimizer.build(variables)
    step = tf.function(optimizer.apply)
    for number in range(num_steps):
        step([tf.constant(g, dtype) for g in draw_gradients(number)])
    return [variable.numpy() for variable in variables]


def formula(
    num_steps=NUM_STEPS,
    learning_rate=0.25,
    l2_factor=0.0,
    beta_1=0.9,
    beta_2=0.999,
    epsilon=1e-8,
):
    """PyTorch's Adam with L2 in float64, as its documentation defines it."""
    values = [variable.numpy() for variable in make_variables()]
    means, squares = ([np.zeros(shape) for shape in SHAPES] for _ in range(2))
    for number in range(num_steps):
        for i, gradient in enumerate(draw_gradients(number)):
            gradient = gradient + l2_factor * values[i]
            means[i] = beta_1 * means[i] + (1 - beta_1) * gradient
            squares[i] = beta_2 * squares[i] + (1 - beta_2) * gradient**2
            mean = means[i] / (1 - beta_1 ** (number + 1))
            square = squares[i] / (1 - beta_2 ** (number + 1))
            values[i] = values[i] - learning_rate * mean / (np.sqrt(square) + epsilon)
    return values


def assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


# Each differs enough from the default for a test to notice if it were ignored.
OPTIONS = (
    {},
    {"learning_rate": 0.125},
    {"l2_factor": 0.1},
    {"beta_1": 0.5},
    {"beta_2": 0.9},
    {"epsilon": 1e-3},
)


class TestSteps:
    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_equal_the_formula(self, options):
        assert_close(train(**options), formula(**options), 1e-12)
        if options:
            change = np.abs(formula(**options)[0] - formula()[0]).max()
            assert change > 1e-3

    @pytest.mark.parametrize("options", OPTIONS, ids=str)
    def test_float32_is_exact_from_the_first_step(self, options):
        for num_steps in (1, NUM_STEPS):
            found = train(num_steps, dtype="float32", **options)
            assert_close(found, formula(num_steps, **options), 2e-5)

    @pytest.mark.slow
    @pytest.mark.parametrize("l2_factor", [0.0, 0.1])
    def test_equal_pytorch(self, l2_factor):
        torch = pytest.importorskip("torch")
        params = [
            torch.nn.Parameter(torch.tensor(variable.numpy()))
            for variable in make_variables()
        ]
        optimizer = torch.optim.Adam(params, lr=0.25, weight_decay=l2_factor)
        for number in range(NUM_STEPS):
            for param, gradient in zip(params, draw_gradients(number), strict=True):
                param.grad = torch.tensor(gradient)
            optimizer.step()
        expected = [param.detach().numpy() for param in params]
        assert_close(train(l2_factor=l2_factor), expected, 1e-12)

    def test_are_counted(self):
        variables = make_variables()
        optimizer = TorchAdam(0.1)
        optimizer.build(variables)
        for number in range(3):
            optimizer.apply([tf.constant(g) for g in draw_gradients(number)], variables)
        assert int(optimizer.iterations) == 3


class TestAverages:
    @pytest.mark.parametrize("decay", [0.01, 0.5, 0.9])
    def test_equal_the_formula(self, decay):
        """The decay of 0.9 is reached after 81 steps, the others sooner."""
        variables = make_variables()
        optimizer = TorchAdam(0.25, ema_decay=decay)
        optimizer.build(variables)
        apply = tf.function(optimizer.apply)
        expected = [np.zeros(shape) for shape in SHAPES]
        for number in range(100):
            apply([tf.constant(g) for g in draw_gradients(number)])
            weight = min(decay, number / (number + 9))
            for i, variable in enumerate(variables):
                expected[i] = weight * expected[i] + (1 - weight) * variable.numpy()
            found = [average.numpy() for _, average in optimizer.averages()]
            assert_close(found, expected, 1e-9)
        assert [v for v, _ in optimizer.averages()] == variables
        assert_close([v.numpy() for v in variables], formula(100), 1e-12)

    def test_none_by_default(self):
        optimizer = TorchAdam(0.25)
        optimizer.build(make_variables())
        assert (optimizer.averages(), optimizer.state().averages) == ([], ())


class TestState:
    """Steps on the variables of another optimizer, as domains share a trace."""

    def test_changes_nothing_else(self):
        optimizers = []
        for rate in (0.25, 0.125):
            optimizer = TorchAdam(rate, ema_decay=0.5)
            optimizer.build(make_variables())
            optimizers.append(optimizer)
        first, second = optimizers
        before = [v.numpy().tobytes() for v in tf.nest.flatten(first.state())]
        update = tf.function(first.update_state)
        for number in range(3):
            update(second.state(), [tf.constant(g) for g in draw_gradients(number)])
        after = [v.numpy().tobytes() for v in tf.nest.flatten(first.state())]
        assert after == before
        assert int(second.iterations) == 3
        # The learning rate is that of the optimizer whose state was passed.
        found = [variable.numpy() for variable in second.state().trained]
        assert_close(found, formula(3, learning_rate=0.125), 1e-12)
        assert all(average.numpy().any() for average in second.state().averages)


class TestVariables:
    def test_equal_those_of_keras_adam(self, tmp_path):
        variables = make_variables()
        layouts = []
        for optimizer in (TorchAdam(0.1, name="a"), keras.optimizers.Adam(name="a")):
            optimizer.build(variables)
            checkpoint = tf.train.Checkpoint(optimizer=optimizer)
            keys = tf.train.load_checkpoint(checkpoint.write(str(tmp_path / "adam")))
            layouts.append(
                (
                    [(v.path, v.shape, v.dtype) for v in optimizer.variables],
                    keys.get_variable_to_shape_map(),
                )
            )
        assert layouts[0] == layouts[1]

    def test_others_are_an_error(self):
        optimizer = TorchAdam(0.1)
        optimizer.build(make_variables())
        gradients = [tf.constant(g) for g in draw_gradients(0)]
        for wrong in (make_variables(), []):
            with pytest.raises(ValueError, match="Received: trainable_variables="):
                optimizer.apply(gradients, wrong)

    def test_may_be_empty(self):
        optimizer = TorchAdam(0.1)
        optimizer.build([])
        optimizer.apply([])


def test_takes_one_operation_per_variable():
    variables = make_variables()
    optimizer = TorchAdam(0.1)
    optimizer.build(variables)
    gradients = [tf.constant(g) for g in draw_gradients(0)]
    graph = tf.function(optimizer.apply).get_concrete_function(gradients).graph
    kinds = [operation.type for operation in graph.get_operations()]
    assert kinds.count("ResourceApplyAdam") == len(variables)
    # The corrections are not computed for each variable.
    assert kinds.count("Pow") == 2
