"""The computing environment, on which the last bits of a result depend."""

from __future__ import annotations

import importlib.metadata
import os
import pathlib
import platform

from u2net_tf import machine, schema
from u2net_tf.file_format import version
from u2net_tf.schema import Size, Text
from u2net_tf.source_commit import source_commit

# Libraries that logits and label maps depend on.
_LIBRARIES = ("tensorflow", "keras", "numpy", "SimpleITK", "nibabel", "pydicom")
_CPU_INFO = pathlib.Path("/proc/cpuinfo")


@schema.model
class Build:
    """Software and processor of a computation.

    Attributes:
      program: name and version of this package.
      commit: its commit; None if unknown.
      python: version of Python.
      libraries: name -> version.
      system: operating system and architecture.
      cpu: name of the processor.
      num_cores: number of cores available to the process.
      onednn: environment variable TF_ENABLE_ONEDNN_OPTS; "" if not set.
    """

    program: Text
    commit: Text | None
    python: Text
    libraries: dict[str, Text]
    system: Text
    cpu: Text
    num_cores: Size
    onednn: str


def current_build() -> Build:
    """Returns the build of this process."""
    return Build(
        program=version(),
        commit=source_commit(),
        python=platform.python_version(),
        libraries={name: _version(name) for name in _LIBRARIES},
        system=f"{platform.system()} {platform.machine()}",
        cpu=_cpu_name(),
        num_cores=machine.num_cores(),
        onednn=os.environ.get("TF_ENABLE_ONEDNN_OPTS", ""),
    )


def _version(name: str) -> str:
    # TensorFlow is also distributed under other names, such as tensorflow-cpu.
    names = [name, "tensorflow-cpu"] if name == "tensorflow" else [name]
    for each in names:
        try:
            return importlib.metadata.version(each)
        except importlib.metadata.PackageNotFoundError:
            continue
    return "unknown"


def _cpu_name() -> str:
    try:
        lines = _CPU_INFO.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    for line in lines:
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return value.strip()
    return platform.processor() or platform.machine() or "unknown"
