"""Settings of `u2net_tf.certify`."""

from __future__ import annotations

import pathlib

from pydantic import Field

from u2net_tf.config.base import Config
from u2net_tf.config.log import LogConfig
from u2net_tf.errors import InputError


class CertifyConfig(Config):
    """Settings of `u2net_tf.certify`."""

    before: str | None = Field(
        None, description="Folder of the model before the change."
    )
    after: str | None = Field(None, description="Folder of the model after the change.")
    output: str = Field(
        "certificate.json",
        description="Certificate to write (.json). A human-readable page is written "
        "next to it (.html).",
    )
    scans_dir: str | None = Field(
        None,
        description="Folder with a subfolder of scans for each domain; both models "
        "predict all of them. A domain without a subfolder is compared without scans. "
        "With check, the certificate's folder if not given, and no scans if empty.",
    )
    check: str | None = Field(
        None,
        # Empty if it was an unset shell variable.
        min_length=1,
        description="Certificate to verify, instead of writing one. The models are "
        "those given by before and after or, if neither is given, those that it names.",
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

    def require_check_alone(self) -> None:
        """Checks that no setting is given that has no effect with `check`.

        Raises:
          InputError: if one is given.
        """
        default = type(self).model_fields["output"].default
        for name, value, unset in (
            ("output", self.output, default),
            ("overwrite", self.overwrite, False),
        ):
            if value != unset:
                raise InputError(
                    f"`{name}`",
                    expected="no value with `check`, which writes nothing",
                    received=value,
                )

    def paths(self) -> tuple[pathlib.Path, pathlib.Path]:
        """Returns the paths of the certificate and of its HTML page.

        Raises:
          InputError: if the certificate's name does not end in .json.
        """
        path = pathlib.Path(self.output)
        if path.suffix != ".json":
            raise InputError(
                "`output`", expected="a name that ends in .json", received=self.output
            )
        return path, path.with_suffix(".html")
