"""Writes forward pass and training step as XLA modules with their inputs.

    python -m tools.bench.hlo.emit --output_dir=DIR --patch_sizes=64,128

The modules compute domain 0 of the universal network of five domains. A step is that of
the `Trainer`: forward pass, loss, backward pass and Adam in one module.
`tools.bench.hlo.run` executes the modules on any device that JAX supports, without
TensorFlow.
"""

from __future__ import annotations

import dataclasses
import gzip
import itertools
import json
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from absl import flags

from tools.bench import flags as bench_flags
from tools.bench.networks import build_ours
from tools.bench.setting import ADAM, BETA_2, Setting, draw_batch
from u2net_tf import command, files, machine

PARTS = ("forward", "step")
# Name -> dtype policy of the network.
PRECISIONS = {
    "float32": "float32",
    "bfloat16": "mixed_bfloat16",
}
IMPLEMENTATIONS = ("xla", "plain", "xla_module", "triton")
# Stride along each axis of the logits that are written for comparison.
LOGIT_STRIDE = 8
# Inputs that are not variables, in the order of the arguments.
BATCH = ("images", "labels")
# Part of the paths of Adam's second moments, which yield the first gradient's norm.
VELOCITY = "/velocity/"
OPTIMIZERS = ("optimizer/shared/", "optimizer/domain_0/")


@dataclasses.dataclass(frozen=True)
class Module:
    """A module to write.

    Attributes:
        part: one of `PARTS`.
        setting: architecture and size.
        precision: one of `PRECISIONS`.
        implementation: one of `IMPLEMENTATIONS`. Those of "triton" run on a GPU only.
        gradient_checkpointing: gradient checkpointing of the network. With "xla" and
            "plain", XLA eliminates the recomputation.
        tensor_float_32: whether float32 products may round their factors.
    """

    part: str
    setting: Setting
    precision: str
    implementation: str
    gradient_checkpointing: str
    tensor_float_32: bool

    @property
    def name(self) -> str:
        """Name of the module's folder."""
        size = "x".join(map(str, (self.setting.batch_size, *self.setting.patch_size)))
        suffixes = ["tf32"] if self.tensor_float_32 else []
        if self.gradient_checkpointing != "none":
            suffixes.append(self.gradient_checkpointing)
        return "-".join(
            [self.part, size, self.precision, self.implementation, *suffixes]
        )


@dataclasses.dataclass(frozen=True)
class _Traced:
    """A function to compile, with the data needed to call it elsewhere.

    Attributes:
        function: a `tf.function` with `jit_compile=True`.
        arguments: arguments of the function.
        variables: path -> variable, for all variables that it reads.
        results: runs the function in TensorFlow and returns the values to compare.
    """

    function: Any
    arguments: Sequence[Any]
    variables: Mapping[str, Any]
    results: Callable[[], Mapping[str, np.ndarray]]


def write(module: Module, folder: pathlib.Path, *, compare: bool) -> int:
    """Writes a module, the names of its inputs and the results of TensorFlow.

    Args:
        module: the module.
        folder: parent of the module folders and the batches.
        compare: whether to run it in TensorFlow, as the reference for `run`.

    Returns:
        Uncompressed size of the module in bytes.
    """
    machine.import_tensorflow()
    import tensorflow as tf

    from u2net_tf.networks import ops

    tf.config.experimental.enable_tensor_float_32_execution(module.tensor_float_32)
    network = build_ours(
        module.setting,
        dtype=PRECISIONS[module.precision],
        gradient_checkpointing=module.gradient_checkpointing,
    )
    with ops.use_implementation(module.implementation):
        traced = (_step if module.part == "step" else _forward)(module, network)
        names, arrays = _inputs(traced)
        compiler_ir = traced.function.experimental_get_compiler_ir(*traced.arguments)
        serialized = _portable(compiler_ir(stage="hlo_serialized"))
    # With the default implementation, since "triton" does not run on a CPU.
    results = traced.results() if compare else {}
    target = folder / module.name
    batch = _batch_file(module.setting)
    _write_arrays(folder / batch, {k: v for k, v in arrays.items() if k in BATCH})
    variables = {k: v for k, v in arrays.items() if k not in BATCH}
    _write_arrays(target / "variables.npz", variables)
    _write_arrays(target / "expected.npz", results)
    with files.atomic_write(target / "module.hlo.gz") as path:
        path.write_bytes(gzip.compress(serialized))
    about = {
        **dataclasses.asdict(module),
        "inputs": names,
        "batch": batch,
        "beta_2": BETA_2,
        "logit_stride": LOGIT_STRIDE,
        "tensorflow": tf.__version__,
    }
    files.write_text(target / "about.json", json.dumps(about, indent=1) + "\n")
    return len(serialized)


def _forward(module: Module, network) -> _Traced:
    import tensorflow as tf

    images = tf.constant(draw_batch(module.setting, 0)[0])

    def forward(images):
        return network(images, domain=0, training=False)

    def results():
        stride = slice(None, None, LOGIT_STRIDE)
        logits = tf.function(forward, autograph=False)(images)
        return {"logits": logits.numpy()[:, stride, stride, stride].astype(np.float32)}

    return _Traced(
        tf.function(forward, jit_compile=True, autograph=False),
        [images],
        network.variables_by_path(),
        results,
    )


def _step(module: Module, network) -> _Traced:
    import tensorflow as tf

    from u2net_tf.training.step import Trainer

    # The focal factor is detached, as in the other benchmarks.
    trainer = Trainer(network, detach_focal_factor=True, **ADAM)
    image, labels = draw_batch(module.setting, 0)
    batch = {"image": tf.constant(image), "labels": tf.constant(labels)}
    variables = {**network.variables_by_path(), **trainer.variables_by_path()}

    def results():
        loss = trainer.step(0, batch)
        squares = {
            path: float(variables[path].numpy().sum(dtype=float)) / (1 - BETA_2)
            for path in variables
            if VELOCITY in path and path.startswith(OPTIMIZERS)
        }
        norms = {f"norm/{path}": np.sqrt(value) for path, value in squares.items()}
        return {"loss": np.asarray(loss), **norms}

    return _Traced(
        trainer.step_function(0, jit_compile=True),
        [trainer.state(0), batch["image"], batch["labels"]],
        variables,
        results,
    )


def _inputs(traced: _Traced) -> tuple[list[str], dict[str, np.ndarray]]:
    """Returns the names of the module's inputs in order, and their values by name."""
    import tensorflow as tf

    paths = {}
    for path, variable in traced.variables.items():
        value = variable if isinstance(variable, tf.Variable) else variable.value
        paths[value.handle._id] = path
    function = traced.function.get_concrete_function(*traced.arguments)
    names, arrays = [], {}
    for tensor in [*tf.nest.flatten(list(traced.arguments)), *function.captured_inputs]:
        handle = tensor.handle if isinstance(tensor, tf.Variable) else tensor
        if handle.dtype == tf.resource:
            name = paths[handle._id]
            variable = traced.variables[name]
            arrays[name] = np.asarray(variable)
        else:
            name = BATCH[len([each for each in names if each in BATCH])]
            arrays[name] = tensor.numpy()
        names.append(name)
    return names, arrays


def _portable(serialized: bytes) -> bytes:
    """Returns the module without copies, which conversion to StableHLO rejects."""
    from tensorflow.compiler.xla.service import hlo_pb2

    module = hlo_pb2.HloModuleProto.FromString(serialized)
    for computation in module.computations:
        for instruction in computation.instructions:
            if instruction.opcode == "copy":
                # Reshaping to the same shape has no effect.
                instruction.opcode = "reshape"
    return module.SerializeToString()


def _write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    with files.atomic_write(path) as temporary, open(temporary, "wb") as file:
        np.savez_compressed(file, **arrays)


def _batch_file(setting: Setting) -> str:
    size = "x".join(map(str, (setting.batch_size, *setting.patch_size)))
    return f"batch-{size}.npz"


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "output_dir",
        None,
        "Folder to write; existing modules are replaced.",
        required=True,
    )
    bench_flags.define_network_flags()
    flags.DEFINE_list("patch_sizes", ["64"], "Edges of the patches in voxels.")
    flags.DEFINE_multi_enum("part", PARTS, PARTS, "Part to write; may be repeated.")
    flags.DEFINE_multi_enum(
        "precision",
        ["float32"],
        list(PRECISIONS),
        "Precision of the computation; may be repeated.",
    )
    flags.DEFINE_multi_enum(
        "implementation",
        ["xla"],
        IMPLEMENTATIONS,
        "Implementation of the operations; may be repeated. Training that compiles a "
        "step as one module uses triton or, where that cannot run, xla_module.",
    )
    flags.DEFINE_multi_enum(
        "gradient_checkpointing",
        ["none"],
        ("none", "blocks"),
        "Gradient checkpointing, as in training; may be repeated.",
    )
    flags.DEFINE_bool(
        "tensor_float_32", False, "Let float32 products round their factors."
    )
    flags.DEFINE_bool(
        "compare",
        True,
        "Also run each module in TensorFlow and write its results. A step takes "
        "14 GB at 2 × 128³.",
    )


def modules() -> list[Module]:
    """Returns the modules that the flags request."""
    values, options = flags.FLAGS, bench_flags.network_options()
    return [
        Module(part, Setting(patch_size=size, **options), *computed, tf32)
        for size, *computed, part, tf32 in itertools.product(
            bench_flags.cubes("patch_sizes", options["pools"]),
            values.precision,
            values.implementation,
            values.gradient_checkpointing,
            values.part,
            [values.tensor_float_32],
        )
    ]


def main(argv: Sequence[str]) -> None:
    """Writes the modules that the flags request."""
    del argv  # flags only; `command.start` has checked
    folder = files.absolute_path(flags.FLAGS.output_dir)
    for module in modules():
        size = write(module, folder, compare=flags.FLAGS.compare)
        print(f"wrote {folder / module.name}, {size / 1e6:.1f} MB of operations")


if __name__ == "__main__":
    define_flags()
    command.start(main)
