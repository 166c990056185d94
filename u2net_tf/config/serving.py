"""Settings of the command that serves a model."""

from __future__ import annotations

import re

import pydantic
from pydantic import Field

from u2net_tf.config.base import Config
from u2net_tf.config.inference import Runtime, WindowConfig
from u2net_tf.errors import InputError

_HOST_NAME = re.compile(r"\*|[A-Za-z0-9._-]+|\[[0-9A-Fa-f:]+\]")


class ServerConfig(Config):
    """Limits of a server."""

    max_upload_mb: float = Field(
        1024.0, gt=0, description="Size limit of a request, MB."
    )
    max_queue: int = Field(
        8,
        ge=1,
        description="Maximum number of images that are being processed or waiting. "
        "Further requests are answered with status 503.",
    )
    max_memory_gb: float | None = Field(
        None,
        gt=0,
        description="Memory limit per image, GB; half of the machine's memory if not "
        "given.",
    )


class ServeConfig(Config):
    """Settings of `u2net_tf.serve`."""

    model: tuple[str, ...] = Field(
        description="Model folder, model file (.u2net), SavedModel, ONNX or OpenVINO "
        "file, folder of such files, or the name of a model that comes with the "
        "package (hippocampus). Several values, separated by commas, are models of the "
        "same domain, whose probabilities are averaged.",
        json_schema_extra={"alias": "model_dir"},
    )
    runtime: Runtime = Field(
        "auto",
        description="Runtime that executes the model; auto uses the first that "
        "supports the model and is installed.",
    )
    host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Address to listen on. The default accepts connections from this "
        "machine only; there is no authentication and no encryption.",
    )
    port: int = Field(
        8000, ge=0, le=65535, description="Port to listen on; 0 for any free port."
    )
    allowed_hosts: tuple[str, ...] = Field(
        (),
        description="Host names that requests may be addressed to, besides this host "
        "and localhost; * for any. Others are rejected.",
    )
    windows: WindowConfig = WindowConfig()
    server: ServerConfig = ServerConfig()

    @pydantic.field_validator("allowed_hosts")
    @classmethod
    def _check_hosts(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if not _HOST_NAME.fullmatch(name):
                raise InputError(
                    "",
                    expected="host names without a port, or *",
                    received=name,
                )
        return names
