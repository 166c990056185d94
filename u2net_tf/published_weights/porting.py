"""Makes a model of the weights of the published network, trained with PyTorch.

Strictly by name: every parameter of the file is used once, every variable of the
network is set, and shapes are checked.
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
from u2net_tf.models.loading import require_no_model, save_model
from u2net_tf.models.spec import ModelSpec, check_patches
from u2net_tf.networks.u2net import U2Net
from u2net_tf.published_weights.structure import contradictions, read_structure
from u2net_tf.published_weights.torch_files import read_published
from u2net_tf.published_weights.variables import load_published_weights


class Ported(NamedTuple):
    """A model that was made of published weights.

    Attributes:
      weights: The file that they were read from.
      notes: What was taken from the file and what was left, a line each.
      spec: Of the model.
      network: The model's network, a `U2Net`.
      checkpoint: The checkpoint that was written.
    """

    weights: pathlib.Path
    notes: tuple[str, ...]
    spec: ModelSpec
    network: Any
    checkpoint: str


def port(
    weights: str | os.PathLike, spec: ModelSpec, model_dir: str | os.PathLike
) -> Ported:
    """Writes a model of the weights in a file.

    Args:
      weights: The file, as of `torch_files.read_published`.
      spec: What the network is.
      model_dir: Folder to make.

    Raises:
      InputError: If the file cannot be read, contradicts the spec, or the folder
        holds a model or another run writes to it; nothing is written.
      StoppedError: If PyTorch is needed and not installed.
    """
    with locks.locked(model_dir):
        return _port(pathlib.Path(weights), spec, model_dir)


def _port(path: pathlib.Path, spec: ModelSpec, model_dir: str | os.PathLike) -> Ported:
    check_patches(spec)
    require_no_model(model_dir)
    params, notes = read_published(path)
    try:
        found = contradictions(read_structure(params), spec)
    except InputError as error:
        raise error.within(path) from None
    if found:
        raise InputError(
            path,
            expected="the network of the plan and settings",
            received="another network:\n  " + "\n  ".join(found),
        )
    network = build_network(spec)
    try:
        load_published_weights(typing.cast(U2Net, network), params)
    except InputError as error:
        raise error.within(path) from None
    return Ported(path, notes, spec, network, save_model(model_dir, spec, network))


def summary(ported: Ported) -> str:
    """What was read and what it became, and what the user has to check."""
    spec, network = ported.spec, ported.network
    checksum = hashlib.sha256(ported.weights.read_bytes()).hexdigest()
    lines = [f"{ported.weights}: SHA-256 {checksum}"]
    lines += [f"  {note}" for note in ported.notes]
    lines.append(
        f"{ported.checkpoint}: {network.count_params():,} parameters in "
        f"{len(network.variables)} arrays, every name used once; adapter "
        f"{spec.adapter}, base_channels {spec.base_channels}, pools "
        f"{','.join(map(str, spec.pools))}"
    )
    for index, domain in enumerate(spec.plan.domains):
        names = ", ".join(label.name for label in domain.labels)
        modalities = ", ".join(domain.modalities)
        lines.append(f"  domain {index}: {domain.name}, {modalities} -> {names}")
    lines += [
        "The file shows neither the order of modalities and labels nor how often each "
        "axis is halved:",
        "check them, and that scans are prepared as for the training.",
    ]
    return "\n".join(lines)
