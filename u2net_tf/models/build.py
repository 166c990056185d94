"""Builds the network that a specification describes, and says how large it is."""

from __future__ import annotations

from typing import Any

from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks.u2net import U2Net

# Adapter -> a lower bound of the parameters of a network whose deepest level has w
# channels: of shared ones in units of w**2, of a domain's in units of w**2 and of w.
_MIN_PARAMETERS = {
    "separable": (17, 0, 175),
    "none": (108, 0, 18),
    "series": (108, 3, 18),
    "parallel": (108, 3, 18),
}


def min_parameters(spec: ModelSpec) -> int:
    """A lower bound of the number of parameters, known before anything is built.

    There are at most twice as many, apart from stems and heads of many modalities and
    classes.
    """
    width = spec.base_channels * 2 ** max(spec.pools)
    shared, own_squared, own = _MIN_PARAMETERS[spec.adapter]
    per_domain = own_squared * width**2 + own * width
    return shared * width**2 + len(spec.plan.domains) * per_domain


def build_network(spec: ModelSpec, **kwargs: Any) -> U2Net:
    """Returns a network with all its variables, randomly initialized.

    Args:
      spec: specification of the network.
      **kwargs: `name`, `dtype` and `gradient_checkpointing` of the model.
    """
    network = U2Net(
        [domain.num_modalities for domain in spec.plan.domains],
        [domain.num_classes for domain in spec.plan.domains],
        pools=spec.pools,
        base_channels=spec.base_channels,
        adapter=spec.adapter,
        second_up_conv=spec.second_up_conv,
        **kwargs,
    )
    network.build()
    return network
