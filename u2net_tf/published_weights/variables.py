"""Copies the published network's parameters into a `U2Net`, strictly by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

import numpy as np

from u2net_tf.errors import InputError
from u2net_tf.networks.conv_units import ParallelUnit, SeparableUnit, SeriesUnit
from u2net_tf.networks.layers import (
    DepthwiseConv3D,
    DomainConv3D,
    DomainNorm,
    SharedConv3D,
)

if TYPE_CHECKING:
    import keras

    from u2net_tf.networks.conv_units import ConvUnit
    from u2net_tf.networks.u2net import U2Net

    # Published name, layout, variable.
    Entry = tuple[str, str, keras.Variable]

# Kernels are (O, I, D, H, W) in PyTorch and (D, H, W, I, O) here; depthwise kernels are
# (C, 1, D, H, W) in PyTorch and (D, H, W, C) here.
DENSE, DEPTHWISE, VECTOR = "dense", "depthwise", "vector"


def published_variables(model: U2Net) -> Iterator[Entry]:
    """Yields (published name, layout, variable) for every variable of a model.

    Args:
      model: a `U2Net` that has been built.
    """
    for domain in range(model.num_domains):
        stem = f"in_tr_list.{domain}.op1"
        yield from _domain_conv(f"{stem}.0", model.stem.conv, domain)
        yield from _norm(f"{stem}.1.0", model.stem.norm, domain)
        for index, block in enumerate(model.deep_supervision):
            deep = f"dSupers.{index}.{domain}.op1"
            yield from _domain_conv(f"{deep}.0", block.conv, domain)
            yield from _norm(f"{deep}.1.0", block.norm, domain)
        yield from _domain_conv(f"out_tr_list.{domain}.conv1", model.head, domain)
    for level, block in enumerate(model.encoder):
        yield from _unit(f"down_blocks.{level}.op1", block.unit_1)
        yield from _unit(f"down_blocks.{level}.op2", block.unit_2)
    for level, block in enumerate(model.down_samples):
        yield from _unit(f"down_samps.{level}.op1", block)
    for level, block in enumerate(model.decoder):
        yield from _unit(f"up_samps.{level}.op", block.up_unit)
        yield from _unit(f"up_blocks.{level}.op1", block.unit_1)
        yield from _unit(f"up_blocks.{level}.op2", block.unit_2)


def _unit(name: str, unit: ConvUnit) -> Iterator[Entry]:
    if isinstance(unit, SeparableUnit):
        yield from _shared_conv(f"{name}.pwise.conv1", unit.pointwise)
    else:
        yield from _shared_conv(f"{name}.conv", unit.conv)
    for domain in range(unit.num_domains):
        yield from _norm(f"{name}.op.{domain}", unit.norm, domain)
        adapter = f"{name}.adapOps.{domain}"
        if isinstance(unit, SeparableUnit):
            yield from _domain_conv(f"{adapter}.conv1", unit.depthwise, domain)
            yield from _norm(f"{adapter}.op1.0", unit.depthwise_norm, domain)
        elif isinstance(unit, SeriesUnit):
            yield from _norm(f"{adapter}.op1.0", unit.adapter_norm, domain)
            yield from _domain_conv(f"{adapter}.op1.1", unit.adapter, domain)
        elif isinstance(unit, ParallelUnit):
            yield from _domain_conv(f"{adapter}.op1", unit.adapter, domain)


def _shared_conv(name: str, layer: SharedConv3D) -> Iterator[Entry]:
    yield f"{name}.weight", DENSE, layer.kernel
    yield f"{name}.bias", VECTOR, layer.bias


def _domain_conv(
    name: str, layer: DomainConv3D | DepthwiseConv3D, domain: int
) -> Iterator[Entry]:
    layout = DEPTHWISE if isinstance(layer, DepthwiseConv3D) else DENSE
    yield f"{name}.weight", layout, layer.kernels[domain]
    yield f"{name}.bias", VECTOR, layer.biases[domain]


def _norm(name: str, layer: DomainNorm, domain: int) -> Iterator[Entry]:
    yield f"{name}.weight", VECTOR, layer.gammas[domain]
    yield f"{name}.bias", VECTOR, layer.betas[domain]


def from_torch(array: np.ndarray, layout: str) -> np.ndarray:
    """Transposes an array from the axes of PyTorch to those of Keras.

    Args:
      array: a parameter of the published network, or its gradient.
      layout: a layout that `published_variables` yields.
    """
    if layout == DENSE:
        return np.transpose(array, (2, 3, 4, 1, 0))
    if layout == DEPTHWISE:
        return np.transpose(array[:, 0], (1, 2, 3, 0))
    return array


def load_published_weights(model: U2Net, params: Mapping[str, np.ndarray]) -> None:
    """Assigns the parameters to all variables of a model, or to none if any is wrong.

    Args:
      model: a `U2Net` of the same configuration; it is built if necessary.
      params: published name, such as "down_blocks.0.op1.conv.weight" -> array.

    Raises:
      InputError: if names are missing or unknown, or shapes do not match; lists all.
    """
    model.build()
    entries = list(published_variables(model))
    names = {name for name, _, _ in entries}
    missing, unknown = sorted(names - set(params)), sorted(set(params) - names)
    if missing or unknown:
        raise InputError(
            "parameters",
            expected="exactly the names of the model",
            received=f"missing names {missing} and unknown names {unknown}",
        )
    mismatches = []
    for name, layout, variable in entries:
        received, expected = np.shape(params[name]), torch_shape(variable, layout)
        if received != expected:
            mismatches.append(f"{name}: {received} instead of {expected}")
    if mismatches:
        raise InputError(
            "parameters",
            expected="the shapes of the model",
            received=", ".join(mismatches),
        )
    for name, layout, variable in entries:
        variable.assign(from_torch(np.asarray(params[name]), layout))


def torch_shape(variable: keras.Variable, layout: str) -> tuple[int, ...]:
    """Returns the shape of a variable in the published network.

    Args:
      variable: a variable of a `U2Net`.
      layout: its layout, as yielded by `published_variables`.
    """
    shape = tuple(variable.shape)
    if layout == DENSE:
        return (shape[4], shape[3], *shape[:3])
    return (shape[3], 1, *shape[:3]) if layout == DEPTHWISE else shape
