"""Variables of a trunk and of one domain: named without its index, copied, compared."""

from __future__ import annotations

from collections.abc import Sequence

import keras

from u2net_tf.networks.domain_model import DomainModel


def shared_by_path(network: DomainModel) -> dict[str, keras.Variable]:
    """Returns path -> variable, of those that all domains share."""
    shared = {id(variable) for variable in network.shared_variables}
    return {
        path: variable
        for path, variable in network.variables_by_path().items()
        if id(variable) in shared
    }


def own_by_name(network: DomainModel, domain: int) -> dict[str, keras.Variable]:
    """Returns name -> variable, of those that only one domain reads.

    The name is the variable's path in a checkpoint without the index of the domain,
    such as "stem/norm/gamma": a domain has the same names in every model.
    """
    own = {id(variable) for variable in network.domain_variables(domain)}
    return {
        path.removesuffix(f"_{domain}"): variable
        for path, variable in network.variables_by_path().items()
        if id(variable) in own
    }


def copy_variables(
    sources: Sequence[keras.Variable], targets: Sequence[keras.Variable]
) -> None:
    """Assigns the values of variables to others of the same shapes."""
    for source, target in zip(sources, targets, strict=True):
        target.assign(source.numpy())


def identical(
    first: Sequence[keras.Variable], second: Sequence[keras.Variable]
) -> bool:
    """Whether two lists of variables are bit-identical."""
    return len(first) == len(second) and all(
        one.numpy().tobytes() == other.numpy().tobytes()
        for one, other in zip(first, second, strict=True)
    )
