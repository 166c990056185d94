"""Interpretation and repair of the fields of a NIfTI header.

nibabel repairs headers silently: a voxel size of 0 becomes 1 mm, a negative one
positive, and an orientation with an unknown code is dropped, which mirrors the scan.
Here an invalid field is replaced from a redundant one, with a note for the user, or is
an error if there is none.
"""

from __future__ import annotations

import itertools
import os

import nibabel as nib
import numpy as np
from nibabel import affines

from u2net_tf.errors import InputError

# Name and mm per unit of length, by the lowest bits of xyzt_units.
_UNIT_BITS = 7
_UNITS = {0: ("", 1.0), 1: ("m", 1e3), 2: ("mm", 1.0), 3: ("µm", 1e-3)}
# 0 means that there is none; the others state its coordinate space.
_FORM_CODES = range(6)
_ALIGNED = 2
# Excess over 1 in the length of a quaternion: the most that counts as rounding, of
# float32 or to few decimals, and the limit above which nibabel rejects it.
_MAX_QUATERNION_EXCESS = 1e-3
_SMALL_QUATERNION_EXCESS = 1e-7
# Cosine between an axis of two orientations below which they contradict each other.
_MIN_COSINE = 0.5
# Largest distance between a corner in sform and qform that counts as rounding, in
# voxels along the shortest edge. In 416 real files with both forms, all are identical.
_MAX_FORM_DISTANCE_VOXELS = 1
_CORNERS = tuple(itertools.product((0, 1), repeat=3))
# Cosine between axes above which shear is noted (about 3 degrees).
_MAX_SHEAR = 0.05
# Range of valid voxel sizes of an affine, in any unit.
_VOXEL_SIZES = 1e-9, 1e9
# Ratio of a voxel's volume to that of a box with its edges, below which it is flat.
_MIN_FLATNESS = 1e-4

Path = str | os.PathLike


def length_unit(header: nib.nifti1.Nifti1Header) -> str:
    """Returns the unit of the voxel sizes: "mm", "µm" or "m"; "" if not stated."""
    return _UNITS.get(int(header["xyzt_units"]) & _UNIT_BITS, _UNITS[0])[0]


def mm_per_unit(header: nib.nifti1.Nifti1Header) -> float:
    """Returns the mm per unit of the voxel sizes; 1 if the header states no unit."""
    return _UNITS.get(int(header["xyzt_units"]) & _UNIT_BITS, _UNITS[0])[1]


def repair(
    header: nib.nifti1.Nifti1Header, path: Path
) -> tuple[nib.nifti1.Nifti1Header, list[str]]:
    """Replaces invalid fields by the information in other fields.

    Args:
      header: the header as stored in the file.
      path: the file, for errors.

    Returns:
      A header with valid affine and voxel sizes, and notes on every replacement and
      contradiction.

    Raises:
      InputError: if no other field contains the information.
    """
    header = header.copy()
    notes: list[str] = []
    unit = int(header["xyzt_units"]) & _UNIT_BITS
    if unit not in _UNITS:
        notes.append(f"xyzt_units {unit} is not a unit of length; using mm")
    # Invalid numbers may overflow, and are detected by their results.
    with np.errstate(all="ignore"):
        _repair_form_codes(header, path, notes)
        _repair_pixdim(header, path, notes)
        _repair_quaternion(header, path, notes)
        affine = header.get_best_affine()
        if not is_invertible(affine):
            raise InputError(
                path, expected="an invertible affine", received=affine.tolist()
            )
        notes += shear_notes(affine)
        notes += _form_notes(header)
    return header, notes


def _repair_form_codes(
    header: nib.nifti1.Nifti1Header, path: Path, notes: list[str]
) -> None:
    sform_is_valid = is_invertible(header.get_sform())
    for name, is_valid in (("sform_code", sform_is_valid), ("qform_code", True)):
        code = int(header[name])
        if code in _FORM_CODES:
            continue
        if name == "qform_code" and int(header["sform_code"]):
            header[name] = 0
            notes.append(f"{name} is {code}, which is invalid; using the sform")
        elif is_valid:
            header[name] = _ALIGNED
            notes.append(f"{name} is {code}, which is invalid; using {_ALIGNED}")
        else:
            raise InputError(
                path,
                expected=f"{name} from {_FORM_CODES[0]} to {_FORM_CODES[-1]}, or an "
                "affine that can be inverted",
                received=f"{code} and {header.get_sform().tolist()}",
            )
    if not int(header["sform_code"]) and not int(header["qform_code"]):
        notes.append(
            "neither sform nor qform: the header does not say where left and right "
            "are; assuming that the first axis points to the left"
        )


def _repair_pixdim(
    header: nib.nifti1.Nifti1Header, path: Path, notes: list[str]
) -> None:
    sizes = header["pixdim"][1:4]
    invalid = ~(sizes > 0)
    if not invalid.any() and np.isfinite(sizes).all():
        return
    received = [float(size) for size in sizes]
    affine_sizes = affines.voxel_sizes(header.get_sform())
    if (
        not int(header["sform_code"])
        or not np.isfinite(sizes).all()
        or not (np.isfinite(affine_sizes) & (affine_sizes > 0)).all()
    ):
        raise InputError(
            path, expected="voxel sizes above 0 mm in pixdim", received=received
        )
    header["pixdim"][1:4] = np.where(invalid, affine_sizes, sizes)
    repaired = [float(f"{size:.6g}") for size in header["pixdim"][1:4]]
    notes.append(f"pixdim is {received}; using {repaired} from the affine")


def _repair_quaternion(
    header: nib.nifti1.Nifti1Header, path: Path, notes: list[str]
) -> None:
    """Makes the quaternion valid, or drops it if there is an sform."""
    if not int(header["qform_code"]):
        if float(header["pixdim"][0]) != -1:
            header["pixdim"][0] = 1
        return
    parts = [float(header[f"quatern_{name}"]) for name in "bcd"]
    qfac = float(header["pixdim"][0])
    length = float(np.linalg.norm(parts))
    # Not `length > …`: NaN is not a rotation either.
    if not length <= 1 + _MAX_QUATERNION_EXCESS or np.isnan(qfac):
        values = [float(f"{part:.6g}") for part in parts]
        received = f"quaternion {values}, pixdim[0] {qfac:g}"
        if not int(header["sform_code"]):
            raise InputError(
                path, expected="a rotation as qform, or an sform", received=received
            )
        header["qform_code"] = 0
        header["pixdim"][0] = 1
        notes.append(f"{received} is not a rotation; using the sform")
        return
    if length > 1 + _SMALL_QUATERNION_EXCESS:
        # As in the NIfTI reference code: a rotation by 180 degrees, up to rounding.
        for name, part in zip("bcd", parts, strict=True):
            header[f"quatern_{name}"] = part / length
    if qfac not in (-1, 1):
        header["pixdim"][0] = -1 if qfac < 0 else 1
        if qfac:
            notes.append(
                f"pixdim[0] is {qfac:g}, not 1 or -1; using {header['pixdim'][0]:g}"
            )


def is_invertible(affine: np.ndarray) -> bool:
    """Returns whether a (4, 4) affine is invertible, with valid voxel sizes."""
    sizes = affines.voxel_sizes(affine)
    smallest, largest = _VOXEL_SIZES
    if not np.isfinite(affine).all() or not (
        (sizes >= smallest).all() and (sizes <= largest).all()
    ):
        return False
    flatness = abs(np.linalg.det(affine[:3, :3] / sizes))
    if not flatness > _MIN_FLATNESS:
        return False
    return bool(np.isfinite(nib.orientations.io_orientation(affine)).all())


def shear_notes(affine: np.ndarray) -> list[str]:
    """Returns a note if the axes of an affine are far from perpendicular."""
    axes = affine[:3, :3] / affines.voxel_sizes(affine)
    cosine = np.abs(axes.T @ axes - np.eye(3)).max()
    if cosine <= _MAX_SHEAR:
        return []
    angle = np.degrees(np.arccos(min(cosine, 1.0)))
    return [
        f"axes at {angle:.3g} degrees, not 90; the scan is treated as if they were "
        "perpendicular"
    ]


def _form_notes(header: nib.nifti1.Nifti1Header) -> list[str]:
    """Returns a note if sform and qform place the voxels differently."""
    if not (int(header["sform_code"]) and int(header["qform_code"])):
        return []
    sform, qform = header.get_sform(), header.get_qform()
    if not is_invertible(qform):
        return ["the qform cannot be inverted; using the sform"]
    axes = [form[:3, :3] / affines.voxel_sizes(form) for form in (sform, qform)]
    cosines = (axes[0] * axes[1]).sum(axis=0)
    if cosines.min() < _MIN_COSINE:
        codes = ["".join(nib.aff2axcodes(form)) for form in (sform, qform)]
        hands = [np.sign(np.linalg.det(form[:3, :3])) for form in (sform, qform)]
        mirrored = ", a mirror image" if hands[0] != hands[1] else ""
        return [
            f"orientation is {codes[0]} in sform and {codes[1]} in qform{mirrored}; "
            "using the sform"
        ]
    last = np.array(header.get_data_shape()[:3]) - 1
    corners = nib.affines.apply_affine(sform - qform, last * np.array(_CORNERS))
    distance = np.linalg.norm(corners, axis=1).max()
    voxel = affines.voxel_sizes(sform).min()
    if distance <= _MAX_FORM_DISTANCE_VOXELS * voxel:
        return []
    distance *= mm_per_unit(header)
    return [
        f"sform and qform place a corner of the volume {distance:.3g} mm apart; using "
        "the sform"
    ]
