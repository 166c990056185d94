"""Whether the shards of an earlier conversion are what is wanted now."""

from __future__ import annotations

import pathlib

from data_prep.config import ConversionConfig
from data_prep.convert.part_files import ConversionJob
from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.shards.manifest import Manifest
from u2net_tf.wording import quantity


def check_same(
    where: pathlib.Path,
    manifest: Manifest,
    domain: Domain,
    jobs: list[ConversionJob],
    settings: ConversionConfig,
) -> None:
    """Checks that shards are what is wanted.

    Args:
      where: the file of the manifest, for error messages.
      manifest: says what the shards were made of.
      domain: what the plan says now.
      jobs: the cases that are wanted, and what their files are like now.
      settings: how they are wanted.

    Raises:
      InputError: names the first difference.
    """
    again = "Use `overwrite` to convert again"
    try:
        manifest.check_plan(domain)
    except InputError as error:
        raise error.within(where, hint=again) from None
    for name in ("image_dtype", "compression", "shard_size_mb"):
        received, wanted = getattr(manifest, name), getattr(settings, name)
        if received not in (wanted, None):
            raise InputError(
                where,
                expected=f"shards with `{name}`={wanted}",
                received=f"`{name}`={received}",
                hint=again,
            )
    resample = settings.resample_modalities or domain.preprocessing.resample_modalities
    if manifest.resample_modalities and not resample:
        # The reverse adds cases, if any: those that were skipped are tried again.
        raise InputError(
            where,
            expected="shards without `resample_modalities`",
            received="shards made with it",
            hint=again,
        )
    for job in jobs:
        before = manifest.raw_signatures.get(job.case.name, job.signatures)
        for path, old, new in zip(job.raw_paths, before, job.signatures, strict=True):
            if old != new:
                raise InputError(
                    where,
                    expected=f"{path} as it was converted",
                    received="another size or time of last change",
                    hint=again,
                )


def skipped_error(where: pathlib.Path, manifest: Manifest) -> InputError:
    """The error where all cases are wanted and some were skipped."""
    case, reason = next(iter(manifest.skipped.items()))
    skipped = quantity(len(manifest.skipped), "skipped case")
    return InputError(
        where,
        expected="every case",
        received=f"{skipped}, the first of them {case}: {reason}",
        hint="Use `on_bad_case`=skip to accept that, or `overwrite` to convert again",
    )
