import keras
import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.networks import conv_units, upsampled_units
from u2net_tf.networks.gradient_checkpointing import add_checkpointed
from u2net_tf.networks.upsampled_units import LinearUpsampling, run_upsampled

pytestmark = pytest.mark.usefixtures("plain_implementation")

FACTORS = ((1, 1, 1), (1, 1, 1), (1, 2, 2), (2, 4, 2))
CHANNELS = (2, 3, 4, 5)


def draw(shape, seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape))


def inputs_of(factors=FACTORS, channels=CHANNELS):
    return [
        draw((2, 4 // d, 4 // h, 4 // w, count), seed=count)
        for (d, h, w), count in zip(factors, channels, strict=True)
    ]


def build(unit_class):
    keras.utils.set_random_seed(0)
    unit = unit_class(sum(CHANNELS), 3, 2, dtype="float64")
    unit.build()
    for seed, variable in enumerate(unit.variables):
        variable.assign(variable + 0.3 * draw(variable.shape, seed=seed))
    return unit


def differentiate(function, tensors, variables):
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        outputs = function(tensors)
        total = tf.reduce_sum(outputs**3)
    sources = [*tensors, *(variable.value for variable in variables)]
    return [outputs, *tape.gradient(total, sources)]


# Only separable units do not leave `align_corners` to `conv3d_upsampled`.
ALIGNED = [
    pytest.param(
        adapter, True, marks=[] if adapter == "separable" else pytest.mark.slow
    )
    for adapter in conv_units.UNITS
]


@pytest.mark.parametrize(
    ("adapter", "align_corners"), [(name, False) for name in conv_units.UNITS] + ALIGNED
)
def test_equals_the_unit_applied_to_up_sampled_inputs(
    adapter, align_corners, monkeypatch
):
    # Groups of 1 and 2 channels, and of 2 and 2.
    monkeypatch.setattr(upsampled_units, "MAX_CHANNELS_AT_ONCE", 2)
    unit = build(conv_units.UNITS[adapter])
    upsampling = LinearUpsampling(FACTORS, align_corners)
    variables = unit.variables_used_by(1)
    found = differentiate(
        lambda tensors: run_upsampled(unit, tensors, upsampling, domain=1),
        inputs_of(),
        variables,
    )
    expected = differentiate(
        lambda tensors: unit(upsampling.upsample(tensors), domain=1),
        inputs_of(),
        variables,
    )
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-9)


def test_only_up_sampled_inputs():
    unit = build(conv_units.SeparableUnit)
    upsampling = LinearUpsampling(((2, 2, 2), (4, 4, 4)), False)
    inputs = inputs_of(upsampling.factors, (6, 8))
    found = run_upsampled(unit, inputs, upsampling, domain=0)
    expected = unit(upsampling.upsample(inputs), domain=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-12)


def test_another_unit_receives_up_sampled_inputs():
    class Other(conv_units.PlainUnit):
        def call(self, inputs, residual=None, *, domain):
            assert [tuple(each.shape[1:4]) for each in inputs] == [(4, 4, 4)] * 4
            return super().call(inputs, residual, domain=domain)

    upsampling = LinearUpsampling(FACTORS, True)
    found = run_upsampled(build(Other), inputs_of(), upsampling, domain=0)
    unit = build(conv_units.PlainUnit)
    expected = run_upsampled(unit, inputs_of(), upsampling, domain=0)
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-11)


class TestAddCheckpointed:
    def summands(self, total, *tensors):
        for number, tensor in enumerate(tensors):

            def function(tensor, number=number):
                return tf.sin(tensor, name=f"summand_{number}")

            total = add_checkpointed(total, function, tensor)
        return total

    @pytest.mark.parametrize("wrap", [lambda f: f, tf.function(autograph=False)])
    def test_values_and_gradients(self, wrap):
        tensors = [draw((3,), seed=seed) for seed in range(3)]
        found = wrap(lambda *tensors: differentiate(self.run, tensors, []))(*tensors)
        expected = differentiate(
            lambda t: t[0] + tf.sin(t[1]) + tf.sin(t[2]), tensors, []
        )
        for one, other in zip(found, expected, strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-12)

    def run(self, tensors):
        return self.summands(*tensors)

    def test_one_at_a_time(self):
        """In the order of the graph: first forward, then backward."""
        tensors = [draw((3,), seed=seed) for seed in range(3)]
        graph = (
            tf.function(lambda *tensors: differentiate(self.run, tensors, []))
            .get_concrete_function(*tensors)
            .graph
        )
        operations = graph.get_operations()
        first, second = (
            [each for each in operations if f"summand_{number}" in each.name]
            for number in range(2)
        )
        # Sines and their recomputations.
        assert [len(first), len(second)] == [2, 2]
        of_second, of_first = (each for each in operations if each.type == "Cos")
        assert first[0] in before(second[0])
        assert of_second in before(first[1])
        assert of_second in before(of_first)
        assert of_first not in before(of_second)


def before(operation):
    """Operations that run before this one."""
    found, waiting = set(), [operation]
    while waiting:
        current = waiting.pop()
        for other in (*(t.op for t in current.inputs), *current.control_inputs):
            if other not in found:
                found.add(other)
                waiting.append(other)
    return found
