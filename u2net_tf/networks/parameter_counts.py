"""Counts the parameters of a network, in the two ways that papers do."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from u2net_tf.plan.sharp_grid import node_places

if TYPE_CHECKING:
    import keras

    from u2net_tf.networks.domain_network import DomainNetwork
    from u2net_tf.networks.layers import DomainLayer
    from u2net_tf.networks.unet_sharp import UNetSharp


@dataclasses.dataclass(frozen=True)
class Count:
    """Numbers of parameters, by the domains that read them.

    Attributes:
      shared: parameters that every domain reads.
      own: parameters that one domain alone reads, for each domain.
    """

    shared: int
    own: tuple[int, ...]

    @property
    def total(self) -> int:
        """Number of parameters of all domains together."""
        return self.shared + sum(self.own)


def count_all(network: DomainNetwork) -> Count:
    """Counts every parameter: kernels, biases, γ and β of all layers."""
    return _count(network, tuple(network.parts.values()))


def count_trunk(network: DomainNetwork) -> Count:
    """Counts every parameter but those of stem, head and deep supervision."""
    return _count(network, network.trunk_layers)


def count_stride_1_weights(network: DomainNetwork) -> Count:
    """Counts the weights of the trunk's stride-1 convolutions, adapters included.

    No biases, norms or strided convolutions.

    Reference:
      3D U²-Net, section 3 and table 3(a), whose numbers this gives; the text says
      only that stem, head and deep supervision are left out.
    """
    # Kernels, and nothing else, have an axis for each of D, H, W.
    return _count(network, network.stride_1_layers, min_rank=4)


def count_pruned(network: UNetSharp, depth: int) -> Count:
    """Counts every parameter of what is left of a UNet# that is pruned to a depth."""
    nodes = [network.nodes[place] for place in node_places(depth)]
    ends = ((0, depth), (depth, 0))
    gates = [network.gates[place] for place in ends if place in network.gates]
    return _count(network, [network.stem, *nodes, network.heads[0, depth], *gates])


def _count(
    network: DomainNetwork, layers: Sequence[DomainLayer], *, min_rank: int = 0
) -> Count:
    own = tuple(
        _size((v for layer in layers for v in layer.domain_variables(domain)), min_rank)
        for domain in range(network.num_domains)
    )
    everything = _size((v for layer in layers for v in layer.variables), min_rank)
    return Count(shared=everything - sum(own), own=own)


def _size(variables: Iterable[keras.Variable], min_rank: int) -> int:
    shapes = (variable.shape for variable in variables)
    return sum(math.prod(shape) for shape in shapes if len(shape) >= min_rank)


def network_without_values(
    num_modalities: Sequence[int],
    num_classes: Sequence[int],
    *,
    architecture: str = "u2net",
    **options: Any,
) -> DomainNetwork:
    """Builds a network whose variables have a shape and no values: fast and small.

    Args:
      num_modalities: As of the network.
      num_classes: As of the network.
      architecture: Name of the network in `architectures`.
      **options: As of the network.

    Raises:
      ValueError: As of the network.
    """
    import keras

    from u2net_tf.networks.architectures import ARCHITECTURES

    def build() -> DomainNetwork:
        with keras.StatelessScope(initialize_variables=False):
            network = ARCHITECTURES[architecture](
                num_modalities, num_classes, **options
            )
            network.build()
        return network

    # Keras keeps, for each thread, a list of variables without values and initializes
    # them later. This thread ends before.
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(build).result()
