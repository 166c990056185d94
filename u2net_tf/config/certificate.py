"""Settings of `u2net_tf.certify`."""

from __future__ import annotations

import pathlib

from pydantic import Field

from u2net_tf.config.base import Config
from u2net_tf.config.log import LogConfig
from u2net_tf.errors import InputError


class CertifyConfig(Config):
    """Settings of `u2net_tf.certify`."""

    before: str | None = Field(None, description="Folder of the model before a change.")
    after: str | None = Field(None, description="Folder of the model after it.")
    output: str = Field(
        "certificate.json",
        description="The certificate to write (.json); the page for people lies beside "
        "it (.html).",
    )
    scans_dir: str | None = Field(
        None,
        description="Folder with a folder of scans for each domain that is to be tried "
        "on scans: both models predict all of them. With check, that of the "
        "certificate if not given, and none if empty.",
    )
    check: str | None = Field(
        None,
        description="A certificate to verify, instead of writing one: the models are "
        "those given, or else both that it names.",
    )
    overwrite: bool = Field(False, description="Replace an existing certificate.")
    log: LogConfig = LogConfig()

    def models(self) -> tuple[str, str]:
        """Returns the folders of both models.

        Raises:
          InputError: if one is not given.
        """
        for name, value in (("before", self.before), ("after", self.after)):
            if not value:
                raise InputError(f"`{name}`", expected="a value", received="none")
        return self.before or "", self.after or ""

    def paths(self) -> tuple[pathlib.Path, pathlib.Path]:
        """Returns the paths of the certificate and of its page.

        Raises:
          InputError: if the certificate's name does not end in .json.
        """
        path = pathlib.Path(self.output)
        if path.suffix != ".json":
            raise InputError(
                "`output`", expected="a name that ends in .json", received=self.output
            )
        return path, path.with_suffix(".html")
