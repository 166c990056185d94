"""Adapter files: one domain of a model, usable with every model of the same trunk.

An adapter file is a safetensors file. It contains the domain's own variables, named as
in `variables.own_by_name`. One key of its metadata contains the domain's plan, the
settings of the network, the checksum of the trunk, the licence and the card. Reading a
file executes no code from it, validates its entire content and needs no TensorFlow.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from u2net_tf import files, schema
from u2net_tf.config.adapter_files import AdapterPrecision
from u2net_tf.errors import InputError
from u2net_tf.file_format import FileFormat
from u2net_tf.models.array_checksum import checksum_of_arrays
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.spec import MODEL, ModelSpec
from u2net_tf.schema import Sha256
from u2net_tf.wording import control_characters, first_few

# The only key of the metadata: safetensors writes several keys in no fixed order.
KEY = "u2net_tf.adapter"
SUFFIX = ".safetensors"
MADE_BY = "python -m u2net_tf.adapter export"
MAX_LICENCE_CHARACTERS, MAX_CARD_CHARACTERS = 200, 100_000
_EXPECTED = f"an adapter file written by `{MADE_BY}`"
# Name of a type in safetensors -> precision.
_PRECISIONS: dict[str, AdapterPrecision] = {"F32": "float32", "F16": "float16"}


@schema.model
class Metadata:
    """Metadata of an adapter file.

    Attributes:
      trunk_sha256: `checksums.of_trunk` of the models that it fits.
      variables_sha256: `checksums.of_domain_variables` of the domain once it is added
        to a model: of float32 values, even if the file contains float16.
      licence: one line; "" if not stated.
      card: description for people, Markdown; "" if there is none.
      model: specification of a model of this domain alone, in the format of
        checkpoints: plan and network.
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
    """Raises InputError, at `where`, unless the text can be a licence: one line."""
    is_line = not control_characters(text) and not set("\n\t") & set(text)
    if not is_line or len(text) > MAX_LICENCE_CHARACTERS:
        raise InputError(
            where,
            expected=f"one line of at most {MAX_LICENCE_CHARACTERS} characters",
            received=repr(text),
        )


def check_card(text: str, where: object) -> None:
    """Raises InputError, at `where`, unless the text can be a card.

    Cards are shown in terminals, so control characters are not allowed.
    """
    control = control_characters(text)
    if control or len(text) > MAX_CARD_CHARACTERS:
        raise InputError(
            where,
            expected=f"text of at most {MAX_CARD_CHARACTERS:,} characters without "
            "control characters",
            received=f"text with {control[0]!r}"
            if control
            else f"{len(text):,} characters",
        )


@dataclasses.dataclass(frozen=True)
class Adapter:
    """A domain to be added to a trunk.

    Attributes:
      spec: specification of a model of this domain alone.
      trunk_sha256: see `Metadata`.
      variables: name -> float32 array.
      licence: see `Metadata`.
      card: see `Metadata`.
    """

    spec: ModelSpec
    trunk_sha256: str
    variables: Mapping[str, np.ndarray]
    licence: str = ""
    card: str = ""


def to_bytes(adapter: Adapter, precision: AdapterPrecision = "float32") -> bytes:
    """Serializes an adapter; equal adapters result in identical bytes.

    Case names are left out.

    Args:
      adapter: variables of a domain and their description.
      precision: precision in which the variables are stored.

    Raises:
      InputError: if a variable is not finite in this precision; names the variable.
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
    """Raises InputError if an array contains NaN or infinity."""
    not_finite = array[~np.isfinite(array)]
    if not_finite.size:
        raise InputError(
            where,
            expected=f"finite {array.dtype} values in {name}",
            received=f"{not_finite[0]}; {not_finite.size:,} of {array.size:,} values "
            "are not finite",
        )


class AdapterFile:
    """An adapter file; the metadata are read and checked when it is created.

    Args:
      path: the file.

    Attributes:
      path: the file.
      metadata: `Metadata` from the header of the file.
      spec: specification of a model of its domain alone.
      precision: precision in which the variables are stored.
      shapes: name of a variable -> its shape.

    Raises:
      InputError: if it is damaged or not an adapter file.
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
                expected=f"{_EXPECTED}, with the metadata key {KEY}",
                received=f"a safetensors file with the metadata keys: {others}",
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
        """Name of the domain."""
        return self.spec.plan.names[0]

    @property
    def num_parameters(self) -> int:
        """Number of parameters of the domain."""
        return sum(map(math.prod, self.shapes.values()))

    def require_shapes(self, expected: Mapping[str, tuple[int, ...]]) -> None:
        """Checks that the file contains these variables and no others.

        Args:
          expected: name -> shape.

        Raises:
          InputError: if a variable is missing, unknown or of the wrong shape; names it.
        """
        for name in sorted(expected.keys() | self.shapes.keys()):
            shape, found = expected.get(name), self.shapes.get(name)
            if shape != found:
                raise InputError(
                    self.path,
                    expected=f"{name} of shape {shape}, according to its plan"
                    if shape is not None
                    else f"only the {len(expected)} variables of its domain",
                    received="none" if found is None else f"{name} of shape {found}",
                )

    def read(self) -> Adapter:
        """Reads all values.

        Raises:
          InputError: if a value is not finite, or the checksum does not match.
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
                expected="variables with the recorded SHA-256 "
                f"{self.metadata.variables_sha256}",
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
