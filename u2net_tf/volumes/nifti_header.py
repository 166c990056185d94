"""What the fields of a NIfTI header say, and what is taken where one says nothing.

nibabel repairs headers silently: a voxel size of 0 becomes 1 mm, a negative one
positive, and an orientation with an unknown code is dropped, which mirrors the scan.
Here a field that makes no sense is replaced by another field that says the same, with
a note for the reader of the file, and is an error where there is none.
"""

from __future__ import annotations

import itertools
import os

import nibabel as nib
import numpy as np
from nibabel import affines

from u2net_tf.errors import InputError

# What a millimetre is of the unit that the lowest bits of xyzt_units name.
_UNIT_BITS = 7
_UNITS = {0: ("", 1.0), 1: ("m", 1e3), 2: ("mm", 1.0), 3: ("µm", 1e-3)}
# 0 says that there is none; the others say of what space it is.
_FORM_CODES = range(6)
_ALIGNED = 2
# How much longer than 1 a quaternion is by rounding, of float32 or to few decimals, and
# from where on nibabel refuses it.
_MAX_QUATERNION_EXCESS = 1e-3
_SMALL_QUATERNION_EXCESS = 1e-7
# Cosine between the axis of two orientations, below which they contradict each other.
_MIN_COSINE = 0.5
# How far apart two forms place a corner by rounding, in voxels, on their smallest edge.
# Of 416 real files with both forms all agree to the last bit.
_MAX_FORM_DISTANCE_VOXELS = 1
_CORNERS = tuple(itertools.product((0, 1), repeat=3))
# Axes that are this far from perpendicular, as a cosine (about 3 degrees), are noted.
_MAX_SHEAR = 0.05
# Voxel sizes of an affine beyond these, in any unit, are none.
_VOXEL_SIZES = 1e-9, 1e9
# Volume of a voxel over that of a box with its edges, below which it is flat.
_MIN_FLATNESS = 1e-4

Path = str | os.PathLike


def length_unit(header: nib.nifti1.Nifti1Header) -> str:
    """Unit of the voxel sizes: "mm", "µm" or "m"; "" if the header does not say."""
    return _UNITS.get(int(header["xyzt_units"]) & _UNIT_BITS, _UNITS[0])[0]


def mm_per_unit(header: nib.nifti1.Nifti1Header) -> float:
    """Millimetres per unit of the voxel sizes; 1 if the header names no unit."""
    return _UNITS.get(int(header["xyzt_units"]) & _UNIT_BITS, _UNITS[0])[1]


def settle(
    header: nib.nifti1.Nifti1Header, path: Path
) -> tuple[nib.nifti1.Nifti1Header, list[str]]:
    """Replaces what makes no sense by what other fields say.

    Args:
      header: as it is in the file.
      path: the file, for errors.

    Returns:
      A header whose affine and voxel sizes can be taken, and notes on every
      replacement and contradiction.

    Raises:
      InputError: if there is no other field that says the same.
    """
    header = header.copy()
    notes: list[str] = []
    unit = int(header["xyzt_units"]) & _UNIT_BITS
    if unit not in _UNITS:
        notes.append(f"xyzt_units {unit} is no unit of length; taking mm")
    # Numbers without sense overflow, and are found by what comes of them.
    with np.errstate(all="ignore"):
        _settle_form_codes(header, path, notes)
        _settle_pixdim(header, path, notes)
        _settle_quaternion(header, path, notes)
        affine = header.get_best_affine()
        if not is_invertible(affine):
            raise InputError(
                path, expected="an invertible affine", received=affine.tolist()
            )
        notes += shear_notes(affine)
        notes += _form_notes(header)
    return header, notes


def _settle_form_codes(
    header: nib.nifti1.Nifti1Header, path: Path, notes: list[str]
) -> None:
    sform_is_good = is_invertible(header.get_sform())
    for name, is_good in (("sform_code", sform_is_good), ("qform_code", True)):
        code = int(header[name])
        if code in _FORM_CODES:
            continue
        if name == "qform_code" and int(header["sform_code"]):
            header[name] = 0
            notes.append(f"{name} is {code}, which is none; taking the sform")
        elif is_good:
            header[name] = _ALIGNED
            notes.append(f"{name} is {code}, which is none; taking {_ALIGNED}")
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
            "are; taking the first axis as running to the left"
        )


def _settle_pixdim(
    header: nib.nifti1.Nifti1Header, path: Path, notes: list[str]
) -> None:
    sizes = header["pixdim"][1:4]
    bad = ~(sizes > 0)
    if not bad.any() and np.isfinite(sizes).all():
        return
    received = [float(size) for size in sizes]
    of_affine = affines.voxel_sizes(header.get_sform())
    if (
        not int(header["sform_code"])
        or not np.isfinite(sizes).all()
        or not (np.isfinite(of_affine) & (of_affine > 0)).all()
    ):
        raise InputError(
            path, expected="voxel sizes above 0 mm in pixdim", received=received
        )
    header["pixdim"][1:4] = np.where(bad, of_affine, sizes)
    taken = [float(f"{size:.6g}") for size in header["pixdim"][1:4]]
    notes.append(f"pixdim is {received}; taking {taken} from the affine")


def _settle_quaternion(
    header: nib.nifti1.Nifti1Header, path: Path, notes: list[str]
) -> None:
    """Leaves a quaternion that can be taken, or none where there is an sform."""
    if not int(header["qform_code"]):
        if float(header["pixdim"][0]) != -1:
            header["pixdim"][0] = 1
        return
    parts = [float(header[f"quatern_{name}"]) for name in "bcd"]
    side = float(header["pixdim"][0])
    length = float(np.linalg.norm(parts))
    # Not `length > …`: NaN is no rotation either.
    if not length <= 1 + _MAX_QUATERNION_EXCESS or np.isnan(side):
        values = [float(f"{part:.6g}") for part in parts]
        received = f"quaternion {values}, pixdim[0] {side:g}"
        if not int(header["sform_code"]):
            raise InputError(
                path, expected="a rotation as qform, or an sform", received=received
            )
        header["qform_code"] = 0
        header["pixdim"][0] = 1
        notes.append(f"{received} is no rotation; taking the sform")
        return
    if length > 1 + _SMALL_QUATERNION_EXCESS:
        # As the NIfTI standard's own code does: half a turn, but for rounding.
        for name, part in zip("bcd", parts, strict=True):
            header[f"quatern_{name}"] = part / length
    if side not in (-1, 1):
        header["pixdim"][0] = -1 if side < 0 else 1
        if side:
            notes.append(
                f"pixdim[0] is {side:g}, not 1 or -1; taking {header['pixdim'][0]:g}"
            )


def is_invertible(affine: np.ndarray) -> bool:
    """Whether a (4, 4) affine gives each voxel a size and a place of its own."""
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
    """A note if the axes of an affine are far from perpendicular."""
    axes = affine[:3, :3] / affines.voxel_sizes(affine)
    cosine = np.abs(axes.T @ axes - np.eye(3)).max()
    if cosine <= _MAX_SHEAR:
        return []
    angle = np.degrees(np.arccos(min(cosine, 1.0)))
    return [
        f"axes at {angle:.3g} degrees, not 90; the scan is taken as if they were "
        "perpendicular"
    ]


def _form_notes(header: nib.nifti1.Nifti1Header) -> list[str]:
    """A note if sform and qform place the voxels differently."""
    if not (int(header["sform_code"]) and int(header["qform_code"])):
        return []
    sform, qform = header.get_sform(), header.get_qform()
    if not is_invertible(qform):
        return ["the qform cannot be inverted; taking the sform"]
    axes = [form[:3, :3] / affines.voxel_sizes(form) for form in (sform, qform)]
    cosines = (axes[0] * axes[1]).sum(axis=0)
    if cosines.min() < _MIN_COSINE:
        codes = ["".join(nib.aff2axcodes(form)) for form in (sform, qform)]
        hands = [np.sign(np.linalg.det(form[:3, :3])) for form in (sform, qform)]
        mirrored = ", a mirror image" if hands[0] != hands[1] else ""
        return [
            f"orientation is {codes[0]} in sform and {codes[1]} in qform{mirrored}; "
            "taking the sform"
        ]
    last = np.array(header.get_data_shape()[:3]) - 1
    corners = nib.affines.apply_affine(sform - qform, last * np.array(_CORNERS))
    distance = np.linalg.norm(corners, axis=1).max()
    voxel = affines.voxel_sizes(sform).min()
    if distance <= _MAX_FORM_DISTANCE_VOXELS * voxel:
        return []
    distance *= mm_per_unit(header)
    return [
        f"sform and qform place a corner of the volume {distance:.3g} mm apart; taking "
        "the sform"
    ]
