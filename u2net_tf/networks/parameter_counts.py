"""Parameter counts of a network, by the two conventions that papers use."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from u2net_tf.plan.sharp_grid import gate_places, node_places

if TYPE_CHECKING:
    import keras

    from u2net_tf.networks.domain_network import DomainNetwork
    from u2net_tf.networks.layers import DomainLayer
    from u2net_tf.networks.unet_sharp import UNetSharp


@dataclasses.dataclass(frozen=True)
class Count:
    """Numbers of parameters, shared and per domain.

    Attributes:
      shared: Number of parameters that every domain reads.
      per_domain: For each domain, number of parameters that only this domain reads.
    """

    shared: int
    per_domain: tuple[int, ...]

    @property
    def total(self) -> int:
        """Total number of parameters."""
        return self.shared + sum(self.per_domain)


def count_all(network: DomainNetwork) -> Count:
    """Counts all parameters: kernels, biases, γ and β of all layers."""
    return _count(network, tuple(network.parts.values()))


def count_trunk(network: DomainNetwork) -> Count:
    """Counts all parameters except those of stem, head and deep supervision."""
    return _count(network, network.trunk_layers)


def count_stride_1_weights(network: DomainNetwork) -> Count:
    """Counts the weights of the trunk's stride-1 convolutions, including adapters.

    Biases, norms and strided convolutions are not counted.

    Reference:
      3D U²-Net, section 3 and table 3(a), whose numbers this reproduces; the text
      says only that stem, head and deep supervision are excluded.
    """
    # Only kernels have an axis for each of D, H, W.
    return _count(network, network.stride_1_layers, min_rank=4)


def count_pruned(network: UNetSharp, depth: int) -> Count:
    """Counts all parameters of a UNet# pruned to a depth."""
    nodes = [network.nodes[place] for place in node_places(depth)]
    places = gate_places(network.gates_setting, depth, deep_supervision=False)
    gates = [network.gates[place] for place in places]
    return _count(network, [network.stem, *nodes, network.heads[0, depth], *gates])


def _count(
    network: DomainNetwork, layers: Sequence[DomainLayer], *, min_rank: int = 0
) -> Count:
    per_domain = tuple(
        _count_elements(
            (v for layer in layers for v in layer.domain_variables(domain)), min_rank
        )
        for domain in range(network.num_domains)
    )
    total = _count_elements((v for layer in layers for v in layer.variables), min_rank)
    return Count(shared=total - sum(per_domain), per_domain=per_domain)


def _count_elements(variables: Iterable[keras.Variable], min_rank: int) -> int:
    shapes = (variable.shape for variable in variables)
    return sum(math.prod(shape) for shape in shapes if len(shape) >= min_rank)


def network_without_values(
    num_modalities: Sequence[int],
    num_classes: Sequence[int],
    *,
    architecture: str = "u2net",
    **options: Any,
) -> DomainNetwork:
    """Builds a network whose variables have no values, quickly and in little memory.

    Args:
      num_modalities: See the network.
      num_classes: See the network.
      architecture: Name of the network in `architectures`.
      **options: Further arguments of the network.

    Raises:
      ValueError: If the network rejects an argument.
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

    # Keras keeps a list of variables without values per thread and initializes them
    # later. This thread ends before that.
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(build).result()
