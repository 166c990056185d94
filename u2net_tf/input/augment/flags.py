"""Flags of the augmentation, for the commands that cut patches."""

from __future__ import annotations

import dataclasses

from absl import flags

from u2net_tf import command
from u2net_tf.input.augment.settings import Augmentation

# A flag for each attribute of `Augmentation`, of the same name and default.
_HELP = {
    "elastic_probability": "Of deforming a patch; 0.3 in the paper.",
    "elastic_alpha": "Lowest and highest strength of a deformation.",
    "elastic_sigma_mm": "Lowest and highest smoothness of a deformation, mm.",
    "rotation_probability": "Of turning a patch about z; 0.3 in the paper.",
    "rotation_degrees": "Lowest and highest angle.",
    "scaling_probability": "Of scaling a patch; 0.5 in the paper.",
    "scale": "Lowest and highest factor of what a patch sees: above 1, organs shrink.",
    "noise_probability": "Of Gaussian noise in a patch.",
    "noise_variance": "Lowest and highest variance of the noise.",
    "blur_probability": "Of blurring a modality.",
    "blur_sigma_voxels": "Lowest and highest standard deviation of the blur.",
    "brightness_probability": "Of multiplying the intensities of a modality.",
    "brightness": "Lowest and highest factor.",
    "contrast_probability": "Of stretching the intensities of a modality.",
    "contrast": "Lowest and highest factor, about the mean.",
    "low_resolution_probability": "Of going to a coarser grid and back, per modality.",
    "low_resolution_zoom": "Lowest and highest size of the coarser grid, a share.",
    "gamma_probability": "Of a power of a modality's intensities.",
    "gamma_inverted_probability": "Of the same with the intensities turned round.",
    "gamma": "Lowest and highest exponent.",
}


def _define(field: dataclasses.Field) -> flags.FlagHolder:
    text = _HELP[field.name]
    if isinstance(field.default, tuple):
        return flags.DEFINE_list(field.name, list(map(str, field.default)), text)
    return flags.DEFINE_float(field.name, field.default, text)


HOLDERS = {field.name: _define(field) for field in dataclasses.fields(Augmentation)}


def augmentation() -> Augmentation:
    """What the flags ask for.

    Raises:
      InputError: if a value is none or out of range.
    """
    values = {
        name: _numbers(holder) if isinstance(holder.value, list) else holder.value
        for name, holder in HOLDERS.items()
    }
    try:
        return Augmentation(**values)
    except ValueError as error:
        raise command.InputError(f"flags: {error}") from None


def _numbers(holder: flags.FlagHolder) -> tuple[float, ...]:
    try:
        return tuple(float(text) for text in holder.value)
    except ValueError:
        raise command.InputError(
            f"--{holder.name}: expected two numbers lowest,highest, found "
            f"{','.join(holder.value)}"
        ) from None
