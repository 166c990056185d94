"""TensorFlow's own XLA compiles the kernels; no GPU is needed."""

import os
import pathlib
import shutil
import subprocess

import pytest
import tensorflow as tf

from tools.bench.hlo.plan import H200
from u2net_tf.networks.ops.implementations.triton import availability

SOURCE = pathlib.Path(__file__).parents[2] / "compile_for_gpu.cc"


@pytest.fixture(scope="module")
def compiler(tmp_path_factory):
    """The program of `SOURCE`, linked with TensorFlow's libraries."""
    if shutil.which("g++") is None or not tf.test.is_built_with_cuda():
        pytest.skip("needs g++ and a build of TensorFlow for CUDA")
    folder = pathlib.Path(tf.sysconfig.get_lib())
    headers = pathlib.Path(tf.sysconfig.get_include())
    external = [path for path in (headers / "external").iterdir() if path.is_dir()]
    inner = [path / name for path in external for name in ("include", "src")]
    program = tmp_path_factory.mktemp("compiler") / "compile_for_gpu"
    subprocess.run(
        [
            *("g++", "-w", *tf.sysconfig.get_compile_flags()),
            f"-I{headers / 'third_party'}",
            *(f"-I{path}" for path in (*external, *inner) if path.is_dir()),
            *(SOURCE, "-o", program, f"-L{folder}", f"-Wl,-rpath,{folder}"),
            *("-l:libtensorflow_cc.so.2", "-l:libtensorflow_framework.so.2"),
        ],
        check=True,
    )
    return program


def compile_example(compiler, folder, capability):
    """Compiles the example for an H200 that has another compute capability."""
    module, target = folder / "module", folder / "target"
    example = availability._compiled_example.experimental_get_compiler_ir()
    module.write_bytes(example(stage="hlo_serialized"))
    major, minor = capability
    found = "{ major: 9 minor: 0 }"
    assert found in H200
    target.write_text(H200.replace(found, f"{{ major: {major} minor: {minor} }}"))
    # Tuning would run kernels.
    environment = os.environ | {"XLA_FLAGS": "--xla_gpu_autotune_level=0"}
    return subprocess.run(
        [compiler, module, target], capture_output=True, check=False, env=environment
    )


@pytest.mark.slow
@pytest.mark.parametrize("capability", [(8, 0), (9, 0)])
def test_tensorflow_compiles_the_kernels(compiler, tmp_path, capability):
    done = compile_example(compiler, tmp_path, capability)
    assert done.returncode == 0, done.stdout[:1000] + done.stderr[-1000:]
    # Machine code, and the names of both kernels.
    for expected in (b"\x7fELF", b"depthwise_kernel_gradient", b"depthwise__"):
        assert expected in done.stdout


@pytest.mark.slow
def test_tensorflow_refuses_older_cards(compiler, tmp_path):
    done = compile_example(compiler, tmp_path, (7, 5))
    assert done.returncode == 1
    assert b"only enabled for Ampere GPUs" in done.stdout
