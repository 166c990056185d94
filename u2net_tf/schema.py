"""Frozen, strict dataclasses for the content of files, and their validation errors.

    @schema.model
    class Label:
        name: schema.Text
        values: Annotated[tuple[int, ...], Field(min_length=1)]

A value of the wrong type is refused, not converted: neither "1" nor True is an integer.
A field whose name on disk differs from its name in the code has an alias.
"""

from __future__ import annotations

import collections
import dataclasses
import difflib
import functools
import math
import typing
from collections.abc import Sequence
from typing import Annotated, Any, TypeVar

import pydantic
import pydantic.dataclasses
import typing_extensions
from pydantic import BeforeValidator, Field, PlainSerializer

from u2net_tf.errors import InputError
from u2net_tf.wording import first_few

_CONFIG = pydantic.ConfigDict(
    strict=True, extra="forbid", allow_inf_nan=False, populate_by_name=True
)
Content = TypeVar("Content")


@typing_extensions.dataclass_transform(frozen_default=True)
def model(kind: type[Content]) -> type[Content]:
    """Makes a class a frozen, strict dataclass.

    Creating an instance raises `InputError` if a value is not allowed.
    """
    made: Any = pydantic.dataclasses.dataclass(kind, frozen=True, config=_CONFIG)
    validate = made.__init__

    @functools.wraps(validate)
    def init(self: Content, *arguments: Any, **fields: Any) -> None:
        try:
            validate(self, *arguments, **fields)
        except pydantic.ValidationError as error:
            raise as_input_error(error, made).within(made.__name__) from None

    made.__init__ = init
    return made


Text = Annotated[str, Field(min_length=1)]


def expected(meaning: str) -> pydantic.WrapValidator:
    """Returns an annotation that names what a field expects, in place of a pattern."""

    def check(value: Any, validate: pydantic.ValidatorFunctionWrapHandler) -> Any:
        try:
            return validate(value)
        except pydantic.ValidationError:
            raise InputError("", expected=meaning, received=_shown(value)) from None

    return pydantic.WrapValidator(check)


Sha256 = Annotated[
    str, Field(pattern="^[0-9a-f]{64}$"), expected("64 digits from 0 to 9 and a to f")
]
# Numbers in files must fit NumPy's int64.
_INT64_MAX = 2**63 - 1
Count = Annotated[int, Field(ge=0, le=_INT64_MAX)]
Size = Annotated[int, Field(ge=1, le=_INT64_MAX)]
# Limit of training steps: numbers derived from it, such as patches, must fit 64 bits.
MAX_STEP = 10**12 - 1
Step = Annotated[int, Field(ge=0, le=MAX_STEP)]
# Size of an axis of a volume, in voxels, or of a batch; margin; halvings of an axis.
Extent = Annotated[int, Field(ge=1, le=2**16)]
Margin = Annotated[int, Field(ge=0, le=2**16)]
Pools = Annotated[int, Field(ge=0, le=10)]
Length = Annotated[float, Field(gt=0)]


def _nan_if_null(value: object) -> object:
    return math.nan if value is None else value


def _null_if_nan(value: float) -> float | None:
    return None if math.isnan(value) else value


# NaN if undefined, such as the mean of no values; null on disk.
MaybeNan = Annotated[
    float,
    Field(allow_inf_nan=True),
    BeforeValidator(_nan_if_null),
    PlainSerializer(_null_if_nan, return_type=float | None),
]

# pydantic's type of error -> what was expected, where its own message is less clear.
_EXPECTED = {
    "bool_type": "true or false",
    "dataclass_exact_type": "{class_name}",
    "dataclass_type": "an object",
    "dict_type": "an object",
    "finite_number": "a finite number",
    "float_type": "a number",
    "greater_than": "a number above {gt:g}",
    "greater_than_equal": "a number of at least {ge:g}",
    "int_from_float": "an integer",
    "int_parsing": "an integer",
    "int_type": "an integer",
    "less_than": "a number below {lt:g}",
    "less_than_equal": "a number of at most {le:g}",
    "json_invalid": "JSON that does not nest so deeply, of valid Unicode",
    "literal_error": "{expected}",
    "missing": "a value",
    "string_too_short": "a non-empty string",
    "string_type": "a string",
    "too_long": "at most {max_length} items",
    "too_short": "at least {min_length} items",
    "tuple_type": "a list",
}
_UNKNOWN = ("unexpected_keyword_argument", "extra_forbidden")


def as_input_error(error: pydantic.ValidationError, kind: Any = None) -> InputError:
    """Converts an error of pydantic to an `InputError`.

    Args:
      error: pydantic's error. Of several problems, one is reported: an unknown field,
        which may be misspelled, takes precedence over a missing one.
      kind: the model, to suggest the names of its fields; None for no suggestion.

    Returns:
      An error whose `where` is like `domains[2].spacing_mm`; "" for the entire object.
    """
    problems = error.errors()
    unknown = [problem for problem in problems if problem["type"] in _UNKNOWN]
    problem = (unknown or problems)[0]
    where = _place(problem["loc"])
    context = problem.get("ctx", {})
    inner = context.get("error")
    if isinstance(inner, InputError):
        return inner.within(where, separator=".") if where else inner
    if unknown:
        names = _field_names(kind, problem["loc"][:-1])
        near = difflib.get_close_matches(str(problem["loc"][-1]), names, n=1)
        return InputError(
            where,
            expected="no field of this name",
            received=_shown(problem["input"]),
            hint=f"Did you mean {near[0]!r}?" if near else "",
        )
    received = _shown(problem["input"])
    if problem["type"] in ("missing", "missing_argument"):
        received = "nothing"
    expected = _EXPECTED.get(problem["type"], "")
    return InputError(
        where,
        expected=expected.format(**context)
        or problem["msg"].removeprefix("Value error, "),
        received=received,
    )


def require_distinct(where: str, names: Sequence, expected: str) -> None:
    """Raises InputError if a name occurs twice in `names`."""
    if len(set(names)) < len(names):
        counts = collections.Counter(names)
        twice = [name for name, count in counts.items() if count > 1]
        received = f"several times: {first_few(twice)}"
        raise InputError(where, expected=expected, received=received)


def _place(loc: Sequence[str | int]) -> str:
    """Returns ("domains", 2, "spacing_mm") as domains[2].spacing_mm."""
    # Pydantic also lists the member of a union that it tried, and marks keys.
    loc = [part for part in loc if part not in ("int", "float", "[key]")]
    text = "".join(f"[{p}]" if isinstance(p, int) else f".{p:.80}" for p in loc)
    return text.removeprefix(".")


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 200 else f"{text[:200]}…"


def _field_names(kind: Any, loc: Sequence[str | int]) -> list[str]:
    """Returns the names on disk of the fields of the model at `loc` within `kind`."""
    for part in loc:
        if isinstance(part, str):
            kind = typing.get_type_hints(_model_in(kind)).get(part, kind)
    found = _model_in(kind)
    if found is None:
        return []
    fields = found.__pydantic_fields__
    return [field.alias or name for name, field in fields.items()]


def _model_in(kind: Any) -> Any:
    """Returns the first model in a type such as `tuple[Domain, ...]`, or None."""
    if dataclasses.is_dataclass(kind):
        return kind
    return next(filter(None, map(_model_in, typing.get_args(kind))), None)
