"""XLA's cache on disk keeps steps that are compiled as one module.

    TF_XLA_FLAGS=--tf_xla_persistent_cache_directory=DIR

It is TensorFlow's; docs/running.md recommends it.
"""

import os
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
STEP = """
import sys
sys.path[:0] = sys.argv[1:]
import toy
spec, trainer = toy.make_trainer(jit_compile=True)
batch = toy.draw_batch(toy.ONE)
print([float(trainer.step(0, batch)).hex() for _ in range(3)])
"""


@pytest.mark.slow
def test_a_second_run_uses_the_compiled_step_and_gets_the_same_bits(tmp_path):
    def run(**environment):
        done = subprocess.run(
            [sys.executable, "-c", STEP, str(ROOT), str(ROOT / "tests")],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            check=True,
        )
        return done.stdout

    flags = {"TF_XLA_FLAGS": f"--tf_xla_persistent_cache_directory={tmp_path}"}
    first = run(**flags)
    (compiled,) = tmp_path.iterdir()
    before = compiled.stat()
    assert run(**flags) == first == run()
    (again,) = tmp_path.iterdir()
    assert (again.stat().st_ino, again.stat().st_mtime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
    )
    # It is read.
    compiled.write_bytes(b"damaged")
    with pytest.raises(subprocess.CalledProcessError):
        run(**flags)
