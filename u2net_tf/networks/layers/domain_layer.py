"""Base classes of layers and networks: sublayers and per-domain variables.

Each domain has its own variables, kept in a list in each layer and selected by the
Python integer `domain` when a step is traced. A step does not touch variables that it
does not use. `domain` is passed by keyword, because Keras accepts only tensors as
positional arguments.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, TypeVar

import keras

from u2net_tf.networks.arguments import check_positive_integer

Part = TypeVar("Part", bound="DomainLayer")


class DomainModule:
    """A layer or network in which some variables belong to a single domain.

    A mixin for subclasses of `keras.layers.Layer` or `keras.Model`. A module either
    consists of parts, which are other layers, or has variables itself and overrides
    `own_domain_variables` or `own_shared_variables`.
    """

    num_domains: int

    @property
    def parts(self) -> Mapping[str, DomainLayer]:
        """The sublayers by name; see `add_part`."""
        return MappingProxyType(vars(self).get("_parts", {}))

    def add_part(self, layer: Part, name: str | None = None) -> Part:
        """Adds a layer as a part of this one.

        Parts are built in the order in which they are added, which is also the order of
        computation.

        Args:
          layer: The part, not built.
          name: Name of the part in checkpoint paths, independent of attribute names;
            the layer's name if None.

        Returns:
          The part.

        Raises:
          ValueError: If a part of that name exists already.
        """
        name = name or layer.name
        if name in self.parts:
            raise ValueError(f"Names of parts must be unique. Received: {name!r} again")
        # Bypasses Keras, which would also track the layers in the dictionary.
        vars(self).setdefault("_parts", {})[name] = layer
        # For `tf.train.Checkpoint`, which does not track the lists of a layer.
        setattr(self, name, layer)
        return layer

    def build(self) -> None:
        """Creates the variables of all domains without running the module.

        No input shape is needed: every layer gets its number of channels when it is
        created, and works for any spatial size.
        """
        for layer in self.parts.values():
            layer.build()

    def check_domain(self, domain: int) -> int:
        """Returns `domain` as an integer.

        Raises:
          ValueError: If it is not an integer from 0 to num_domains - 1.
        """
        try:
            index = operator.index(domain)
        except TypeError:
            index = -1
        if not 0 <= index < self.num_domains:
            raise ValueError(
                f"`domain` must be an integer from 0 to {self.num_domains - 1}. "
                f"Received: domain={domain}"
            )
        return index

    def own_shared_variables(self) -> dict[str, keras.Variable]:
        """Returns the variables of this layer itself that all domains read, by name."""
        return {}

    def own_domain_variables(self, domain: int) -> dict[str, keras.Variable]:
        """Returns the variables of this layer itself that only `domain` reads.

        By name, without the domain's index; the names are stored in checkpoints.
        """
        return {}

    def domain_variables(self, domain: int) -> list[keras.Variable]:
        """Returns the variables, including those of parts, that only `domain` reads."""
        variables = list(self.own_domain_variables(self.check_domain(domain)).values())
        for layer in self.parts.values():
            variables.extend(layer.domain_variables(domain))
        return variables

    def variables_used_by(self, domain: int) -> list[keras.Variable]:
        """Returns the variables, including those of parts, that `domain` reads."""
        variables = list(self.own_domain_variables(self.check_domain(domain)).values())
        variables.extend(self.own_shared_variables().values())
        for layer in self.parts.values():
            variables.extend(layer.variables_used_by(domain))
        return variables

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns path -> variable, for all variables of this module and its parts.

        Checkpoints store variables under these paths, which consist of the names of the
        parts and of the variable, with the domain's index: "conv/kernel",
        "norm/gamma_2".
        """
        found = dict(self.own_shared_variables())
        for domain in range(self.num_domains):
            for name, variable in self.own_domain_variables(domain).items():
                found[f"{name}_{domain}"] = variable
        for part, layer in self.parts.items():
            for path, variable in layer.variables_by_path().items():
                found[f"{part}/{path}"] = variable
        return found


class DomainLayer(DomainModule, keras.layers.Layer):
    """A layer in which some variables belong to a single domain.

    Args:
      num_domains: Number of domains, at least 1.
      **kwargs: Arguments of `keras.layers.Layer`.
    """

    def __init__(self, num_domains: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_domains = check_positive_integer("num_domains", num_domains)


def track_for_checkpoint(
    layer: keras.layers.Layer, name: str, variables: Iterable[keras.Variable]
) -> None:
    """Sets each variable as an attribute of `layer`: `name_0`, `name_1` and so on.

    A `tf.train.Checkpoint` of a layer needs this, because it does not track the lists
    of a Keras layer. Checkpoints of a run do not: see `DomainModule.variables_by_path`.
    """
    for index, variable in enumerate(variables):
        setattr(layer, f"{name}_{index}", variable)
