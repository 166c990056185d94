"""Reads the parameters of the published network from the files that PyTorch writes.

The published training writes more than parameters into its `.pth.tar`: the pickled
network, optimizer and queues, whose classes are not here. Nothing in a file is run:
what is no tensor is replaced by an object that does nothing.
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
# Where checkpoints keep the state dict: the published training, and what is common.
STATE_DICT_KEYS = ("model_state_dict", "state_dict")
# Of `torch.nn.DataParallel`, in which the published training puts every network.
DATA_PARALLEL = "module."
# Of the arrays in the golden files, beside which lie images and gradients.
GOLDEN = "param/"
INSTALL_TORCH = "pip install 'u2net-tf[torch]'"


class Published(NamedTuple):
    """Parameters by the published network's names, and what was left aside to get them.

    Attributes:
      params: Name, such as "down_blocks.0.op1.conv.weight", to float32 array.
      notes: What was taken and what was left, a line each.
    """

    params: dict[str, np.ndarray]
    notes: tuple[str, ...]


def read_published(path: pathlib.Path) -> Published:
    """Reads a state dict (`.pth`), a training's checkpoint (`.pth.tar`) or an `.npz`.

    Raises:
      InputError: If there is no such file, it is damaged or it holds something else.
      StoppedError: If PyTorch is needed and not installed.
    """
    if not path.is_file():
        raise InputError(path, expected="a file of weights", received="no such file")
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
            left = len(archive.files) - len(params)
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
            expected="an .npz of arrays",
            received=f"another file or a damaged one: {error}",
        ) from error
    if golden:
        notes.append(f"taken: the arrays named {GOLDEN}…; left: {left} others")
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
            expected="a state dict, or a checkpoint that holds one",
            received=f"an object of type {type(content).__name__}",
            hint="Save network.state_dict()",
        )
    for key in STATE_DICT_KEYS:
        if isinstance(content.get(key), Mapping):
            left = ", ".join(sorted(str(other) for other in content if other != key))
            notes.append(f"taken: {key}; left: {left or 'nothing'}")
            content = content[key]
            break
    others = [str(key) for key, value in content.items() if not torch.is_tensor(value)]
    if others:
        raise InputError(
            path,
            expected="a state dict, or a checkpoint that holds one as "
            f"{' or '.join(STATE_DICT_KEYS)}",
            received=f"values that are no tensors: {sorted(others)}",
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
            path, expected="a name and a dense float32 tensor each", received=others
        )
    params = {name: tensor.detach().numpy() for name, tensor in content.items()}
    if params and all(name.startswith(DATA_PARALLEL) for name in params):
        notes.append(f"DataParallel's {DATA_PARALLEL!r} taken off every name")
        params = {
            name.removeprefix(DATA_PARALLEL): array for name, array in params.items()
        }
    return params


def _load(path: pathlib.Path, notes: list[str]) -> Any:
    """What lies in a file of PyTorch; nothing of it is run."""
    import torch

    try:
        try:
            return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError:
            pass
        with warnings.catch_warnings():
            # PyTorch compares the source code of pickled networks with today's.
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
            expected="a file that torch.save wrote",
            received=f"another file or a damaged one: {error}",
        ) from error
    notes.append("pickled objects that are no tensors were passed over, not run")
    return content


class _Nothing:
    """Stands in for every object that is no tensor: takes anything, does nothing."""

    dump_patches = False  # PyTorch asks this of the class of a pickled network.

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
    """Makes tensors and dictionaries, and of every other class a `_Nothing`."""

    def find_class(self, module_name: str, name: str) -> Any:
        import torch

        made = {
            ("collections", "OrderedDict"): collections.OrderedDict,
            ("torch._utils", "_rebuild_tensor"): torch._utils._rebuild_tensor,
            ("torch._utils", "_rebuild_tensor_v2"): torch._utils._rebuild_tensor_v2,
            ("torch._utils", "_rebuild_parameter"): torch._utils._rebuild_parameter,
        }
        return made.get((module_name, name), _Nothing)


def _tensor_pickle() -> types.ModuleType:
    """What `torch.load` takes in place of the module `pickle`."""
    module = types.ModuleType("tensor_pickle")
    functions = {
        "Unpickler": _TensorUnpickler,
        "load": lambda file, **kwargs: _TensorUnpickler(file, **kwargs).load(),
    }
    module.__dict__.update(functions)
    return module
