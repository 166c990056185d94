"""Says whether an adapter file is for the trunk of a model. No TensorFlow."""

from __future__ import annotations

import dataclasses

from u2net_tf.errors import InputError
from u2net_tf.models.adapter_files import AdapterFile
from u2net_tf.models.spec import OF_DOMAINS, ModelSpec, check_patches


def require_fit(file: AdapterFile, spec: ModelSpec, trunk: str, *, model: str) -> None:
    """Checks that an adapter is for the trunk of a model.

    Args:
      file: the adapter.
      spec: specification of the model.
      trunk: `checksums.of_trunk` of its network.
      model: name of the model for error messages.

    Raises:
      InputError: names the checksums of both trunks, and the settings of the networks
        that differ.
    """
    pairs = {
        field.name: (getattr(file.spec, field.name), getattr(spec, field.name))
        for field in dataclasses.fields(spec)
        if field.name not in OF_DOMAINS
    }
    differing = [
        f"{name} is {theirs} in the file and {ours} in the model"
        for name, (theirs, ours) in pairs.items()
        if theirs != ours
    ]
    if trunk != file.metadata.trunk_sha256 or differing:
        raise InputError(
            file.path,
            expected=f"an adapter for the trunk {trunk} of {model}",
            received=f"one for the trunk {file.metadata.trunk_sha256}",
            hint="; ".join(differing),
        )
    try:
        check_patches(file.spec)
    except InputError as error:
        raise error.within(file.path) from None
