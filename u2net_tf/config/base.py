"""Base class of settings: frozen, validated when created, addressed by flat names."""

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
    """A group of settings, which may contain further groups.

    Names are unique within a config and its groups, so a name alone identifies a
    setting: `--learning_rate=0.1` on a command line.

    Attributes:
      not_flags: names of settings in its groups that users cannot set.
    """

    model_config = pydantic.ConfigDict(
        frozen=True, strict=True, extra="forbid", allow_inf_nan=False
    )

    not_flags: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def settings(cls) -> dict[str, FieldInfo]:
        """Returns name -> field of each setting that users can set, in order."""
        fields: dict[str, FieldInfo] = {}
        for name, field in cls.model_fields.items():
            group = _group(field)
            inner = {name: field} if group is None else group.settings()
            if duplicates := fields.keys() & inner.keys():
                raise TypeError(f"{cls.__name__} has two settings named {duplicates}")
            fields |= inner
        return {n: field for n, field in fields.items() if n not in cls.not_flags}

    @classmethod
    def from_flat(cls, values: Mapping[str, Any]) -> Self:
        """Builds a config from values by name; other settings keep their defaults.

        Args:
          values: name -> value, of settings in any group.

        Raises:
          ValueError: if a name is not that of a setting, or a value is not allowed.
        """
        remaining = dict(values)
        config = cls._pop_from(remaining)
        if remaining:
            name = next(iter(remaining))
            similar = difflib.get_close_matches(name, cls.settings(), n=1)
            hint = f"; did you mean {similar[0]}?" if similar else ""
            raise ValueError(f"{name}: expected a setting of {cls.__name__}{hint}")
        return config

    @classmethod
    def _pop_from(cls, values: dict[str, Any]) -> Self:
        """Builds the config from the values that belong to it, and removes them."""
        own = {}
        for name, field in cls.model_fields.items():
            group = _group(field)
            if group is not None:
                own[name] = group._pop_from(values)
            elif name in values:
                own[name] = values.pop(name)
        return cls(**own)

    def flat(self) -> dict[str, Any]:
        """Returns name -> value of each setting, including those of groups."""
        values: dict[str, Any] = {}
        for name in type(self).model_fields:
            value = getattr(self, name)
            values |= value.flat() if isinstance(value, Config) else {name: value}
        return values

    def with_changes(self, **values: Any) -> Self:
        """Returns a copy in which the named settings have other values.

        Raises:
          ValueError: see `from_flat`.
        """
        return self.from_flat({**self.flat(), **values})


def _group(field: FieldInfo) -> type[Config] | None:
    """Returns the class of a group of settings; None for a single setting."""
    kind = field.annotation
    return kind if isinstance(kind, type) and issubclass(kind, Config) else None


def to_input_error(error: pydantic.ValidationError) -> InputError:
    """Converts a validation error to one that names the setting in backquotes."""
    found = schema.as_input_error(error)
    if "`" in found.where:
        # Raised by a model's own check, which already names its settings.
        return found
    name = found.where.rpartition(".")[2].partition("[")[0]
    return InputError(f"`{name}`", expected=found.expected, received=found.received)
