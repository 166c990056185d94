"""Compares existing shards with the current plan, settings and raw files."""

from __future__ import annotations

import pathlib

from data_prep.config import ConversionConfig
from data_prep.convert.part_files import ConversionJob
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.shards.manifest import Manifest
from u2net_tf.wording import quantity


def require_unchanged(
    where: pathlib.Path,
    manifest: Manifest,
    domain: Domain,
    jobs: list[ConversionJob],
    settings: ConversionConfig,
) -> None:
    """Checks that shards agree with the current plan, settings and raw files.

    Args:
      where: path of the manifest, for error messages.
      manifest: manifest of the shards.
      domain: domain of the current plan.
      jobs: the cases to convert, with the current signatures of their files.
      settings: current settings.

    Raises:
      InputError: if they differ; the message names the first difference.
    """
    hint = "Use `overwrite` to convert again"
    try:
        manifest.check_plan(domain)
    except InputError as error:
        raise error.within(where, hint=hint) from None
    for name in ("image_dtype", "compression", "shard_size_mb"):
        received, expected_value = getattr(manifest, name), getattr(settings, name)
        if received not in (expected_value, None):
            raise InputError(
                where,
                expected=f"shards with `{name}`={expected_value}",
                received=f"`{name}`={received}",
                hint=hint,
            )
    resample = settings.resample_modalities or domain.preprocessing.resample_modalities
    if manifest.resample_modalities and not resample:
        # The reverse can only add cases: skipped ones are tried again.
        raise InputError(
            where,
            expected="shards without `resample_modalities`",
            received="shards made with it",
            hint=hint,
        )
    for job in jobs:
        before = manifest.raw_signatures.get(job.case.name, job.signatures)
        for path, old, new in zip(job.raw_paths, before, job.signatures, strict=True):
            if old != new:
                raise InputError(
                    where,
                    expected=f"{path} unchanged since the conversion",
                    received="a different size or modification time",
                    hint=hint,
                )


def skipped_error(where: pathlib.Path, manifest: Manifest) -> InputError:
    """Returns the error for skipped cases where all cases are required."""
    case, reason = next(iter(manifest.skipped.items()))
    skipped = quantity(len(manifest.skipped), "skipped case")
    return InputError(
        where,
        expected="all cases",
        received=f"{skipped}, the first one {case}: {reason}",
        hint="Use `on_bad_case`=skip to accept this, or `overwrite` to convert again",
    )
