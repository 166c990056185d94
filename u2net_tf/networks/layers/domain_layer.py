"""What layers and networks have in common: parts, and variables of single domains.

A domain's parameters are variables of its own, held in a list inside each layer and
selected by the Python integer `domain` when a step is traced. What a step does not use,
it does not touch. `domain` is passed by keyword: Keras accepts only tensors by
position.
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
    """A layer or network some of whose variables belong to one domain alone.

    To be inherited from beside `keras.layers.Layer` or `keras.Model`. It either is made
    of parts, which are other layers, or has variables and overrides
    `own_domain_variables` or `own_shared_variables`.
    """

    num_domains: int

    @property
    def parts(self) -> Mapping[str, DomainLayer]:
        """The layers that this one is made of, by name; see `add_part`."""
        return MappingProxyType(vars(self).get("_parts", {}))

    def add_part(self, layer: Part, name: str | None = None) -> Part:
        """Makes a layer a part of this one.

        Parts are built in the order in which they are added, which is the order in
        which they are computed.

        Args:
          layer: The part, not built.
          name: Name of the part in the paths of checkpoints, which does not follow
            the names of attributes; the layer's own if None.

        Returns:
          The part.

        Raises:
          ValueError: If there is a part of that name.
        """
        name = name or layer.name
        if name in self.parts:
            raise ValueError(f"Names of parts must differ. Received: {name!r} again")
        # Past Keras, which would list the layers of a dictionary, too.
        vars(self).setdefault("_parts", {})[name] = layer
        # For `tf.train.Checkpoint`, which does not look into the lists of a layer.
        setattr(self, name, layer)
        return layer

    def build(self) -> None:
        """Creates the variables of all domains; computes nothing.

        There is no input shape: every layer knows its channels, and works for any
        spatial size.
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

        By name, without the domain's number; the names are stored in checkpoints.
        """
        return {}

    def domain_variables(self, domain: int) -> list[keras.Variable]:
        """Returns the variables here and below that only `domain` reads."""
        variables = list(self.own_domain_variables(self.check_domain(domain)).values())
        for layer in self.parts.values():
            variables.extend(layer.domain_variables(domain))
        return variables

    def variables_used_by(self, domain: int) -> list[keras.Variable]:
        """Returns the variables here and below that `domain` reads, shared or not."""
        variables = list(self.own_domain_variables(self.check_domain(domain)).values())
        variables.extend(self.own_shared_variables().values())
        for layer in self.parts.values():
            variables.extend(layer.variables_used_by(domain))
        return variables

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns path -> variable, of all variables here and below.

        Checkpoints hold variables under these paths. They consist of the names of parts
        and of those of the variables, with the domain's number: "conv/kernel",
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
    """A layer some of whose variables belong to one domain alone.

    Args:
      num_domains: Number of domains, at least 1.
      **kwargs: As of `keras.layers.Layer`.
    """

    def __init__(self, num_domains: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.num_domains = check_positive_integer("num_domains", num_domains)


def track_for_checkpoint(
    layer: keras.layers.Layer, name: str, variables: Iterable[keras.Variable]
) -> None:
    """Makes each variable an attribute of `layer` of its own: `name_0` and so on.

    For `tf.train.Checkpoint` of a layer, which does not look into the lists of a Keras
    layer. Checkpoints of a run do not need it: see `DomainModule.variables_by_path`.
    """
    for index, variable in enumerate(variables):
        setattr(layer, f"{name}_{index}", variable)
