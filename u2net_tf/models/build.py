"""Builds the network that a specification describes, and estimates its size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.architectures import ARCHITECTURES
from u2net_tf.networks.device_memory import describe_variables, reporting_exhausted
from u2net_tf.networks.u2net import U2Net
from u2net_tf.networks.unet_sharp import UNetSharp
from u2net_tf.plan.sharp_grid import node_places, sources

# Adapter -> lower bounds of the number of parameters of a network whose deepest level
# has w channels: shared ones in units of w**2, a domain's in units of w**2 and of w.
_MIN_PARAMETERS = {
    "separable": (17, 0, 175),
    "none": (108, 0, 18),
    "series": (108, 3, 18),
    "parallel": (108, 3, 18),
}


def min_parameters(spec: ModelSpec) -> int:
    """Returns a lower bound of the number of parameters without building the network.

    The actual number is at most twice as large, apart from stems and heads of many
    modalities and classes.
    """
    if spec.depth is not None:
        return _node_parameters(spec, spec.depth)
    width = spec.base_channels * 2 ** max(spec.pools)
    shared, own_squared, own = _MIN_PARAMETERS[spec.adapter]
    per_domain = own_squared * width**2 + own * width
    return shared * width**2 + len(spec.plan.domains) * per_domain


def _node_parameters(spec: ModelSpec, depth: int) -> int:
    """Returns the number of parameters in the nodes of a UNet#, without stems."""
    num_domains = len(spec.plan.domains)
    # Adapter -> shared parameters and parameters per domain of a unit that maps c to f
    # channels.
    unit_parameters: Mapping[str, Callable[[int, int], tuple[int, int]]] = {
        "separable": lambda c, f: (c * f + f, 30 * c + 2 * f),
        "none": lambda c, f: (27 * c * f + f, 2 * f),
        "series": lambda c, f: (27 * c * f + f, f * f + 5 * f),
        "parallel": lambda c, f: (27 * c * f + f, c * f + 3 * f),
    }
    total = 0
    for place in node_places(depth):
        width = spec.base_channels * 2 ** place[0]
        read = sum(spec.base_channels * 2**level for level, _ in sources(place))
        # X^{0,0} reads the stem, which belongs to the domain.
        for channels in (read, width) if read else (width,):
            shared, own = unit_parameters[spec.adapter](channels, width)
            total += shared + num_domains * own
    return total


def build_network(spec: ModelSpec, **kwargs: Any) -> U2Net | UNetSharp:
    """Returns a network with all variables built and randomly initialized.

    Args:
      spec: specification of the network.
      **kwargs: `name`, `dtype` and `gradient_checkpointing` of the Keras model.

    Raises:
      StoppedError: if the memory of the device does not suffice.
    """
    options: dict[str, Any] = {"second_up_conv": spec.second_up_conv}
    if spec.architecture == "unet_sharp":
        options = {
            "depth": spec.depth,
            "align_corners": spec.align_corners,
            "deep_supervision": spec.deep_supervision,
            "gates": spec.gates,
        }
    with reporting_exhausted(describe_variables):
        network = ARCHITECTURES[spec.architecture](
            [domain.num_modalities for domain in spec.plan.domains],
            [domain.num_classes for domain in spec.plan.domains],
            pools=spec.pools,
            base_channels=spec.base_channels,
            adapter=spec.adapter,
            **options,
            **kwargs,
        )
        network.build()
    return network
