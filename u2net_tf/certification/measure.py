"""Computes the checksums of a model for a certificate."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable

import numpy as np
import tensorflow as tf

from u2net_tf.certification.certificate import DomainRecord, ModelRecord, ScanRecord
from u2net_tf.certification.probes import make_probes
from u2net_tf.errors import InputError
from u2net_tf.inference.backends.keras import KerasBackend
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.scans import Scan, find_scans
from u2net_tf.models import checksums
from u2net_tf.models.array_checksum import checksum_of_arrays
from u2net_tf.models.loading import load_network, load_spec, models_by_domain
from u2net_tf.models.spec import DOMAIN_FIELDS, ModelSpec
from u2net_tf.networks.domain_model import DomainModel
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.progress import Progress, silent
from u2net_tf.volumes import case, case_labels


def measure_model(
    model_dir: str | os.PathLike,
    scans_dir: str | os.PathLike | None = None,
    *,
    progress: Progress = silent,
) -> ModelRecord:
    """Computes the checksums of all domains of a model or of independent models.

    Args:
      model_dir: folder of the model or models.
      scans_dir: folder with a folder of scans per domain, of the same name; None for no
        scans.
      progress: shows the number of processed windows of a scan.

    Raises:
      InputError: if there is no intact model, or a scan cannot be used.
    """
    domains = []
    folders = models_by_domain(model_dir, skip_damaged=False)
    for folder in dict.fromkeys(folders.values()):
        spec, network, path = load_network(folder)
        checkpoint = pathlib.Path(path).relative_to(model_dir).as_posix()
        trunk = checksums.of_trunk(network)
        for index, name in enumerate(spec.plan.names):
            domains.append(
                DomainRecord(
                    name=name,
                    checkpoint=checkpoint,
                    trunk_sha256=trunk,
                    variables_sha256=checksums.of_domain_variables(network, index),
                    settings_sha256=settings_checksum(spec, index),
                    logits_sha256=_logits(spec, network, index),
                    scans=_label_maps(spec, network, index, scans_dir, progress),
                )
            )
    return ModelRecord(str(model_dir), tuple(domains))


def settings_checksum(spec: ModelSpec, index: int) -> str:
    """Returns the SHA-256 of the settings that predictions depend on.

    These are preprocessing, patch size, names and values of classes, postprocessing and
    network settings. Network settings with their default value are left out, so that a
    setting added in a later version does not change the checksum.

    Args:
      spec: specification of the model.
      index: index of the domain.
    """
    domain = spec.plan.domains[index]
    network = {
        field.name: getattr(spec, field.name)
        for field in dataclasses.fields(spec)
        if field.name not in DOMAIN_FIELDS
        and getattr(spec, field.name) != field.default
    }
    parts: dict[str, object] = {
        "plan_hash": plan_hash(domain),
        "patch_size": domain.patch_size,
        "classes": [(label.name, label.keep_components) for label in domain.labels],
        "network": network,
    }
    # Left out if it has no effect, as in certificates of earlier versions.
    if domain.keep_foreground_components:
        parts["keep_foreground_components"] = domain.keep_foreground_components
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _logits(spec: ModelSpec, network: DomainModel, index: int) -> dict[str, str]:
    probes = make_probes(spec.pools, network.num_modalities[index])
    return {
        name: checksum_of_arrays(
            {"patch": patch, "logits": checksums.logits_on_cpu(network, patch, index)}
        )
        for name, patch in probes.items()
    }


def _label_maps(
    spec: ModelSpec,
    network: DomainModel,
    index: int,
    scans_dir: str | os.PathLike | None,
    progress: Progress,
) -> tuple[ScanRecord, ...]:
    """Computes the checksums of a domain's scans and of their predictions."""
    domain = spec.plan.domains[index]
    scans = () if scans_dir is None else _scans_of(domain, scans_dir)
    predictor = Predictor(KerasBackend(network, spec), progress=progress)
    records = []
    for scan in scans:
        image = case.read_image(scan.paths, domain)
        content = {"voxels": image.data, "affine": np.asarray(image.grid.affine)}
        # As for the logits, since on a GPU the last bits may differ from call to call.
        with tf.device("CPU:0"):
            classes = predictor.predict(image, index).classes
        labels = case_labels.raw_labels(classes, domain)
        records.append(
            ScanRecord(
                scan.name,
                checksum_of_arrays(content),
                checksum_of_arrays({"labels": labels}),
            )
        )
    return tuple(records)


def require_usable(
    model_dirs: Iterable[str | os.PathLike], scans_dir: str | os.PathLike | None
) -> None:
    """Checks that there are models and scans before anything is computed.

    Args:
      model_dirs: folders of the models.
      scans_dir: see `measure_model`.

    Raises:
      InputError: if a folder has no intact model, the folder of a domain has no scans,
        or no domain has a folder.
    """
    domains: list[Domain] = []
    for model_dir in model_dirs:
        folders = models_by_domain(model_dir, skip_damaged=False)
        for folder in dict.fromkeys(folders.values()):
            domains += load_spec(folder).plan.domains
    if scans_dir is None:
        return
    found = [_scans_of(domain, scans_dir) for domain in domains]
    if not any(found):
        names = dict.fromkeys(domain.name for domain in domains)
        raise InputError(
            "`scans_dir`",
            expected=f"a folder with folders of scans named {', '.join(names)}",
            received=f"{scans_dir}, which has no such folder",
        )


def _scans_of(domain: Domain, scans_dir: str | os.PathLike) -> tuple[Scan, ...]:
    """Returns the scans of a domain; none if it has no folder."""
    folder = pathlib.Path(scans_dir) / domain.name
    if not folder.is_dir():
        return ()
    try:
        found = find_scans([str(folder)], domain)
    except InputError as error:
        # `where` and `hint` of the error refer to settings of `predict`.
        raise InputError(
            f"`scans_dir`: {folder}", expected=error.expected, received=error.received
        ) from None
    for reason in found.incomplete.values():
        raise reason
    return found.scans
