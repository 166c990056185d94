"""Checks that an adapter file fits the trunk of a model, without TensorFlow."""

from __future__ import annotations

from u2net_tf.errors import InputError
from u2net_tf.models.adapter_files import AdapterFile
from u2net_tf.models.spec import ModelSpec, check_patches, network_settings


def require_fit(file: AdapterFile, spec: ModelSpec, trunk: str, *, model: str) -> None:
    """Checks that an adapter was made for the trunk of a model.

    Args:
      file: the adapter.
      spec: specification of the model.
      trunk: `checksums.of_trunk` of its network.
      model: name of the model for error messages.

    Raises:
      InputError: if it was not; lists the checksums of both trunks and the network
        settings that differ.
    """
    in_file, in_model = map(network_settings, (file.spec, spec))
    differing = [
        f"{name} is {in_file[name]} in the file and {in_model[name]} in the model"
        for name in in_model
        if in_file[name] != in_model[name]
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
