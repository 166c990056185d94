"""JSON files with a format number: read strictly, of every older format too."""

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
# What is raised where an older file is not as that version wrote it.
_IN_UPGRADE = (LookupError, TypeError, AttributeError, ValueError, RecursionError)


def version() -> str:
    """Name and version of this program, as files say by whom they were written."""
    return f"u2net-tf {__version__}"


@dataclasses.dataclass(frozen=True)
class FileFormat(Generic[Content]):
    """One kind of file.

    A file is the JSON object of a `schema.model`, preceded by "format", a number that
    is raised whenever an older version could not read or would misread the file, and
    "written_by".

    Attributes:
      name: what the file is, with an article: "a plan".
      made_by: the command that writes it.
      kind: the model.
      oldest: the oldest format that was ever written; 0 for files that say none.
      upgrades: from each format, beginning with the oldest, to the next: a function of
        the object of a file, without "format" and "written_by". See `migrations`.
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
        """The JSON object of a file, its format first."""
        adapter = pydantic.TypeAdapter(self.kind)
        fields = adapter.dump_python(content, mode="json", by_alias=True)
        return {"format": self.number, "written_by": version(), **fields}

    def from_text(self, text: str, source: object) -> Content:
        """Reads what `to_dict` returned, as JSON.

        Args:
          text: the file's.
          source: the file, for error messages.

        Raises:
          InputError: names the source and the field, or the version that wrote a newer
            format.
        """
        return self.from_dict(_parse_json(text, source, self._expected), source)

    def from_dict(self, fields: object, source: object) -> Content:
        """Reads what `to_dict` returned. Arguments and errors as for `from_text`."""
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
                f"{source}: written_by", expected="a text", received=repr(written_by)
            )
        if type(number) is not int or not self.oldest <= number <= self.number:
            by = f", written by {written_by}" if written_by else ""
            raise InputError(
                f"{source}: format",
                expected=f"a whole number from {self.oldest} to {self.number}, the "
                f"formats that {version()} reads",
                received=f"{'nothing' if number is None else repr(number)}{by}",
            )
        adapter = pydantic.TypeAdapter(self.kind)
        try:
            for upgrade in self.upgrades[number - self.oldest :]:
                fields = upgrade(fields)
            # In JSON pydantic takes a list for a tuple and a text key for a number.
            content = adapter.validate_json(json.dumps(fields))
        except pydantic.ValidationError as error:
            raise schema.as_input_error(error, self.kind).within(source) from None
        except _IN_UPGRADE as error:
            raise InputError(
                source,
                expected=f"{self._expected}, format {number}",
                received=repr(error),
            ) from None
        wanted = adapter.dump_python(content, mode="json", by_alias=True)
        if absent := _absent(wanted, fields):
            # Defaults are for the code. What an older file lacks, `upgrades` fill in.
            raise InputError(
                f"{source}: {absent}", expected="a value", received="nothing"
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
        return f"{self.name} as `{self.made_by}` writes it"


def load_json(path: pathlib.Path, expected: str = "JSON") -> Any:
    """Reads a JSON file in which no field stands twice.

    Args:
      path: the file; UTF-8, with or without a byte order mark.
      expected: what it should be, for error messages.

    Raises:
      InputError: if it is no such JSON.
      OSError: if it cannot be read.
    """
    return _parse_json(files.require_text(path, expected), path, expected)


def _parse_json(text: str, source: object, expected: str) -> Any:
    try:
        content = json.loads(text, object_pairs_hook=_without_repetition)
        if "\\u" in text:
            # Half of a surrogate pair is no text that can be written or shown.
            json.dumps(content, ensure_ascii=False).encode()
        return content
    except InputError as error:
        raise error.within(source) from None
    except (ValueError, RecursionError) as error:
        raise InputError(source, expected=expected, received=error) from None


def _absent(wanted: Any, given: Any) -> str:
    """Place of the first field of `wanted` that `given` lacks; "" if it lacks none."""
    if isinstance(wanted, dict):
        items = [(f".{name}", name) for name in wanted]
    elif isinstance(wanted, list):
        items = [(f"[{index}]", index) for index in range(len(wanted))]
    else:
        return ""
    for place, key in items:
        if isinstance(wanted, dict) and key not in given:
            return place.removeprefix(".")
        if below := _absent(wanted[key], given[key]):
            dot = "" if below.startswith("[") else "."
            return f"{place}{dot}{below}".removeprefix(".")
    return ""


def _without_repetition(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise InputError(
            f"field {twice!r:.80}", expected="it once", received="it twice"
        )
    return fields
