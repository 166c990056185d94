"""Lower bounds on the operations and memory traffic of the network's convolutions.

They are counted from the layers of a network built without values. Each convolution
reads its input and writes its output once; norms, activations, sums, concatenations,
pooling and up-sampling are assumed to be fused with neighbouring convolutions at no
cost. No implementation achieves this completely. The taps of a depthwise convolution
that see the same voxel before up-sampling share one product, with the sum of their
weights.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from tools.bench.setting import Setting
from tools.bench.sharp_networks import SharpSetting
from u2net_tf.networks.layers import DepthwiseConv3D, DomainConv3D, SharedConv3D
from u2net_tf.networks.ops.upsampled_convolution import MIN_VOXELS_TO_PROJECT
from u2net_tf.networks.parameter_counts import network_without_values
from u2net_tf.plan.sharp_grid import Place

BYTES = 4  # float32
# Adam reads a parameter, its gradient and two moments, and writes all but the gradient.
ADAM_ACCESSES = 7


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution of a forward pass.

    Attributes:
        name: path of the layer, outermost first.
        kind: "depthwise", "pointwise", "strided" or "dense".
        in_channels: C.
        out_channels: C'.
        num_taps: number of kernel voxels.
        in_voxels: voxels of one input sample, before any up-sampling.
        out_voxels: voxels of one output sample.
        reads_batch: whether its input is the batch, which needs no gradient.
        num_products: products of one sample for each of `num_channel_pairs`; None for
            one per tap and output voxel.
        is_summand: whether its output is added to that of the previous convolution.
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    num_taps: int
    in_voxels: int
    out_voxels: int
    reads_batch: bool = False
    num_products: int | None = None
    is_summand: bool = False

    @property
    def num_channel_pairs(self) -> int:
        """Number of kernel weights per tap, without the bias."""
        inputs = 1 if self.kind == "depthwise" else self.in_channels
        return inputs * self.out_channels

    @property
    def num_weights(self) -> int:
        """Number of kernel weights, without the bias."""
        return self.num_channel_pairs * self.num_taps

    def flops(self, batch_size: int, *, backward: bool = False) -> int:
        """Counts floating-point operations; a multiply-add counts as two.

        Args:
            batch_size: number of samples.
            backward: whether to include the gradients of input and kernel, each of
                which costs as much as the forward pass.
        """
        passes = 1 + (backward * (1 if self.reads_batch else 2))
        products = self.num_products
        if products is None:
            products = self.num_taps * self.out_voxels
        return 2 * batch_size * products * self.num_channel_pairs * passes

    def traffic(self, batch_size: int, *, backward: bool = False) -> int:
        """Counts the bytes of float32 maps and weights that are read and written.

        Args:
            batch_size: number of samples.
            backward: whether to include the gradients, which read the output gradient
                and the input once for both and write their results.
        """
        inputs = batch_size * self.in_voxels * self.in_channels
        outputs = batch_size * self.out_voxels * self.out_channels
        if self.is_summand:
            outputs = 0
        values = inputs + outputs + self.num_weights
        if backward:
            values += outputs + inputs + 2 * self.num_weights
            values += 0 if self.reads_batch else inputs
        return BYTES * values


def convolutions_of(
    setting: Setting | SharpSetting, *, backward: bool
) -> list[Convolution]:
    """Returns the convolutions of a forward pass or a step.

    Args:
        setting: architecture and size.
        backward: whether they are those of a step, which computes all heads of a UNet#.
    """
    if isinstance(setting, Setting):
        return convolutions(patch_size=setting.patch_size, **setting.architecture)
    heads = setting.heads if backward else [(0, setting.depth)]
    return sharp_convolutions(
        patch_size=setting.patch_size, heads=heads, **setting.architecture
    )


def convolutions(
    num_modalities: Sequence[int],
    num_classes: Sequence[int],
    patch_size: Sequence[int],
    *,
    domain: int = 0,
    **options,
) -> list[Convolution]:
    """Returns the convolutions of a `U2Net` in the order of computation.

    Args:
        num_modalities: see `U2Net`.
        num_classes: see `U2Net`.
        patch_size: z, y, x.
        domain: index of the domain.
        **options: additional arguments of `U2Net`.
    """
    network = network_without_values(num_modalities, num_classes, **options)
    size = tuple(patch_size)
    voxels = [math.prod(size)]
    for block in network.down_samples:
        size = tuple(n // s for n, s in zip(size, block.strides, strict=True))
        voxels.append(math.prod(size))
    parts: list[Convolution] = []

    def add(layer, level, level_before=None):
        before = voxels[level if level_before is None else level_before]
        parts.extend(_walk(layer, layer.name, domain, before, voxels[level]))

    add(network.stem, 0)
    parts[0] = dataclasses.replace(parts[0], reads_batch=True)
    for level, block in enumerate(network.encoder):
        if level > 0:
            add(network.down_samples[level - 1], level, level - 1)
        add(block, level)
    for level in reversed(range(len(network.decoder))):
        add(network.decoder[level], level, level + 1)
        if level in network.supervised_levels:
            index = network.supervised_levels.index(level)
            add(network.deep_supervision[index], level)
    add(network.head, 0)
    return parts


def sharp_convolutions(
    num_modalities: Sequence[int],
    num_classes: Sequence[int],
    patch_size: Sequence[int],
    heads: Sequence[Place],
    *,
    domain: int = 0,
    **options,
) -> list[Convolution]:
    """Returns the convolutions of a `UNetSharp` in the order of computation.

    Args:
        num_modalities: see `UNetSharp`.
        num_classes: see `UNetSharp`.
        patch_size: z, y, x.
        heads: the heads that are computed.
        domain: index of the domain.
        **options: additional arguments of `UNetSharp`; the adapter must be "none" or
            "separable".
    """
    network = network_without_values(
        num_modalities, num_classes, architecture="unet_sharp", **options
    )
    axes = list(zip(patch_size, network.pools, strict=True))
    voxels = [
        math.prod(size // 2 ** min(level, pools) for size, pools in axes)
        for level in range(network.depth + 1)
    ]
    stem = list(_walk(network.stem, "stem", domain, voxels[0], voxels[0]))
    parts = [dataclasses.replace(stem[0], reads_batch=True), *stem[1:]]
    for (level, _), node in network.nodes.items():
        first, *others = _walk(node, node.name, domain, voxels[level], voxels[level])
        parts += [*_split_by_input(first, node), *others]
    for level, column in heads:
        head = network.heads[level, column]
        parts += _walk(head, head.name, domain, voxels[level], voxels[level])
    return parts


def _split_by_input(part, node) -> Iterator[Convolution]:
    """Yields the first convolution of a `SharpNode` as one for each of its inputs."""
    is_depthwise = part.kind == "depthwise"
    kernel_size = node.units[0].kernel_size
    inputs = zip(node.in_channels, node.upsample, strict=True)
    for index, (channels, factors) in enumerate(inputs):
        growth = math.prod(factors)
        in_voxels = part.out_voxels // growth
        num_products = None
        if is_depthwise:
            per_voxel = _products_per_input(kernel_size, factors, is_linear=True)
            num_products = in_voxels * per_voxel
        elif growth >= MIN_VOXELS_TO_PROJECT:
            num_products = in_voxels * part.num_taps
        yield dataclasses.replace(
            part,
            name=f"{part.name}/{index}",
            in_channels=channels,
            out_channels=channels if is_depthwise else part.out_channels,
            in_voxels=in_voxels,
            num_products=num_products,
            is_summand=not is_depthwise and index > 0,
        )


def _walk(layer, path, domain, in_voxels, out_voxels) -> Iterator[Convolution]:
    """Yields the convolutions of a layer; only the first may change the size."""
    for index, part in enumerate(layer.parts.values()):
        before = in_voxels if index == 0 else out_voxels
        yield from _walk(part, f"{path}/{part.name}", domain, before, out_voxels)
    if isinstance(layer, DepthwiseConv3D | DomainConv3D):
        kernel = layer.kernels[domain].shape
    elif isinstance(layer, SharedConv3D):
        kernel = layer.kernel.shape
    else:
        return
    yield _convolution(path, layer, kernel, in_voxels, out_voxels)


def _convolution(path, layer, kernel, in_voxels, out_voxels) -> Convolution:
    taps = math.prod(kernel[:3])
    num_products = None
    if isinstance(layer, DepthwiseConv3D):
        kind = "depthwise"
        num_products = in_voxels * _products_per_input(kernel[:3], layer.upsample)
    elif tuple(getattr(layer, "strides", (1, 1, 1))) != (1, 1, 1):
        kind = "strided"
    else:
        kind = "pointwise" if taps == 1 else "dense"
    return Convolution(
        path,
        kind,
        kernel[3],
        kernel[-1],
        taps,
        in_voxels,
        out_voxels,
        num_products=num_products,
    )


def _products_per_input(
    kernel_size: Sequence[int], factors: Sequence[int], *, is_linear: bool = False
) -> int:
    """Returns the products of a depthwise convolution for each voxel of its input.

    Args:
        kernel_size: taps along z, y, x.
        factors: factors of up-sampling along z, y, x; even or 1 if linear.
        is_linear: whether up-sampling is linear instead of nearest-neighbour.
    """
    products = 1
    for taps, factor in zip(kernel_size, factors, strict=True):
        # A tap sees one voxel, or two between which it interpolates. Of `factor`
        # adjacent outputs, each further tap sees one voxel more in one of them.
        voxels_per_tap = 2 if is_linear and factor > 1 else 1
        products *= voxels_per_tap * factor + taps - 1
    return products


def adam_traffic(parts: Sequence[Convolution]) -> int:
    """Returns the bytes that Adam reads and writes for the weights of `parts`."""
    return BYTES * ADAM_ACCESSES * sum(part.num_weights for part in parts)


def min_seconds(
    parts: Sequence[Convolution],
    batch_size: int,
    *,
    backward: bool,
    flops_per_second: float,
    bytes_per_second: float,
) -> float:
    """Returns a lower bound on the time of consecutive convolutions.

    Each is limited by either computation or memory.

    Args:
        parts: the convolutions.
        batch_size: number of samples.
        backward: whether to include gradients and Adam.
        flops_per_second: peak throughput of the machine.
        bytes_per_second: peak memory bandwidth of the machine.
    """
    seconds = sum(
        max(
            part.flops(batch_size, backward=backward) / flops_per_second,
            part.traffic(batch_size, backward=backward) / bytes_per_second,
        )
        for part in parts
    )
    return seconds + (adam_traffic(parts) / bytes_per_second if backward else 0.0)
