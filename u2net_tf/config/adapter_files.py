"""Settings of `u2net_tf.adapter`: domains of models as files."""

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
    # An unset variable of a shell must not change the model where it is.
    min_length=1,
    description="Folder for the new model. If not given, the model is changed where it "
    "is, which is refused for one that was trained, as its training could not resume.",
)


class AdapterExportConfig(Config):
    """Settings of `u2net_tf.adapter export`."""

    model_dir: str = Field(description="Folder of the model.")
    domain: str = Field(description="Domain to export.")
    output: str = Field(description="The adapter file to write (.safetensors).")
    checkpoint: str = Field(
        "newest", description="Checkpoint to export: newest (intact), best or step-N."
    )
    precision: AdapterPrecision = Field(
        "float32",
        description="What the file holds the variables in. float16 halves it and "
        "rounds them, so that the domain is no longer bit-identical.",
    )
    licence: str | None = Field(
        None, description='Licence of the adapter, on one line: "CC-BY-4.0".'
    )
    card: str | None = Field(
        None,
        description="Text file (Markdown) that describes the adapter: data, training, "
        "scores, intended use.",
    )
    overwrite: bool = Field(False, description="Replace an existing, different file.")


class AdapterAddConfig(Config):
    """Settings of `u2net_tf.adapter add`."""

    model_dir: str = Field(description="Folder of the model.")
    input: tuple[str, ...] = Field(
        description="Adapter files, for the trunk of the model."
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
        description="Folder of a model: its domains are listed, and whether the files "
        "fit it.",
    )
    input: tuple[str, ...] = Field((), description="Adapter files to list.")


def _require_distinct(name: str, values: tuple[str, ...]) -> None:
    if len(set(values)) < len(values):
        raise InputError(f"`{name}`", expected="each once", received=",".join(values))
