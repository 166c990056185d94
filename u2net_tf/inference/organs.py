"""Several domains of one call: their models, modalities and the order of priority."""

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

# Stands for every domain of a model.
ALL = "all"


@dataclasses.dataclass(frozen=True)
class Organ:
    """A domain and the model that predicts it.

    Attributes:
      predictor: the model; several organs may share one.
      index: of the domain.
    """

    predictor: Predictor
    index: int

    @property
    def domain(self) -> Domain:
        """The domain."""
        return self.predictor.spec.plan.domains[self.index]

    @property
    def name(self) -> str:
        """Its name."""
        return self.domain.name


def require_choice(config: PredictConfig) -> None:
    """Checks that there is a domain or several, and no setting that belongs to others.

    Raises:
      InputError: names the setting.
    """
    if bool(config.domain) == bool(config.domains):
        raise InputError(
            "`domain`",
            expected="a value, or one of `domains` instead",
            received="both" if config.domain else "neither",
        )
    if len(set(config.domains)) < len(config.domains):
        raise InputError("`domains`", expected="each once", received=config.domains)
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


def choose_domains(names: Sequence[str], known: Sequence[str]) -> list[str]:
    """The domains that a setting names.

    Args:
      names: domains, or "all".
      known: domains that there are.

    Raises:
      InputError: if one is not known.
    """
    if list(names) == [ALL] and ALL not in known:
        return list(known)
    for name in names:
        if name not in known:
            raise InputError(
                "`domains`", expected=f"one of {', '.join(known)}", received=name
            )
    return list(names)


def order_by_priority(names: Sequence[str], priority: Sequence[str]) -> list[str]:
    """Domains from the one that is never hidden on.

    Args:
      names: the domains.
      priority: those that come first; the others follow as they are.

    Raises:
      InputError: if one is none of the domains, or is named twice.
    """
    for name in priority:
        if name not in names:
            raise InputError(
                "`priority`", expected=f"some of {', '.join(names)}", received=name
            )
    if len(set(priority)) < len(priority):
        raise InputError("`priority`", expected="each once", received=priority)
    return [*priority, *(name for name in names if name not in priority)]


def scan_modalities(
    domains: Sequence[Domain], modalities: Sequence[str] = ()
) -> tuple[str, ...]:
    """The modalities of the scans, in the order of their files or channels.

    Args:
      domains: the domains that are predicted.
      modalities: those that the scans have; those of the domain with most of them if
        empty.

    Raises:
      InputError: names a domain, and the modalities that it needs and scans lack.
    """
    found = tuple(modalities)
    if len(set(found)) < len(found):
        raise InputError("`modalities`", expected="each once", received=found)
    if not found:
        found = max((domain.modalities for domain in domains), key=len)
    for domain in domains:
        missing = [name for name in domain.modalities if name not in found]
        if missing:
            raise InputError(
                "`domains`",
                expected=f"domains whose modalities the scans have: {first_few(found)}",
                received=f"{domain.name}, which needs {first_few(missing)}",
                hint="Use `modalities` to name those of the scans in their order, or "
                "leave the domain out",
            )
    return found


def scan_domain(domains: Sequence[Domain], modalities: Sequence[str]) -> Domain:
    """A domain by which scans are found and read for several.

    Args:
      domains: the domains; the first says where the voxel size is read from.
      modalities: of the scans.
    """
    resample = all(
        domain.preprocessing.resample_modalities
        for domain in domains
        if domain.num_modalities > 1
    )
    first = domains[0]
    return dataclasses.replace(
        first,
        name=" + ".join(domain.name for domain in domains),
        modalities=tuple(modalities),
        preprocessing=dataclasses.replace(
            first.preprocessing,
            resample_modalities=resample and len(modalities) > 1,
        ),
        scans=None,
    )


def channels_of(domain: Domain, modalities: Sequence[str]) -> tuple[int, ...]:
    """Where the modalities of a domain are among those of a scan."""
    return tuple(modalities.index(name) for name in domain.modalities)


def image_of(scan: Volume, domain: Domain, modalities: Sequence[str]) -> Volume:
    """The image that a domain would read, without reading it.

    Args:
      scan: as it was read by `scan_domain`.
      domain: one of the domains.
      modalities: of the scan.
    """
    channels = channels_of(domain, modalities)
    first, last = channels[0], channels[-1] + 1
    is_run = channels == tuple(range(first, last))
    # Of neighbours a view; any others are copied.
    data = scan.data[first:last] if is_run else scan.data[np.array(channels)]
    spacing_mm = scan.spacing_mm
    path = scan.grid.path
    # Others than NIfTI files do not contradict themselves.
    if not itk_files.is_itk_file(path) and not is_dicom(path):
        spacing_mm = scan.grid.spacing_mm(domain.preprocessing.spacing_source)
    return Volume(data, spacing_mm, scan.grid, scan.notes)
