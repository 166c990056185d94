"""Reads the parameters of the published network from PyTorch files.

The `.pth.tar` files of the published training contain more than parameters: the pickled
network, optimizer and queues, whose classes are not available here. No code in a file
is executed: every object that is not a tensor is replaced by an inert placeholder.
"""

from __future__ import annotations

import collections
import pathlib
import pickle
import types
import warnings
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from typing_extensions import Self

from u2net_tf.errors import InputError, StoppedError

SUFFIXES = (".npz", ".pth", ".pt", ".pth.tar")
# Key of the state dict in checkpoints: in the published training, and by convention.
STATE_DICT_KEYS = ("model_state_dict", "state_dict")
# Prefix of `torch.nn.DataParallel`, in which the published training wraps networks.
DATA_PARALLEL = "module."
# Prefix of parameters in the golden files, which also contain images and gradients.
GOLDEN = "param/"
INSTALL_TORCH = "pip install 'u2net-tf[torch]'"


class Published(NamedTuple):
    """Parameters of the published network.

    Attributes:
      params: name, such as "down_blocks.0.op1.conv.weight" -> float32 array.
      notes: lines about which parts of the file were used and ignored.
    """

    params: dict[str, np.ndarray]
    notes: tuple[str, ...]


def read_published(path: pathlib.Path) -> Published:
    """Reads a state dict (`.pth`), a training checkpoint (`.pth.tar`) or an `.npz`.

    Raises:
      InputError: if the file is missing or damaged, or has no parameters.
      StoppedError: if PyTorch is needed but not installed.
    """
    if not path.is_file():
        raise InputError(path, expected="a file with weights", received="no such file")
    if not path.name.endswith(SUFFIXES):
        raise InputError(
            path,
            expected=f"a name ending in {', '.join(SUFFIXES)}",
            received=path.name,
        )
    notes: list[str] = []
    if path.suffix == ".npz":
        params = _read_npz(path, notes)
    else:
        params = _read_torch(path, notes)
    if not params:
        raise InputError(path, expected="parameters", received="none")
    _check_values(path, params)
    return Published(params, tuple(notes))


def _check_values(path: pathlib.Path, params: Mapping[str, np.ndarray]) -> None:
    for name, array in params.items():
        if array.dtype != np.float32:
            raise InputError(
                f"{path}: {name}", expected="float32", received=array.dtype
            )
        if not np.isfinite(array).all():
            raise InputError(
                f"{path}: {name}",
                expected="finite numbers",
                received="NaN or infinity",
            )


def _read_npz(path: pathlib.Path, notes: list[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as archive:
            golden = [name for name in archive.files if name.startswith(GOLDEN)]
            params = {name: archive[name] for name in golden or archive.files}
            num_ignored = len(archive.files) - len(params)
    except (
        AttributeError,
        EOFError,
        OSError,
        TypeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise InputError(
            path,
            expected="an .npz file with arrays",
            received=f"a different or damaged file: {error}",
        ) from error
    if golden:
        notes.append(f"used: the arrays {GOLDEN}*; ignored: {num_ignored} others")
    return {name.removeprefix(GOLDEN): array for name, array in params.items()}


def _read_torch(path: pathlib.Path, notes: list[str]) -> dict[str, np.ndarray]:
    try:
        import torch
    except ImportError as error:
        raise StoppedError(
            f"{path}: reading it needs PyTorch, which is not installed: {INSTALL_TORCH}"
        ) from error
    content = _load(path, notes)
    if not isinstance(content, Mapping):
        raise InputError(
            path,
            expected="a state dict, or a checkpoint that contains one",
            received=f"an object of type {type(content).__name__}",
            hint="Save network.state_dict()",
        )
    for key in STATE_DICT_KEYS:
        if isinstance(content.get(key), Mapping):
            ignored = ", ".join(sorted(str(name) for name in content if name != key))
            notes.append(f"used: {key}; ignored: {ignored or 'nothing'}")
            content = content[key]
            break
    others = [str(key) for key, value in content.items() if not torch.is_tensor(value)]
    if others:
        raise InputError(
            path,
            expected="a state dict, or a checkpoint that contains one as "
            f"{' or '.join(STATE_DICT_KEYS)}",
            received=f"values that are not tensors: {sorted(others)}",
        )
    others = [
        f"{name}: {tensor.dtype}"
        for name, tensor in content.items()
        if not isinstance(name, str)
        or tensor.dtype != torch.float32
        or tensor.is_sparse
    ]
    if others:
        raise InputError(
            path, expected="names with dense float32 tensors", received=others
        )
    params = {name: tensor.detach().numpy() for name, tensor in content.items()}
    if params and all(name.startswith(DATA_PARALLEL) for name in params):
        notes.append(f"removed: the DataParallel prefix {DATA_PARALLEL!r} of all names")
        params = {
            name.removeprefix(DATA_PARALLEL): array for name, array in params.items()
        }
    return params


def _load(path: pathlib.Path, notes: list[str]) -> Any:
    """Returns the content of a PyTorch file without executing code from it."""
    import torch

    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            pass
        with warnings.catch_warnings():
            # PyTorch warns if the source code of pickled classes has changed.
            warnings.simplefilter("ignore")
            content = torch.load(
                path,
                map_location="cpu",
                weights_only=False,
                pickle_module=_tensor_pickle(),
            )
    except (
        pickle.UnpicklingError,
        RuntimeError,
        ValueError,
        TypeError,
        AttributeError,
        LookupError,
        EOFError,
        UnicodeDecodeError,
    ) as error:
        raise InputError(
            path,
            expected="a file written by torch.save",
            received=f"a different or damaged file: {error}",
        ) from error
    notes.append("ignored: pickled objects that are not tensors; no code was executed")
    return content


class _Placeholder:
    """Inert placeholder for every object that is not a tensor."""

    dump_patches = False  # PyTorch reads this attribute of pickled networks.

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        return super().__new__(cls)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        pass

    def __call__(self, *args: Any, **kwargs: Any) -> Self:
        return self

    def __setstate__(self, state: Any) -> None:
        pass

    def __setitem__(self, key: Any, value: Any) -> None:
        pass

    def append(self, item: Any) -> None:
        pass

    def extend(self, items: Any) -> None:
        pass

    def add(self, item: Any) -> None:
        pass


class _TensorUnpickler(pickle.Unpickler):
    """Unpickles tensors and dictionaries, and replaces every other class."""

    def find_class(self, module_name: str, name: str) -> Any:
        import torch

        allowed = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
            ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
            ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        }
        return allowed.get((module_name, name), _Placeholder)


def _tensor_pickle() -> types.ModuleType:
    """Returns a replacement for the module `pickle` to pass to `torch.load`."""
    module = types.ModuleType("tensor_pickle")
    functions = {
        "Unpickler": _TensorUnpickler,
        "load": lambda file, **kwargs: _TensorUnpickler(file, **kwargs).load(),
    }
    module.__dict__.update(functions)
    return module
