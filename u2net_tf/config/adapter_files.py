"""Settings of `u2net_tf.adapter`, which exchanges domains as adapter files."""

from __future__ import annotations

from typing import Any, Literal

import pydantic
from pydantic import Field
from typing_extensions import Self

from u2net_tf.config.base import Config
from u2net_tf.errors import InputError

AdapterPrecision = Literal["float32", "float16"]
_OUTPUT_DIR: Any = Field(
    None,
    # An unset shell variable must not change the model in place.
    min_length=1,
    description="Folder for the new model. If not given, the model is changed in "
    "place, which is refused for a trained model, since its training could not be "
    "resumed.",
)


class AdapterExportConfig(Config):
    """Settings of `u2net_tf.adapter export`."""

    model_dir: str = Field(description="Folder of the model.")
    domain: str = Field(description="Domain to export.")
    output: str = Field(description="Adapter file to write (.safetensors).")
    checkpoint: str = Field(
        "newest",
        description="Checkpoint to export: newest (the newest intact one), best or "
        "step-N.",
    )
    precision: AdapterPrecision = Field(
        "float32",
        description="Precision of the variables in the file. float16 halves its size "
        "and rounds the variables, so the domain is no longer bit-identical.",
    )
    licence: str | None = Field(
        None,
        description='Licence of the adapter, on one line, for example "CC-BY-4.0".',
    )
    card: str | None = Field(
        None,
        description="Markdown file that describes the adapter: data, training, scores "
        "and intended use.",
    )
    overwrite: bool = Field(False, description="Replace an existing, different file.")


class AdapterAddConfig(Config):
    """Settings of `u2net_tf.adapter add`."""

    model_dir: str = Field(description="Folder of the model.")
    input: tuple[str, ...] = Field(
        description="Adapter files to add; the model must have the same trunk."
    )
    output_dir: str | None = _OUTPUT_DIR

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        _require_distinct("input", self.input)
        return self


class AdapterRemoveConfig(Config):
    """Settings of `u2net_tf.adapter remove`."""

    model_dir: str = Field(description="Folder of the model.")
    domains: tuple[str, ...] = Field(description="Domains to remove.")
    output_dir: str | None = _OUTPUT_DIR

    @pydantic.model_validator(mode="after")
    def _check(self) -> Self:
        _require_distinct("domains", self.domains)
        return self


class AdapterListConfig(Config):
    """Settings of `u2net_tf.adapter list`."""

    model_dir: str | None = Field(
        None,
        description="Folder of a model. Its domains are listed, and the adapter files "
        "are checked against it.",
    )
    input: tuple[str, ...] = Field((), description="Adapter files to list.")


def _require_distinct(name: str, values: tuple[str, ...]) -> None:
    if len(set(values)) < len(values):
        raise InputError(
            f"`{name}`", expected="distinct values", received=",".join(values)
        )
