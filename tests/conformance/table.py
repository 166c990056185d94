"""Every public layer and network, with inputs for each of its domains.

The tests of this folder run over all rows. A layer that has no row fails
`test_table.py`.
"""

import dataclasses
import functools
import math
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf
import toy

from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks import blocks, conv_units, layers, sharp_node
from u2net_tf.networks.architectures import ARCHITECTURES
from u2net_tf.networks.unet_sharp import UNetSharp
from u2net_tf.plan.domains import Plan


@dataclasses.dataclass(frozen=True)
class Row:
    """One layer or network.

    Attributes:
      make: makes the layer, not built yet; takes `dtype` and `name`.
      shapes: shapes of the inputs, for each domain.
      spec: for a network, the spec from which `build_network` makes the same one.
    """

    make: Callable[..., keras.layers.Layer]
    shapes: tuple[tuple[tuple[int, ...], ...], ...]
    spec: ModelSpec | None = None

    @property
    def num_domains(self) -> int:
        return len(self.shapes)


def _layer(cls, *arguments, channels, **options):
    """A row with an input of `channels[i]` channels for domain i."""
    shapes = (((2, 3, 4, 2, count),) for count in channels)
    return Row(functools.partial(cls, *arguments, **options), tuple(shapes))


def _decoder(filters, strides, **options):
    sizes = (3, 1, 2), tuple(np.multiply((3, 1, 2), strides))
    channels = 2 * filters, filters
    shapes = tuple(
        (2, *map(int, size), count) for size, count in zip(sizes, channels, strict=True)
    )
    make = functools.partial(
        blocks.DecoderBlock, filters, 2, strides=strides, **options
    )
    return Row(make, (shapes,) * 2)


def _network(domains, size, gradient_checkpointing="none", **settings):
    spec = ModelSpec(plan=Plan(domains), base_channels=2, **settings)
    options = {k: v for k, v in settings.items() if k != "architecture"}
    make = functools.partial(
        ARCHITECTURES[spec.architecture],
        [domain.num_modalities for domain in domains],
        [domain.num_classes for domain in domains],
        base_channels=2,
        gradient_checkpointing=gradient_checkpointing,
        **options,
    )
    shapes = (((2, *size, domain.num_modalities),) for domain in domains)
    return Row(make, tuple(shapes), spec)


def _node(**options):
    """A node with one input of its own size and one that is up-sampled."""
    shapes = (2, 2, 4, 3, 3), (2, 2, 2, 3, 2)
    make = functools.partial(
        sharp_node.SharpNode,
        (3, 2),
        2,
        2,
        upsample=((1, 1, 1), (1, 2, 1)),
        **options,
    )
    return Row(make, (shapes,) * 2)


def _sharp(size, depth, **settings):
    return _network(_TWO, size, architecture="unet_sharp", depth=depth, **settings)


# Domains with different modalities and classes.
_TWO = (toy.ONE, toy.TWO)

_LAYERS = {
    "DomainNorm": _layer(
        layers.DomainNorm, (3, 5), epsilon=1e-3, negative_slope=0.2, channels=(3, 5)
    ),
    "DomainNorm, no activation": _layer(layers.DomainNorm, (3, 2), channels=(3, 2)),
    "DepthwiseConv3D": _layer(layers.DepthwiseConv3D, 4, 2, channels=(4, 4)),
    "DepthwiseConv3D, up-sampled": _layer(
        layers.DepthwiseConv3D, 4, 2, upsample=(2, 1, 3), channels=(4, 4)
    ),
    "DepthwiseConv3D, anisotropic": _layer(
        layers.DepthwiseConv3D, 3, 3, kernel_size=(1, 3, 5), channels=(3, 3, 3)
    ),
    "DomainConv3D": _layer(
        layers.DomainConv3D, (1, 2), (3, 4), kernel_size=(3, 1, 2), channels=(1, 2)
    ),
    "SharedConv3D": _layer(
        layers.SharedConv3D, 2, 3, 2, kernel_size=(3, 1, 2), channels=(2, 2)
    ),
    "SharedConv3D, strides": _layer(
        layers.SharedConv3D, 3, 2, 2, strides=(1, 2, 1), channels=(3, 3)
    ),
    **{
        unit.__name__: _layer(
            unit, 3, 2, 2, kernel_size=(3, 3, 1), upsample=(2, 1, 1), channels=(3, 3)
        )
        for unit in conv_units.UNITS.values()
    },
    "DomainConvBlock": _layer(
        blocks.DomainConvBlock, (1, 2), (3, 4), kernel_size=(1, 3, 3), channels=(1, 2)
    ),
    **{
        f"EncoderBlock, {adapter}": _layer(
            blocks.EncoderBlock, 3, 2, adapter=adapter, channels=(3, 3)
        )
        for adapter in conv_units.UNITS
    },
    "DownSample": _layer(
        blocks.DownSample, 2, 4, 2, strides=(1, 2, 1), channels=(2, 2)
    ),
    **{
        f"DecoderBlock, {adapter}": _decoder(
            2, (1, 2, 2), adapter=adapter, second_up_conv="pointwise"
        )
        for adapter in conv_units.UNITS
    },
    "DecoderBlock, full": _decoder(3, (2, 1, 1)),
    "EncoderBlock, checkpointed": _layer(
        blocks.EncoderBlock, 3, 2, gradient_checkpointing="blocks", channels=(3, 3)
    ),
    "DecoderBlock, checkpointed": _decoder(
        3, (2, 1, 1), gradient_checkpointing="blocks"
    ),
    "SharpNode, separable": _node(align_corners=True, num_units=1),
    "SharpNode, none": _node(adapter="none"),
    "SharpNode, checkpointed": _node(gradient_checkpointing="blocks"),
    "ClassGate": _layer(layers.ClassGate, 3, (2, 4), channels=(3, 3)),
}
# Without a second_up_conv, the adapter's default is used.
_NETWORKS = {
    "U2Net, separable": _network(_TWO, (6, 4, 4), pools=(1, 1, 1)),
    "U2Net, separable, pointwise": _network(
        _TWO, (3, 4, 4), pools=(0, 1, 1), second_up_conv="pointwise"
    ),
    "U2Net, checkpointed": _network(
        _TWO, (3, 4, 4), pools=(0, 1, 1), gradient_checkpointing="blocks"
    ),
    "U2Net, series": _network(_TWO, (2, 4, 4), pools=(0, 1, 1), adapter="series"),
    "U2Net, shared, full": _network(
        _TWO, (3, 4, 4), pools=(0, 1, 1), adapter="none", second_up_conv="full"
    ),
    "U2Net, independent": _network(
        (toy.TWO,), (3, 4, 4), pools=(0, 1, 1), adapter="none"
    ),
    # Deep enough for deep supervision; each axis is halved a different number of times.
    "U2Net, parallel, deep": _network(
        _TWO, (3, 8, 4), pools=(0, 2, 1), adapter="parallel"
    ),
    "UNetSharp, separable": _sharp((3, 4, 2), 1, pools=(0, 1, 1)),
    "UNetSharp, series": _sharp((2, 4, 4), 1, pools=(0, 1, 1), adapter="series"),
    "UNetSharp, shared": _sharp(
        (3, 4, 2), 1, pools=(0, 1, 1), adapter="none", align_corners=True
    ),
    "UNetSharp, independent": _network(
        (toy.TWO,),
        (3, 4, 2),
        architecture="unet_sharp",
        depth=1,
        pools=(0, 1, 1),
        adapter="none",
    ),
    "UNetSharp, parallel, deep": _sharp(
        (2, 4, 4), 2, pools=(0, 1, 2), adapter="parallel", align_corners=True
    ),
    "UNetSharp, checkpointed": _sharp(
        (3, 4, 2),
        1,
        pools=(0, 1, 1),
        gradient_checkpointing="blocks",
        deep_supervision=False,
    ),
    "UNetSharp, gates": _sharp((3, 4, 2), 1, pools=(0, 1, 1), gates="both"),
}
TABLE = {**_LAYERS, **_NETWORKS}
# The default run has one row per class of block, and a network of one and one of two
# domains: the other blocks and networks differ only in their units.
_QUICK_BLOCKS = (
    "EncoderBlock, separable",
    "DecoderBlock, series",
    "SharpNode, separable",
)
_QUICK_NETWORKS = ("U2Net, separable", "U2Net, independent")
_SLOW_ROWS = [
    name
    for name in TABLE
    if name.startswith(
        ("EncoderBlock", "DecoderBlock", "SharpNode", "U2Net", "UNetSharp")
    )
    and name not in (*_QUICK_BLOCKS, *_QUICK_NETWORKS)
]
assert {*_QUICK_BLOCKS, *_QUICK_NETWORKS} <= set(TABLE)
QUICK_ROWS = [name for name in TABLE if name not in _SLOW_ROWS]
EVERY_DOMAIN = [
    (name, domain) for name, row in TABLE.items() for domain in range(row.num_domains)
]


def rows(names=TABLE):
    """The named rows; all but `QUICK_ROWS` are marked as slow."""
    return [
        name if name in QUICK_ROWS else pytest.param(name, marks=pytest.mark.slow)
        for name in names
    ]


def every_domain(*, quick):
    """Every row and domain; all but the last domain of the `quick` rows are slow."""
    assert set(quick) <= set(TABLE)
    return [
        (name, domain)
        if name in quick and domain == TABLE[name].num_domains - 1
        else pytest.param(name, domain, marks=pytest.mark.slow)
        for name, domain in EVERY_DOMAIN
    ]


def build(row, dtype="float64", seed=0, **options):
    """Builds a layer with random variables: a bias of 0 or a γ of 1 hides errors."""
    layer = row.make(dtype=dtype, **options)
    layer.build()
    generator = np.random.default_rng(seed)
    for variable in layer.variables:
        numbers = generator.normal(size=variable.shape)
        if len(variable.shape) > 1:
            numbers *= math.sqrt(2 / math.prod(variable.shape[:-1]))
        else:
            numbers = ("gamma" in variable.path) + 0.3 * numbers
        variable.assign(numbers)
    return layer


def draw(shape, dtype="float64", seed=0):
    return tf.constant(np.random.default_rng(seed).normal(size=shape), dtype)


def draw_inputs(row, domain, dtype="float64"):
    return [draw(shape, dtype) for shape in row.shapes[domain]]


def outputs_of(layer, domain, inputs):
    """Output of a layer; for UNet#, the logits of all heads and gates, concatenated.

    Calling a UNet# returns the logits of its last head only.
    """
    if not isinstance(layer, UNetSharp):
        return layer(*inputs, domain=domain)
    logits, presence = layer.head_and_gate_logits(
        *inputs, domain=domain, heads=list(layer.heads), gates=list(layer.gates)
    )
    maps = list(logits.values())
    for of_gate in presence.values():
        # Repeated in every voxel, as a feature map.
        of_gate = of_gate[:, tf.newaxis, tf.newaxis, tf.newaxis]
        maps.append(of_gate + tf.zeros_like(maps[0][..., :1]))
    return tf.concat(maps, axis=-1)


def differentiate(layer, domain, inputs, upstream=None):
    """Returns `outputs_of` and the gradients of sum(upstream * outputs).

    They are the gradients with respect to the inputs, then to all variables of all
    domains. Without `upstream`, it is random.
    """
    tensors = [*inputs, *(variable.value for variable in layer.variables)]
    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(tensors)
        outputs = outputs_of(layer, domain, inputs)
    if upstream is None:
        upstream = draw(outputs.shape, outputs.dtype, seed=1)
    return outputs, tape.gradient(outputs, tensors, output_gradients=upstream)
