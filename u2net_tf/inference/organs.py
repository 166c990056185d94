"""Domains that are predicted together: their models, modalities and priority."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from u2net_tf.config.inference import PredictConfig
from u2net_tf.errors import InputError
from u2net_tf.inference.predictor import Predictor
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes import itk_files
from u2net_tf.volumes.dicom_folder import is_dicom
from u2net_tf.volumes.grid import Volume
from u2net_tf.wording import first_few

# Value of `domains` for every domain of a model.
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Organ:
    """A domain and the model that predicts it.

    Attributes:
      predictor: the model; several organs may share one.
      index: index of the domain.
    """

    predictor: Predictor
    index: int

    @property
    def domain(self) -> Domain:
        """The domain."""
        return self.predictor.spec.plan.domains[self.index]

    @property
    def name(self) -> str:
        """The name of the domain."""
        return self.domain.name


def require_choice(config: PredictConfig) -> None:
    """Checks that either `domain` or `domains` is given, with settings that fit it.

    Raises:
      InputError: if both or neither are given, or a setting does not fit.
    """
    if bool(config.domain) == bool(config.domains):
        raise InputError(
            "`domain`",
            expected="a value here or for `domains`",
            received="both" if config.domain else "neither",
        )
    if len(set(config.domains)) < len(config.domains):
        raise InputError(
            "`domains`", expected="distinct values", received=config.domains
        )
    if config.domain:
        for name in ("priority", "separate_files", "modalities"):
            if value := getattr(config, name):
                raise InputError(
                    f"`{name}`",
                    expected="no value without `domains`",
                    received=value,
                )
    if config.priority and config.separate_files:
        raise InputError(
            "`priority`",
            expected="no value with `separate_files`, where nothing is hidden",
            received=config.priority,
        )
    if config.domains and config.save_probabilities and not config.separate_files:
        raise InputError(
            "`save_probabilities`",
            expected="one domain, or `separate_files`",
            received=f"one label map of {', '.join(config.domains)}",
        )


def choose_domains(names: Sequence[str], available: Sequence[str]) -> list[str]:
    """Returns the domains chosen by a setting.

    Args:
      names: domains, or "all".
      available: the domains of the model.

    Raises:
      InputError: if a domain is not available.
    """
    if list(names) == [ALL] and ALL not in available:
        return list(available)
    for name in names:
        if name not in available:
            raise InputError(
                "`domains`", expected=f"one of {', '.join(available)}", received=name
            )
    return list(names)


def order_by_priority(names: Sequence[str], priority: Sequence[str]) -> list[str]:
    """Returns domains in the order of priority: the first one is never hidden.

    Args:
      names: the domains.
      priority: domains that come first; the others follow in their order.

    Raises:
      InputError: if `priority` has an unknown or a repeated domain.
    """
    for name in priority:
        if name not in names:
            raise InputError(
                "`priority`", expected=f"some of {', '.join(names)}", received=name
            )
    if len(set(priority)) < len(priority):
        raise InputError("`priority`", expected="distinct values", received=priority)
    return [*priority, *(name for name in names if name not in priority)]


def scan_modalities(
    domains: Sequence[Domain], modalities: Sequence[str] = ()
) -> tuple[str, ...]:
    """Returns the modalities of the scans, in the order of their files or channels.

    Args:
      domains: the domains that are predicted.
      modalities: the modalities of the scans; if empty, those of the domain with the
        most modalities.

    Raises:
      InputError: if a domain needs modalities that the scans lack.
    """
    found = tuple(modalities)
    if len(set(found)) < len(found):
        raise InputError("`modalities`", expected="distinct values", received=found)
    if not found:
        found = max((domain.modalities for domain in domains), key=len)
    for domain in domains:
        missing = [name for name in domain.modalities if name not in found]
        if missing:
            raise InputError(
                "`domains`",
                expected=f"domains whose modalities the scans have: {first_few(found)}",
                received=f"{domain.name}, which needs {first_few(missing)}",
                hint="Use `modalities` to list those of the scans in their order, or "
                "omit the domain",
            )
    return found


def scan_domain(domains: Sequence[Domain], modalities: Sequence[str]) -> Domain:
    """Returns a domain with which scans are found and read for several domains.

    Args:
      domains: the domains; the first defines where the voxel size is read from.
      modalities: modalities of the scans.
    """
    of_several = [
        domain.preprocessing.resample_modalities
        for domain in domains
        if domain.num_modalities > 1
    ]
    first = domains[0]
    return dataclasses.replace(
        first,
        name=" + ".join(domain.name for domain in domains),
        modalities=tuple(modalities),
        preprocessing=dataclasses.replace(
            first.preprocessing,
            resample_modalities=bool(of_several) and all(of_several),
            # Has an entry for each modality of the domain, not of the scans.
            intensity_statistics=None,
        ),
        scans=None,
    )


def channels_of(domain: Domain, modalities: Sequence[str]) -> tuple[int, ...]:
    """Returns the indices of a domain's modalities among those of a scan."""
    return tuple(modalities.index(name) for name in domain.modalities)


def image_for_domain(scan: Volume, domain: Domain, modalities: Sequence[str]) -> Volume:
    """Returns the image that would be read for a domain, without reading it.

    Args:
      scan: volume that was read with `scan_domain`.
      domain: one of the domains.
      modalities: modalities of the scan.
    """
    channels = channels_of(domain, modalities)
    first, last = channels[0], channels[-1] + 1
    is_contiguous = channels == tuple(range(first, last))
    # Contiguous channels are a view; others are copied.
    data = scan.data[first:last] if is_contiguous else scan.data[np.array(channels)]
    spacing_mm = scan.spacing_mm
    path = scan.grid.path
    # Only NIfTI files can have two contradictory voxel sizes.
    if not itk_files.is_itk_file(path) and not is_dicom(path):
        spacing_mm = scan.grid.spacing_mm(domain.preprocessing.spacing_source)
    return Volume(data, spacing_mm, scan.grid, scan.notes)
