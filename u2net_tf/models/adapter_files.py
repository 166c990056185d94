"""Adapter files: one domain of a model, for every model that has the same trunk.

A file is in the format of the safetensors library. It holds the domain's own variables,
by the names of `variables.own_by_name`, and in its metadata, under one key, the
domain's plan, the settings of its network, the checksum of the trunk that it fits,
licence and card. Reading it runs nothing and trusts nothing. No TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Annotated, Any

import numpy as np
import safetensors
import safetensors.numpy
from pydantic import Field

from u2net_tf import files, schema
from u2net_tf.config.adapter_files import AdapterPrecision
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.models.array_checksum import checksum_of_arrays
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.spec import MODEL, ModelSpec
from u2net_tf.wording import first_few

# The only key of the metadata: of several, the library writes no fixed order.
KEY = "u2net_tf.adapter"
MADE_BY = "python -m u2net_tf.adapter export"
MAX_LICENCE_CHARACTERS, MAX_CARD_CHARACTERS = 200, 100_000
_EXPECTED = f"an adapter file as `{MADE_BY}` writes it"
# Names of types in safetensors.
_PRECISIONS: dict[str, AdapterPrecision] = {"F32": "float32", "F16": "float16"}
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


@schema.model
class Metadata:
    """What an adapter file says of itself.

    Attributes:
      trunk_sha256: `checksums.of_trunk` of the models that it fits.
      variables_sha256: `checksums.of_domain_variables` of the domain in a model that
        it was added to: over float32, also where the file holds float16.
      licence: on one line; "" if it is not stated.
      card: description for people, Markdown; "" if there is none.
      model: the specification of a model of this domain alone, in the format that
        checkpoints hold: plan and network.
    """

    trunk_sha256: Sha256
    variables_sha256: Sha256
    licence: str
    card: str
    model: dict[str, Any]

    def __post_init__(self) -> None:
        check_licence(self.licence, "licence")
        check_card(self.card, "card")


METADATA = FileFormat(
    name="an adapter", made_by=MADE_BY, kind=Metadata, oldest=1, upgrades=()
)


def check_licence(text: str, where: str) -> None:
    """Raises InputError, at `where`, unless a text can be a licence: on one line."""
    if not text.isprintable() or len(text) > MAX_LICENCE_CHARACTERS:
        raise InputError(
            where,
            expected=f"one line of at most {MAX_LICENCE_CHARACTERS} characters",
            received=repr(text),
        )


def check_card(text: str, where: object) -> None:
    """Raises InputError, at `where`, unless a text can be a card.

    It is shown in terminals, so it holds no control characters.
    """
    odd = [c for c in text if not c.isprintable() and c not in "\n\t"]
    if odd or len(text) > MAX_CARD_CHARACTERS:
        raise InputError(
            where,
            expected=f"text of at most {MAX_CARD_CHARACTERS:,} characters without "
            "control characters",
            received=f"{odd[0]!r} in it" if odd else f"{len(text):,} characters",
        )


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A domain that fits a trunk.

    Attributes:
      spec: specification of a model of this domain alone.
      trunk_sha256: as of `Metadata`.
      variables: name -> float32 array.
      licence: as of `Metadata`.
      card: as of `Metadata`.
    """

    spec: ModelSpec
    trunk_sha256: str
    variables: Mapping[str, np.ndarray]
    licence: str = ""
    card: str = ""


def to_bytes(adapter: Adapter, precision: AdapterPrecision = "float32") -> bytes:
    """Returns an adapter as the content of a file, the same for the same adapter.

    The names of cases are left out.

    Args:
      adapter: the adapter.
      precision: what the file holds the variables in.

    Raises:
      InputError: names a variable that is not finite, or not in float16.
    """
    stored = {}
    for name, array in adapter.variables.items():
        with np.errstate(over="ignore"):
            stored[name] = np.ascontiguousarray(array.astype(precision))
        require_finite(f"domain {adapter.spec.plan.names[0]}", name, stored[name])
    values = {name: array.astype(np.float32) for name, array in stored.items()}
    metadata = Metadata(
        trunk_sha256=adapter.trunk_sha256,
        variables_sha256=checksum_of_arrays(values),
        licence=adapter.licence,
        card=adapter.card,
        model=MODEL.to_dict(without_case_names(adapter.spec)),
    )
    text = json.dumps(METADATA.to_dict(metadata))
    return safetensors.numpy.save(stored, metadata={KEY: text})


def require_finite(where: object, name: str, array: np.ndarray) -> None:
    """Raises InputError if an array holds NaN or infinity."""
    odd = array[~np.isfinite(array)]
    if odd.size:
        raise InputError(
            where,
            expected=f"finite values of {array.dtype} in {name}",
            received=f"{odd[0]}, {odd.size:,} of {array.size:,} such values",
        )


class AdapterFile:
    """An adapter file whose metadata were read and checked, and no values yet.

    Args:
      path: the file.

    Attributes:
      path: the file.
      metadata: what it says of itself.
      spec: specification of a model of its domain alone.
      precision: what it holds the variables in.
      shapes: name of a variable -> its shape.

    Raises:
      InputError: if it is damaged or of something else.
      OSError: if it cannot be read.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)
        if not self.path.is_file():
            raise InputError(
                self.path, expected=_EXPECTED, received=files.what_is_at(self.path)
            )
        with self._open() as opened:
            metadata = opened.metadata() or {}
            slices = {name: opened.get_slice(name) for name in opened.keys()}  # noqa: SIM118
            self.shapes = {n: tuple(part.get_shape()) for n, part in slices.items()}
            types = {name: part.get_dtype() for name, part in slices.items()}
        if KEY not in metadata:
            others = first_few(sorted(metadata)) or "none"
            raise InputError(
                self.path,
                expected=f"{_EXPECTED}, with the metadata {KEY}",
                received=f"another safetensors file, its metadata: {others}",
            )
        self.precision = self._precision(types)
        self.metadata = METADATA.from_text(metadata[KEY], self.path)
        self.spec = MODEL.from_dict(self.metadata.model, f"{self.path}: model")
        if len(self.spec.plan.domains) != 1:
            raise InputError(
                f"{self.path}: model",
                expected="one domain",
                received=first_few(self.spec.plan.names),
            )

    @property
    def name(self) -> str:
        """Name of its domain."""
        return self.spec.plan.names[0]

    @property
    def num_parameters(self) -> int:
        """Number of values of all variables."""
        return sum(map(math.prod, self.shapes.values()))

    def require_shapes(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Checks that the file holds these variables and no others.

        Args:
          expected: name -> shape.

        Raises:
          InputError: names one that is missing, unknown or of another shape.
        """
        for name in sorted(expected.keys() | self.shapes.keys()):
            wanted, found = expected.get(name), self.shapes.get(name)
            if wanted != found:
                raise InputError(
                    self.path,
                    expected=f"{name} of shape {wanted}, as the plan in it says"
                    if wanted is not None
                    else f"the {len(expected)} variables of its domain",
                    received="none" if found is None else f"{name} of shape {found}",
                )

    def read(self) -> Adapter:
        """Reads all values.

        Raises:
          InputError: if one is not finite, or they are not those that were written.
        """
        with self._open() as opened:
            stored = {name: opened.get_tensor(name) for name in self.shapes}
        for name, array in stored.items():
            require_finite(self.path, name, array)
        values = {name: array.astype(np.float32) for name, array in stored.items()}
        found = checksum_of_arrays(values)
        if found != self.metadata.variables_sha256:
            raise InputError(
                self.path,
                expected=f"variables of SHA-256 {self.metadata.variables_sha256}, as "
                "it says",
                received=found,
                hint="The file was damaged or edited",
            )
        return Adapter(
            self.spec,
            self.metadata.trunk_sha256,
            values,
            self.metadata.licence,
            self.metadata.card,
        )

    @contextlib.contextmanager
    def _open(self) -> Iterator[Any]:
        try:
            with safetensors.safe_open(self.path, framework="numpy") as opened:
                yield opened
        except safetensors.SafetensorError as error:
            raise InputError(
                self.path, expected=_EXPECTED, received=f"a damaged file: {error}"
            ) from None

    def _precision(self, types: Mapping[str, str]) -> AdapterPrecision:
        kinds = sorted(set(types.values()))
        if len(kinds) != 1 or kinds[0] not in _PRECISIONS:
            raise InputError(
                self.path,
                expected=f"variables that are all {' or all '.join(_PRECISIONS)}",
                received=first_few(kinds) or "none",
            )
        return _PRECISIONS[kinds[0]]
