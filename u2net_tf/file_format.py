"""JSON files with a format number: validated strictly, older formats included."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

import pydantic

from u2net_tf import __version__, files, schema
from u2net_tf.errors import InputError

Content = TypeVar("Content")
# Raised by upgrades of files that are not as the older version wrote them.
_UPGRADE_ERRORS = (LookupError, TypeError, AttributeError, ValueError, RecursionError)


def version() -> str:
    """Returns the name and version of this program, as recorded in files."""
    return f"u2net-tf {__version__}"


@dataclasses.dataclass(frozen=True)
class FileFormat(Generic[Content]):
    """A kind of file: its content, format number and upgrades.

    A file is the JSON object of a `schema.model`, preceded by "format", a number that
    is raised whenever an older version could not read or would misread the file, and
    "written_by".

    Attributes:
      name: what the file is, with an article: "a plan".
      made_by: the command that writes it.
      kind: the model.
      oldest: the oldest format that was ever written; 0 for files without a number.
      upgrades: functions that convert the object of a file, without "format" and
        "written_by", from each format to the next, oldest first. See `migrations`.
    """

    name: str
    made_by: str
    kind: type[Content]
    oldest: int
    upgrades: tuple[Callable[[dict[str, Any]], dict[str, Any]], ...]

    @property
    def number(self) -> int:
        """The newest format."""
        return self.oldest + len(self.upgrades)

    def to_dict(self, content: Content) -> dict[str, Any]:
        """Returns the JSON object of a file, starting with its format."""
        adapter = pydantic.TypeAdapter(self.kind)
        fields = adapter.dump_python(content, mode="json", by_alias=True)
        return {"format": self.number, "written_by": version(), **fields}

    def from_text(self, text: str, source: object) -> Content:
        """Reads what `to_dict` returned, as JSON.

        Args:
          text: content of the file.
          source: name of the file, for error messages.

        Raises:
          InputError: if the text is not a valid file of this format. Names the source
            and the field, or the version that wrote a newer format.
        """
        return self.from_dict(parse_json(text, source, self._expected), source)

    def from_dict(self, fields: object, source: object) -> Content:
        """Reads what `to_dict` returned; see `from_text` for arguments and errors."""
        if not isinstance(fields, dict):
            raise InputError(
                source,
                expected=f"{self._expected}, an object",
                received=type(fields).__name__,
            )
        fields = dict(fields)
        number = fields.pop("format", 0 if self.oldest == 0 else None)
        written_by = fields.pop("written_by", None)
        if not isinstance(written_by, str | None):
            raise InputError(
                f"{source}: written_by", expected="a string", received=repr(written_by)
            )
        if type(number) is not int or not self.oldest <= number <= self.number:
            by = f", written by {written_by}" if written_by else ""
            raise InputError(
                f"{source}: format",
                expected=f"an integer from {self.oldest} to {self.number}, the "
                f"formats that {version()} reads",
                received=f"{'nothing' if number is None else repr(number)}{by}",
            )
        adapter = pydantic.TypeAdapter(self.kind)
        try:
            for upgrade in self.upgrades[number - self.oldest :]:
                fields = upgrade(fields)
            # From JSON, pydantic accepts lists as tuples and string keys as numbers.
            content = adapter.validate_json(json.dumps(fields))
        except pydantic.ValidationError as error:
            raise schema.as_input_error(error, self.kind).within(source) from None
        except _UPGRADE_ERRORS as error:
            raise InputError(
                source,
                expected=f"{self._expected}, format {number}",
                received=repr(error),
            ) from None
        complete = adapter.dump_python(content, mode="json", by_alias=True)
        if missing := _missing_field(complete, fields):
            # Defaults are for the code; `upgrades` add the fields of newer formats.
            raise InputError(
                f"{source}: {missing}", expected="a value", received="nothing"
            )
        return content

    def load(self, path: str | os.PathLike) -> Content:
        """Reads a file.

        Raises:
          InputError: if it is missing or cannot be used.
        """
        path = pathlib.Path(path)
        try:
            fields = load_json(path, self._expected)
        except FileNotFoundError:
            raise InputError(
                path, expected=self._expected, received="no such file"
            ) from None
        return self.from_dict(fields, path)

    @property
    def _expected(self) -> str:
        return f"{self.name} written by `{self.made_by}`"


def load_json(path: pathlib.Path, expected: str = "JSON") -> Any:
    """Reads a JSON file; duplicate fields are refused.

    Args:
      path: the file; UTF-8, with or without a byte order mark.
      expected: what the file should be, for error messages.

    Raises:
      InputError: if it is not valid JSON, or a field occurs twice.
      OSError: if it cannot be read.
    """
    return parse_json(files.require_text(path, expected), path, expected)


def parse_json(text: str, source: object, expected: str) -> Any:
    """Reads JSON; see `load_json`.

    Args:
      text: the JSON.
      source: name of the file or variable, for error messages.
      expected: what it should be, for error messages.

    Raises:
      InputError: see `load_json`.
    """
    try:
        content = json.loads(text, object_pairs_hook=_to_dict_once)
        if "\\u" in text:
            # A lone surrogate cannot be encoded.
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except InputError as error:
        raise error.within(source) from None
    except (ValueError, RecursionError) as error:
        raise InputError(source, expected=expected, received=error) from None


def _missing_field(complete: Any, given: Any) -> str:
    """Returns the path of the first field missing from `given`; "" if none is.

    Args:
      complete: the object or list with all fields.
      given: the same, as it was read.
    """
    if isinstance(complete, dict):
        items = [(f".{name}", name) for name in complete]
    elif isinstance(complete, list):
        items = [(f"[{index}]", index) for index in range(len(complete))]
    else:
        return ""
    for place, key in items:
        if isinstance(complete, dict) and key not in given:
            return place.removeprefix(".")
        if below := _missing_field(complete[key], given[key]):
            dot = "" if below.startswith("[") else "."
            return f"{place}{dot}{below}".removeprefix(".")
    return ""


def _to_dict_once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Returns the fields of a JSON object; refuses duplicates."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"field {twice!r:.80}", expected="it once", received="it twice"
        )
    return fields
