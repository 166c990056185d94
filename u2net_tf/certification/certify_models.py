"""Writes a certificate that compares two versions of a model."""

from __future__ import annotations

import datetime
import hashlib
import pathlib
from typing import NamedTuple

from u2net_tf import files, temporary_names
from u2net_tf.certification import page
from u2net_tf.certification.build import current_build
from u2net_tf.certification.certificate import Certificate, compare, to_json
from u2net_tf.certification.measure import measure_model, require_usable
from u2net_tf.config.certificate import CertifyConfig
from u2net_tf.errors import InputError
from u2net_tf.progress import Progress, silent


class WrittenCertificate(NamedTuple):
    """A certificate that was written.

    Attributes:
      certificate: its content.
      path: path of the JSON file.
      page: path of the HTML page.
    """

    certificate: Certificate
    path: pathlib.Path
    page: pathlib.Path


def certify(
    config: CertifyConfig, *, progress: Progress = silent
) -> WrittenCertificate:
    """Computes the checksums of two models, and writes a certificate and its page.

    Args:
      config: the settings, with `before` and `after`.
      progress: shows the number of processed windows of a scan.

    Raises:
      InputError: if a model or scan cannot be used, or a certificate already exists.
      OSError: if a file cannot be read or written.
    """
    models, (path, page_path) = config.models(), config.paths()
    for each in (path, page_path):
        _check_overwrite(each, config.overwrite)
        files.check_writable(each)
    temporary_names.remove_leftovers(path.parent)
    scans_dir = config.scans_dir or None
    require_usable(models, scans_dir)
    before, after = (
        measure_model(model_dir, scans_dir, progress=progress) for model_dir in models
    )
    now = datetime.datetime.now(datetime.timezone.utc)
    certificate = Certificate(
        created=f"{now:%Y-%m-%d %H:%M:%S} UTC",
        build=current_build(),
        scans_dir=scans_dir,
        before=before,
        after=after,
        verdicts=compare(before, after),
    )
    text = to_json(certificate)
    checksum = hashlib.sha256(text.encode()).hexdigest()
    shown = page.to_html(certificate, name=path.name, sha256=checksum)
    # The page is replaced first, since an existing certificate prevents further runs,
    # but never while the certificate that it replaces is still there.
    with (
        files.atomic_write(path) as partial,
        files.atomic_write(page_path) as partial_page,
    ):
        partial.write_text(text, encoding="utf-8")
        partial_page.write_text(shown, encoding="utf-8")
        path.unlink(missing_ok=True)
        files.sync_folder(path.parent)
    return WrittenCertificate(certificate, path, page_path)


def _check_overwrite(path: pathlib.Path, overwrite: bool) -> None:
    """Raises InputError if a file exists that may not be overwritten.

    A page without its certificate was left by a killed run and may be overwritten.
    """
    if path.is_dir():
        raise InputError("`output`", expected="a file", received=f"the folder {path}")
    if overwrite or not path.exists():
        return
    if path.suffix == ".json" or not page.is_page(path.read_bytes()):
        raise InputError(
            path,
            expected="a new file",
            received="an existing one",
            hint="Use `overwrite` to replace it",
        )
