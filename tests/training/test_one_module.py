"""Steps that XLA compiles as one module give the same results as other steps."""

import os
import pathlib
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy
import triton_interpreter

from u2net_tf.config.training import TrainConfig
from u2net_tf.errors import InputError
from u2net_tf.models.build import build_network
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks import ops
from u2net_tf.networks.gradient_checkpointing import call_checkpointed
from u2net_tf.networks.ops.implementations.triton import operations
from u2net_tf.plan.domains import Plan
from u2net_tf.training import runs, strategy
from u2net_tf.training.step import Trainer

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


class MatrixNetwork(toy.ToyNetwork):
    """The toy network with its matrix products as pointwise convolutions."""

    def call(self, inputs, *, domain, training=None):
        hidden = inputs
        for kernel in (self.stems[domain], self.trunk, self.heads[domain]):
            if hidden is not inputs:
                hidden = tf.nn.leaky_relu(hidden)
            weights = tf.convert_to_tensor(kernel)[None, None, None]
            hidden = ops.conv3d(tf.cast(hidden, weights.dtype), weights)
        return hidden


def make_trainer(precision="float32", **options):
    keras.utils.set_random_seed(0)
    network = MatrixNetwork([1, 2], [2, 3], dtype=precision)
    network.build()
    options = {"learning_rate": 0.01, "weight_decay": 0.1, **options}
    return Trainer(network, **options)


def state_of(trainer):
    variables = {**trainer.network.variables_by_path(), **trainer.variables_by_path()}
    return {path: np.asarray(variable) for path, variable in variables.items()}


def assert_close(one, other, tolerance):
    assert one.keys() == other.keys()
    for path, value in one.items():
        np.testing.assert_allclose(
            value, other[path], rtol=0, atol=tolerance, err_msg=path
        )


@pytest.mark.parametrize(
    ("precision", "tolerance"),
    [
        ("float32", 1e-5),
        pytest.param("mixed_bfloat16", 0.02, marks=pytest.mark.slow),
        # Fast tests in float16 only check that an overflow halves the scale.
        pytest.param("mixed_float16", 0.02, marks=pytest.mark.slow),
    ],
)
@pytest.mark.slow
def test_a_step_equals_that_of_single_operations(precision, tolerance):
    """Compares losses and all variables, also of Adam, averages and loss scale."""
    module, single = (
        make_trainer(precision, jit_compile=jit_compile, weight_ema_decay=0.5)
        for jit_compile in (True, False)
    )
    assert module.jit_compile
    for domain, description in enumerate(toy.PLAN.domains):
        batch = toy.draw_batch(description)
        loss = module.step(domain, batch)
        assert loss == pytest.approx(single.step(domain, batch), rel=tolerance)
    assert_close(state_of(module), state_of(single), tolerance)


def test_the_step_is_one_module(monkeypatch):
    """The step also uses the implementation for a single module."""
    given = []

    def call(self, inputs, *, domain, training=None):
        given.append(ops.current_implementation())
        return MatrixNetwork.call(self, inputs, domain=domain)

    kind = type("Network", (MatrixNetwork,), {"call": call})
    for jit_compile in (True, False):
        network = kind([1], [2])
        network.build()
        trainer = Trainer(
            network, learning_rate=0.01, weight_decay=0.0, jit_compile=jit_compile
        )
        batch = toy.draw_batch(toy.ONE)
        arguments = trainer.state(0), batch["image"], batch["labels"]
        function = trainer._steps[0].get_concrete_function(*arguments)
        assert function.function_def.attr["_XlaMustCompile"].b == jit_compile
    assert given == ["xla_module", "xla"]


def test_an_overflow_skips_the_step_and_halves_the_scale():
    trainer = make_trainer("mixed_float16", jit_compile=True)
    batch = toy.draw_batch(toy.ONE)
    batch["image"] *= 1e4
    before = state_of(trainer)
    trainer.step(0, batch)
    after = state_of(trainer)
    assert after.pop("loss_scale/value") == before.pop("loss_scale/value") / 2
    assert after.pop("loss_scale/steps_left_out") == 1
    assert before.pop("loss_scale/steps_left_out") == 0
    for path, value in before.items():
        np.testing.assert_array_equal(after[path], value, err_msg=path)


# On a CPU, XLA removes barriers before it merges equal computations; on a GPU, after.
_KEEP_BARRIERS = "--xla_disable_hlo_passes=cse_barrier_expander"
_COUNT_PRODUCTS = """
import numpy as np
import tensorflow as tf
from u2net_tf.networks import ops
from u2net_tf.networks.gradient_checkpointing import call_checkpointed

weights = tf.constant(np.eye(4))


def block(x):
    return tf.sin(tf.sin(x @ weights) @ weights)


def checkpointed(x):
    return call_checkpointed(block, [], x)


def count(implementation, function):
    @tf.function(jit_compile=True, autograph=False)
    def run(x):
        with ops.use_implementation(implementation), tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(function(function(x)) ** 2)
        return tape.gradient(total, x)

    compiler_ir = run.experimental_get_compiler_ir(tf.constant(np.eye(4)))
    return compiler_ir(stage="optimized_hlo").count(" dot(")


print(count("xla_module", block))
print(count("xla", checkpointed))
print(count("xla_module", checkpointed))
"""


@pytest.mark.slow
def test_recomputation_is_not_merged_away():
    """Each of the two blocks takes two products forward, two backward and two again."""
    done = subprocess.run(
        [sys.executable, "-c", _COUNT_PRODUCTS],
        env={
            **os.environ,
            "XLA_FLAGS": "--xla_disable_hlo_passes=cse_barrier_expander",
        },
        cwd=pathlib.Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=True,
    )
    kept, merged, twice = map(int, done.stdout.split())
    assert kept == merged == 8
    assert twice == 12


def test_recomputation_follows_a_barrier():
    def count(implementation):
        @tf.function(jit_compile=True, autograph=False)
        def run(x):
            with ops.use_implementation(implementation), tf.GradientTape() as tape:
                tape.watch(x)
                total = tf.reduce_sum(call_checkpointed(tf.sin, [], x))
            return tape.gradient(total, x)

        x = tf.constant([0.5, 1.0])
        np.testing.assert_allclose(run(x), np.cos(x), rtol=1e-6)
        return run.experimental_get_compiler_ir(x)(stage="hlo").count(" opt-barrier(")

    assert [count("xla"), count("xla_module")] == [0, 1]


def real_trainer(adapter, precision, plan, *, jit_compile, **options):
    keras.utils.set_random_seed(0)
    checkpointing = options.pop("gradient_checkpointing", "none")
    spec = ModelSpec(plan=plan, pools=(1, 0, 1), base_channels=2, adapter=adapter)
    network = build_network(spec, dtype=precision, gradient_checkpointing=checkpointing)
    return Trainer(
        network,
        learning_rate=0.01,
        weight_decay=0.0,
        jit_compile=jit_compile,
        **options,
    )


@pytest.mark.slow
@pytest.mark.parametrize(
    ("adapter", "precision", "options"),
    [
        # Every adapter and precision; one domain, several, and one that is added.
        ("none", "float32", {}),
        ("series", "mixed_bfloat16", {}),
        ("parallel", "mixed_float16", {}),
        ("separable", "float32", {}),
        ("separable", "mixed_bfloat16", {"gradient_checkpointing": "blocks"}),
        ("separable", "mixed_float16", {"domains": [1], "train_shared": False}),
    ],
)
def test_steps_of_the_network(adapter, precision, options):
    plan = Plan((toy.ONE,)) if adapter == "none" else toy.PLAN
    tolerance = 1e-4 if precision == "float32" else 0.05
    domain = options.get("domains", [0])[0]
    batches = [toy.draw_batch(plan.domains[domain], seed) for seed in range(2)]
    losses = []
    for jit_compile in (True, False):
        trainer = real_trainer(
            adapter, precision, plan, jit_compile=jit_compile, **dict(options)
        )
        losses.append([trainer.step(domain, batch) for batch in batches])
    np.testing.assert_allclose(*losses, rtol=tolerance)
    assert np.isfinite(losses).all()


@pytest.mark.slow
@pytest.mark.parametrize(
    "arguments",
    [
        ("series", "float32"),
        ("parallel", "mixed_float16"),
        ("separable", "mixed_bfloat16"),
        ("separable", "mixed_float16", "added"),
    ],
)
def test_steps_of_two_replicas(arguments, run_two_replicas):
    run_two_replicas("module", *arguments)


@pytest.mark.slow
def test_every_unit_is_recomputed_after_a_barrier():
    def count(gradient_checkpointing):
        trainer = real_trainer(
            "none",
            "float32",
            Plan((toy.ONE,)),
            jit_compile=True,
            gradient_checkpointing=gradient_checkpointing,
        )
        batch = toy.draw_batch(toy.ONE)
        arguments = trainer.state(0), batch["image"], batch["labels"]
        text = trainer._steps[0].experimental_get_compiler_ir(*arguments)(stage="hlo")
        return text.count(" opt-barrier(")

    # Two surround the gradient of each of nine norms. The stem and seven units are
    # recomputed. Without adapters there are no depthwise convolutions.
    assert [count("none"), count("blocks")] == [18, 18 + 8]


class TestSetting:
    @pytest.mark.parametrize(
        ("jit_compile", "num_gpus", "expected"),
        [
            ("auto", 0, False),
            ("auto", 1, True),
            ("auto", 2, True),
            ("true", 0, True),
            ("true", 1, True),
            ("false", 1, False),
            ("false", 2, False),
        ],
    )
    def test_decides(self, simulate_gpus, jit_compile, num_gpus, expected):
        simulate_gpus(num_gpus)
        assert strategy.compiles_steps(jit_compile) == expected

    @pytest.mark.usefixtures("toy_network", "shared_input")
    @pytest.mark.parametrize("jit_compile", ["true", "false"])
    def test_reaches_the_trainer(self, make_config, tmp_path, jit_compile, monkeypatch):
        made = []

        def trainer(*arguments, **options):
            made.append(options["jit_compile"])
            return Trainer(*arguments, **{**options, "jit_compile": False})

        monkeypatch.setattr(runs, "Trainer", trainer)
        with toy.eager_steps():
            runs.train(
                make_config(tmp_path, jit_compile=jit_compile, steps_per_epoch=1)
            )
        assert made == [jit_compile == "true"]

    def test_default(self, make_config, tmp_path):
        config = make_config(tmp_path)
        assert isinstance(config, TrainConfig)
        assert config.compute.jit_compile == "auto"


class TestTritonKernels:
    """Which implementation of the operations a compiled step uses."""

    @pytest.fixture
    def reason(self, monkeypatch, simulate_gpus):
        """Simulates why the kernels cannot be used, None if they can; counts GPUs."""

        def pretend(reason, num_gpus=1):
            simulate_gpus(num_gpus)
            monkeypatch.setattr(strategy, "reason_unavailable", lambda: reason)

        return pretend

    @pytest.mark.parametrize(
        ("triton_kernels", "jit_compile", "reason_found", "expected"),
        [
            ("auto", True, None, "triton"),
            ("auto", True, "they fail", None),
            ("auto", False, None, None),
            ("true", True, None, "triton"),
            ("false", True, None, None),
            ("false", False, None, None),
        ],
    )
    def test_decides(self, reason, triton_kernels, jit_compile, reason_found, expected):
        reason(reason_found)
        found = strategy.module_implementation(triton_kernels, jit_compile=jit_compile)
        assert found == expected

    @pytest.mark.parametrize(
        ("jit_compile", "received"),
        [(True, "they fail"), (False, "XLA does not compile the steps")],
    )
    def test_required_but_impossible(self, reason, jit_compile, received):
        reason("they fail")
        message = f"`triton_kernels`: expected auto or false, .*true, but {received}"
        with pytest.raises(InputError, match=message):
            strategy.module_implementation("true", jit_compile=jit_compile)

    @pytest.mark.parametrize("num_gpus", [0, 1])
    def test_a_gpu_without_them_is_reported(self, reason, num_gpus, caplog):
        reason("they fail", num_gpus)
        strategy.module_implementation("auto", jit_compile=True)
        assert ("Triton kernels are not used" in caplog.text) == (num_gpus == 1)
        assert ("they fail" in caplog.text) == (num_gpus == 1)

    @pytest.mark.usefixtures("toy_network", "shared_input")
    @pytest.mark.parametrize("triton_kernels", ["auto", "false"])
    def test_reaches_the_trainer(
        self, make_config, tmp_path, triton_kernels, reason, monkeypatch
    ):
        made = []

        def trainer(*arguments, **options):
            made.append(options["implementation"])
            changed = {"jit_compile": False, "implementation": None}
            return Trainer(*arguments, **options | changed)

        monkeypatch.setattr(runs, "Trainer", trainer)
        monkeypatch.setattr(strategy, "reason_unavailable", lambda: None)
        options = {"jit_compile": "true", "triton_kernels": triton_kernels}
        with toy.eager_steps():
            runs.train(make_config(tmp_path, **options, steps_per_epoch=1))
        assert made == [{"auto": "triton", "false": None}[triton_kernels]]


@pytest.mark.parametrize(
    ("adapter", "precision", "options"),
    [
        ("separable", "float32", {}),
        ("none", "mixed_bfloat16", {}),
        ("series", "float32", {}),
        ("parallel", "mixed_float16", {}),
        ("separable", "mixed_bfloat16", {"gradient_checkpointing": "blocks"}),
    ],
)
@pytest.mark.slow
def test_steps_with_triton_kernels(monkeypatch, adapter, precision, options):
    """An interpreter runs the kernels, and TensorFlow the other operations."""
    monkeypatch.setattr(operations, "launch", triton_interpreter.launch)
    plan = Plan((toy.ONE,)) if adapter == "none" else toy.PLAN
    batch = toy.draw_batch(plan.domains[0])
    losses = []
    for implementation in ("triton", "plain"):
        trainer = real_trainer(
            adapter,
            precision,
            plan,
            jit_compile=False,
            implementation=implementation,
            **options,
        )
        losses.append([trainer.step(0, batch) for _ in range(2)])
        types = {node.op for node in trainer_nodes(trainer, batch)}
        assert ("PyFunc" in types) == (implementation == "triton")
    tolerance = 1e-4 if precision == "float32" else 0.05
    np.testing.assert_allclose(*losses, rtol=tolerance)


def trainer_nodes(trainer, batch):
    """Returns the operations of the step of domain 0."""
    step = trainer._steps[0]
    arguments = trainer.state(0), batch["image"], batch["labels"]
    definition = step.get_concrete_function(*arguments).graph.as_graph_def()
    bodies = [definition.node, *(each.node_def for each in definition.library.function)]
    return [node for body in bodies for node in body]
