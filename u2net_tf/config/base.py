"""Groups of settings: frozen, checked when they are made, flat by name."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from typing import Any, ClassVar

import pydantic
from pydantic.fields import FieldInfo
from typing_extensions import Self

from u2net_tf import schema
from u2net_tf.errors import InputError


class Config(pydantic.BaseModel):
    """Settings that go together, some of them perhaps groups of their own.

    The names of all settings of a config and its groups differ, so that a name alone
    says which is meant: `--learning_rate=0.1` on a command line.

    Attributes:
      not_flags: names of settings of its groups that no user gives.
    """

    model_config = pydantic.ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False
    )

    not_flags: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def settings(cls) -> dict[str, FieldInfo]:
        """Name -> field of every setting that a user gives, in order."""
        found: dict[str, FieldInfo] = {}
        for name, field in cls.model_fields.items():
            group = _group(field)
            inner = {name: field} if group is None else group.settings()
            if twice := found.keys() & inner.keys():
                raise TypeError(f"{cls.__name__} has two settings named {twice}")
            found |= inner
        return {n: field for n, field in found.items() if n not in cls.not_flags}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Self:
        """Makes the config of values by name; the others have their defaults.

        Args:
          values: name -> value, whichever group it belongs to.

        Raises:
          ValueError: if there is no setting of a name, or a value is not allowed.
        """
        left = dict(values)
        made = cls._take(left)
        if left:
            name = next(iter(left))
            near = difflib.get_close_matches(name, cls.settings(), n=1)
            hint = f"; did you mean {near[0]}?" if near else ""
            raise ValueError(f"{name}: expected a setting of {cls.__name__}{hint}")
        return made

    @classmethod
    def _take(cls, values: dict[str, Any]) -> Self:
        """Makes the config of the values that are its own, and removes them."""
        own = {}
        for name, field in cls.model_fields.items():
            group = _group(field)
            if group is not None:
                own[name] = group._take(values)
            elif name in values:
                own[name] = values.pop(name)
        return cls(**own)

    def flat(self) -> dict[str, Any]:
        """Name -> value of every setting, of all groups."""
        values: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            values |= value.flat() if isinstance(value, Config) else {name: value}
        return values

    def with_changes(self, **values: Any) -> Self:
        """A copy in which settings, by name, have other values.

        Raises:
          ValueError: as for `from_flat`.
        """
        return self.from_flat({**self.flat(), **values})


def _group(field: FieldInfo) -> type[Config] | None:
    """The class of a group; None of a single setting."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Config) else None


def to_input_error(error: pydantic.ValidationError) -> InputError:
    """What is wrong with the settings, as an error that names one in backquotes."""
    found = schema.as_input_error(error)
    if "`" in found.where:
        # Of a model's own check, which names what it is about.
        return found
    name = found.where.rpartition(".")[2].partition("[")[0]
    return InputError(f"`{name}`", expected=found.expected, received=found.received)
