"""Preprocesses a scan for several domains, once for those that agree."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Sequence

from u2net_tf.inference import label_map_writing, organs
from u2net_tf.inference.prepared_scan import PreparedScan, prepare_scan
from u2net_tf.plan.domains import Domain
from u2net_tf.volumes.grid import Volume
from u2net_tf.volumes.memory import limit_gb

_GB = 1e9


@dataclasses.dataclass
class PreparedOrgans:
    """A scan that is preprocessed for several domains.

    Attributes:
      raw: the volume as it was read.
      by_domain: name of a domain -> the scan preprocessed for it.
    """

    raw: Volume
    by_domain: dict[str, PreparedScan]


def preprocessing_key(domain: Domain, modalities: Sequence[str]) -> Hashable:
    """Returns what preprocessing depends on; domains with equal keys share an image.

    Args:
      domain: provides modalities, spacing and preprocessing.
      modalities: modalities of the scan.
    """
    return (
        organs.channels_of(domain, modalities),
        domain.spacing_mm,
        domain.preprocessing,
    )


def prepare(
    scan: Volume,
    domains: Sequence[Domain],
    modalities: Sequence[str],
    *,
    with_probabilities: bool = False,
    max_memory_gb: float | None = None,
) -> PreparedOrgans:
    """Preprocesses a scan for several domains.

    Args:
      scan: volume that was read with `organs.scan_domain`.
      domains: domains to preprocess the scan for.
      modalities: modalities of the scan.
      with_probabilities: see `prepare_scan`.
      max_memory_gb: see `prepare_scan`.

    Raises:
      InputError: see `prepare_scan`.
    """
    limit = limit_gb(max_memory_gb)
    prepared: dict[Hashable, PreparedScan] = {}
    by_domain = {}
    # Of those that share an image, the one that takes the most memory comes first.
    for domain in sorted(
        domains, key=lambda one: one.num_classes * one.patch_size[0], reverse=True
    ):
        key = preprocessing_key(domain, modalities)
        image = prepared[key].raw if key in prepared else None
        image = image or organs.image_for_domain(scan, domain, modalities)
        label_map_writing.warn_of_differences(image, domain)
        if key not in prepared:
            prepared[key] = prepare_scan(
                image,
                domain,
                with_probabilities=with_probabilities,
                max_memory_gb=limit,
            )
            limit = max(0.0, limit - _image_gb(prepared[key]))
        # Each copy releases the image once; it is freed after the last release.
        by_domain[domain.name] = dataclasses.replace(prepared[key])
    return PreparedOrgans(scan, by_domain)


def _image_gb(scan: PreparedScan) -> float:
    assert scan.image is not None  # not taken yet
    return scan.image.nbytes / _GB
