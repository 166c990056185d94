"""Converts weights of the published PyTorch network to a model.

Parameters are matched strictly by name: each parameter in the file is used exactly
once, every variable of the network is set, and shapes are checked.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import typing
from typing import Any, NamedTuple

from u2net_tf import locks
from u2net_tf.errors import InputError
from u2net_tf.models.build import build_network
from u2net_tf.models.loading import (
    require_no_inner_models,
    require_no_model,
    save_model,
)
from u2net_tf.models.run_state import SeenCases
from u2net_tf.models.spec import ModelSpec, check_patches
from u2net_tf.networks.u2net import U2Net
from u2net_tf.published_weights.structure import mismatches, read_structure
from u2net_tf.published_weights.torch_files import read_published
from u2net_tf.published_weights.variables import load_published_weights


class Ported(NamedTuple):
    """A model that was converted from published weights.

    Attributes:
      weights: the file of the weights.
      notes: lines about which parts of the file were used and ignored.
      spec: specification of the model.
      network: the model's network, a `U2Net`.
      checkpoint: path of the checkpoint that was written.
    """

    weights: pathlib.Path
    notes: tuple[str, ...]
    spec: ModelSpec
    network: Any
    checkpoint: str


def port(
    weights: str | os.PathLike, spec: ModelSpec, model_dir: str | os.PathLike
) -> Ported:
    """Writes a model with the weights in a file.

    Args:
      weights: the file; see `torch_files.read_published`.
      spec: specification of the network.
      model_dir: folder to create.

    Raises:
      InputError: if the file cannot be read or does not match the specification, the
        folder or a subfolder has a model, or it is locked by another run; nothing is
        written.
      StoppedError: if PyTorch is needed but not installed.
    """
    with locks.locked(model_dir):
        return _port(pathlib.Path(weights), spec, model_dir)


def _port(path: pathlib.Path, spec: ModelSpec, model_dir: str | os.PathLike) -> Ported:
    check_patches(spec)
    require_no_model(model_dir)
    require_no_inner_models(model_dir)
    params, notes = read_published(path)
    try:
        found = mismatches(read_structure(params), spec)
    except InputError as error:
        raise error.within(path) from None
    if found:
        raise InputError(
            path,
            expected="the network of the plan and settings",
            received="a different network:\n  " + "\n  ".join(found),
        )
    network = build_network(spec)
    try:
        load_published_weights(typing.cast(U2Net, network), params)
    except InputError as error:
        raise error.within(path) from None
    # Not necessarily those of the plan.
    unknown = tuple(SeenCases(name, (), False) for name in spec.plan.names)
    saved = save_model(model_dir, spec, network, initial_cases=unknown)
    return Ported(path, notes, spec, network, saved)


def summary(ported: Ported) -> str:
    """Returns a text about the conversion and about what the user should check."""
    spec, network = ported.spec, ported.network
    checksum = hashlib.sha256(ported.weights.read_bytes()).hexdigest()
    lines = [f"{ported.weights}: SHA-256 {checksum}"]
    lines += [f"  {note}" for note in ported.notes]
    lines.append(
        f"{ported.checkpoint}: {network.count_params():,} parameters in "
        f"{len(network.variables)} arrays, all matched by name; adapter "
        f"{spec.adapter}, base_channels {spec.base_channels}, pools "
        f"{','.join(map(str, spec.pools))}"
    )
    for index, domain in enumerate(spec.plan.domains):
        names = ", ".join(label.name for label in domain.labels)
        modalities = ", ".join(domain.modalities)
        lines.append(f"  domain {index}: {domain.name}, {modalities} -> {names}")
    lines += [
        "The file does not contain the order of modalities and labels, or the number "
        "of times that each axis is halved.",
        "Check these settings, and that scans are preprocessed as for the training.",
    ]
    return "\n".join(lines)
