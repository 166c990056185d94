"""Parameters of a network, counted in the two ways that papers do."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import math
from collections.abc import Iterable
from typing import Any


@dataclasses.dataclass(frozen=True)
class Count:
    """Parameters, by who reads them.

    Attributes:
        shared: read by every domain.
        own: read by one domain alone, for each domain.
    """

    shared: int
    own: tuple[int, ...]

    @property
    def total(self) -> int:
        """Of all domains together."""
        return self.shared + sum(self.own)


def count_all(network) -> Count:
    """Counts every parameter: kernels, biases, γ and β of all layers."""
    return _count(network, network.domain_layers)


def count_trunk(network) -> Count:
    """Counts every parameter but those of stem, head and deep supervision."""
    return _count(network, network.trunk_layers)


def count_stride_1_weights(network) -> Count:
    """Counts the weights of the trunk's stride-1 convolutions, adapters included.

    No biases, norms or strided convolutions.

    Reference:
        3D U²-Net, section 3 and table 3(a), whose numbers this gives; the text says
        only that stem, head and deep supervision are left out.
    """
    # Kernels, and nothing else, have an axis for each of D, H, W.
    return _count(network, (*network.encoder, *network.decoder), least_rank=4)


def _count(network, layers, *, least_rank: int = 0) -> Count:
    own = tuple(
        _size(
            (v for layer in layers for v in layer.domain_variables(domain)), least_rank
        )
        for domain in range(network.num_domains)
    )
    everything = _size((v for layer in layers for v in layer.variables), least_rank)
    return Count(shared=everything - sum(own), own=own)


def _size(variables: Iterable, least_rank: int) -> int:
    shapes = (variable.shape for variable in variables)
    return sum(math.prod(shape) for shape in shapes if len(shape) >= least_rank)


def network_without_values(num_modalities, num_classes, **options: Any):
    """A `U2Net` whose variables have a shape and no values: quick to build, and small.

    Args:
        num_modalities: As of `U2Net`.
        num_classes: As of `U2Net`.
        **options: As of `U2Net`.

    Raises:
        ValueError: As of `U2Net`.
    """
    import keras

    from u2net_tf.networks.u2net import U2Net

    def build():
        with keras.StatelessScope(initialize_variables=False):
            network = U2Net(num_modalities, num_classes, **options)
            network.build()
        return network

    # Keras notes, for each thread, which variables still lack their values, and makes
    # up for it on a later occasion. This thread has none.
    with concurrent.futures.ThreadPoolExecutor(max_workers=1) as executor:
        return executor.submit(build).result()
