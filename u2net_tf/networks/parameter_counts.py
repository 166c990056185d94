"""Counts the parameters of a network, in the two ways that papers do."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras

    from u2net_tf.networks.layers import DomainLayer
    from u2net_tf.networks.u2net import U2Net


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


def count_all(network: U2Net) -> Count:
    """Counts every parameter: kernels, biases, γ and β of all layers."""
    return _count(network, tuple(network.parts.values()))


def count_trunk(network: U2Net) -> Count:
    """Counts every parameter but those of stem, head and deep supervision."""
    return _count(network, network.trunk_layers)


def count_stride_1_weights(network: U2Net) -> Count:
    """Counts the weights of the trunk's stride-1 convolutions, adapters included.

    No biases, norms or strided convolutions.

    Reference:
      3D U²-Net, section 3 and table 3(a), whose numbers this gives; the text says
      only that stem, head and deep supervision are left out.
    """
    # Kernels, and nothing else, have an axis for each of D, H, W.
    return _count(network, (*network.encoder, *network.decoder), min_rank=4)


def _count(
    network: U2Net, layers: Sequence[DomainLayer], *, min_rank: int = 0
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
    num_modalities: Sequence[int], num_classes: Sequence[int], **options: Any
) -> U2Net:
    """Builds a `U2Net` whose variables have a shape and no values: fast and small.

    Args:
      num_modalities: As of `U2Net`.
      num_classes: As of `U2Net`.
      **options: As of `U2Net`.

    Raises:
      ValueError: As of `U2Net`.
    """
    import keras

    from u2net_tf.networks.u2net import U2Net

    def build() -> U2Net:
        with keras.StatelessScope(initialize_variables=False):
            network = U2Net(num_modalities, num_classes, **options)
            network.build()
        return network

    # Keras keeps, for each thread, a list of variables without values and initializes
    # them later. This thread ends before.
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(build).result()
