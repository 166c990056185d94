"""Prunes a UNet# to the nodes that head X^{0,L} needs.

The remaining nodes, head and gates are those of a network of depth L. They keep their
names and weights, so the logits are bit-identical to those of this head in the full
network.
"""

from __future__ import annotations

import dataclasses

from u2net_tf.errors import InputError
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.sharp_grid import Place, gate_places, head_places, node_places


def prune(spec: ModelSpec, depth: int, model: str = "the model") -> ModelSpec:
    """Returns the specification of the pruned network.

    Args:
      spec: specification of the full network.
      depth: L, the depth of the pruned network.
      model: name of the model for errors.

    Raises:
      InputError: if the network is not a UNet#, or has no head X^{0,L}.
    """
    if spec.depth is None:
        raise InputError(
            "`prune_to`",
            expected="no value, since only unet_sharp can be pruned",
            received=f"{depth} for {model}, a {spec.architecture}",
        )
    if (0, depth) not in head_places(spec.depth, spec.deep_supervision):
        raise InputError(
            "`prune_to`",
            expected=f"at most {spec.depth}, the depth of {model}"
            if spec.deep_supervision
            else f"{spec.depth}, to which {model} has already been pruned",
            received=depth,
        )
    pools_z, pools_y, pools_x = spec.pools
    return dataclasses.replace(
        spec,
        depth=depth,
        pools=(min(pools_z, depth), min(pools_y, depth), min(pools_x, depth)),
        deep_supervision=False,
    )


def pruned_parts(spec: ModelSpec, pruned: ModelSpec) -> tuple[str, ...]:
    """Returns the names of the parts of a network that the pruned one lacks."""
    return tuple(name for name in _parts(spec) if name not in _parts(pruned))


def _parts(spec: ModelSpec) -> list[str]:
    def names(kind: str, places: tuple[Place, ...]) -> list[str]:
        return [f"{kind}_{level}_{column}" for level, column in places]

    if spec.depth is None:
        return []
    heads = head_places(spec.depth, spec.deep_supervision)
    gates = gate_places(spec.gates, spec.depth, spec.deep_supervision)
    return [
        *names("node", node_places(spec.depth)),
        *names("head", heads),
        *names("gate", gates),
    ]
