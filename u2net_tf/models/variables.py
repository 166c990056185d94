"""Names, copies and compares the variables of the trunk and of single domains."""

from __future__ import annotations

from collections.abc import Sequence

import keras
import numpy as np

from u2net_tf.networks.domain_model import DomainModel


def shared_by_path(network: DomainModel) -> dict[str, keras.Variable]:
    """Returns path -> variable, for the variables that all domains share."""
    shared = {id(variable) for variable in network.shared_variables}
    return {
        path: variable
        for path, variable in network.variables_by_path().items()
        if id(variable) in shared
    }


def own_by_name(network: DomainModel, domain: int) -> dict[str, keras.Variable]:
    """Returns name -> variable, for the variables that only one domain uses.

    The name is the variable's path in a checkpoint without the index of the domain,
    such as "stem/norm/gamma", so that it is the same in every model.
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


def first_not_finite(variables: Sequence[keras.Variable]) -> str | None:
    """Returns the layer of the first variable with NaN or infinity; None if none."""
    for variable in variables:
        if not np.isfinite(variable.numpy()).all():
            # Without Keras' name of the network.
            return variable.path.partition("/")[2] or variable.path
    return None


def identical(
    first: Sequence[keras.Variable], second: Sequence[keras.Variable]
) -> bool:
    """Returns whether two lists of variables are bit-identical."""
    return len(first) == len(second) and all(
        one.numpy().tobytes() == other.numpy().tobytes()
        for one, other in zip(first, second, strict=True)
    )
