"""What the network's convolutions have to compute and to move, at the least.

Counted by walking the layers of a network that is built without values. A convolution
reads its input and writes its output once; norms, activations, sums, concatenations and
up-samplings are taken to be fused with the convolutions next to them and to cost
nothing, which no program does altogether: it is a bound.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

from u2net_tf.networks.layers import DepthwiseConv3D, DomainConv3D, SharedConv3D
from u2net_tf.networks.parameter_counts import network_without_values

BYTES = 4  # float32
# Adam reads a parameter, its gradient and two moments, and writes all but the gradient.
ADAM_ACCESSES = 7


@dataclasses.dataclass(frozen=True)
class Convolution:
    """One convolution of a forward pass.

    Attributes:
        name: of the layers around it, outermost first.
        kind: "depthwise", "pointwise", "strided" or "dense".
        in_channels: C.
        out_channels: C'.
        num_taps: kernel voxels.
        in_voxels: of one sample's input, before an up-sampling in front of it.
        out_voxels: of one sample's output.
        in_batch: whether it reads the batch itself, which needs no gradient.
    """

    name: str
    kind: str
    in_channels: int
    out_channels: int
    num_taps: int
    in_voxels: int
    out_voxels: int
    in_batch: bool = False

    @property
    def num_weights(self) -> int:
        """Without the bias."""
        inputs = 1 if self.kind == "depthwise" else self.in_channels
        return inputs * self.out_channels * self.num_taps

    def flops(self, batch_size: int, *, backward: bool = False) -> int:
        """Floating-point operations, a multiplication and an addition being two.

        Args:
            batch_size: samples.
            backward: with the gradients of input and kernel; each costs as much again.
        """
        passes = 1 + (backward * (1 if self.in_batch else 2))
        return 2 * batch_size * self.out_voxels * self.num_weights * passes

    def traffic(self, batch_size: int, *, backward: bool = False) -> int:
        """Bytes read and written of float32 maps and weights.

        Args:
            batch_size: samples.
            backward: with the gradients: these read the gradient of the output and the
                input once for both, and write what they are.
        """
        inputs = batch_size * self.in_voxels * self.in_channels
        outputs = batch_size * self.out_voxels * self.out_channels
        numbers = inputs + outputs + self.num_weights
        if backward:
            numbers += outputs + inputs + 2 * self.num_weights
            numbers += 0 if self.in_batch else inputs
        return BYTES * numbers


def convolutions(
    num_modalities: Sequence[int],
    num_classes: Sequence[int],
    patch_size: Sequence[int],
    *,
    domain: int = 0,
    **options,
) -> list[Convolution]:
    """The convolutions of a `U2Net`, in the order of computation.

    Args:
        num_modalities: as of `U2Net`.
        num_classes: as of `U2Net`.
        patch_size: z, y, x.
        domain: whose are counted.
        **options: as of `U2Net`.
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
    parts[0] = dataclasses.replace(parts[0], in_batch=True)
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
    if isinstance(layer, DepthwiseConv3D):
        kind = "depthwise"
    elif tuple(getattr(layer, "strides", (1, 1, 1))) != (1, 1, 1):
        kind = "strided"
    else:
        kind = "pointwise" if taps == 1 else "dense"
    return Convolution(path, kind, kernel[3], kernel[-1], taps, in_voxels, out_voxels)


def adam_traffic(parts: Sequence[Convolution]) -> int:
    """Bytes that Adam reads and writes for the weights of these."""
    return BYTES * ADAM_ACCESSES * sum(part.num_weights for part in parts)


def least_seconds(
    parts: Sequence[Convolution],
    batch_size: int,
    *,
    backward: bool,
    flops_per_second: float,
    bytes_per_second: float,
) -> float:
    """Time that these must take one after the other, whichever limits each.

    Args:
        parts: whose flops and traffic count.
        batch_size: samples.
        backward: with their gradients and Adam.
        flops_per_second: of the machine, at best.
        bytes_per_second: of its memory, at best.
    """
    seconds = sum(
        max(
            part.flops(batch_size, backward=backward) / flops_per_second,
            part.traffic(batch_size, backward=backward) / bytes_per_second,
        )
        for part in parts
    )
    return seconds + (adam_traffic(parts) / bytes_per_second if backward else 0.0)
