"""Expected augmented patches, computed independently in float64."""

import math

import numpy as np
import scipy.ndimage
import tensorflow as tf

from u2net_tf.input.augmentation import elastic, spatial


def make_spatial(
    grid,
    augmentation,
    *,
    mirrored=(False, False, False),
    degrees=0.0,
    scale=1.0,
    std_mm=0.0,
    sigma_mm=11.0,
    seed=0,
):
    """What `spatial.draw_spatial` returns, with chosen values."""
    sizes = [
        len(elastic.lattice(along, augmentation.elastic_sigma_mm))
        for along in grid.positions_mm()
    ]
    return spatial.SpatialParameters(
        mirrored=tf.constant(mirrored),
        angle=tf.constant(math.radians(degrees), tf.float32),
        scale=tf.constant(scale, tf.float32),
        displacement_std_mm=tf.constant(std_mm, tf.float32),
        elastic_sigma_mm=tf.constant(sigma_mm, tf.float32),
        noise=tf.random.stateless_normal([3, *sizes], [5, seed]),
        moves=tf.constant(True),
    )


def expected_coordinates(grid, augmentation, drawn):
    """(3, *size) float64 offsets from the patch's centre, in voxels of the volume."""
    mirrored, angle, scale, std, sigma, noise, _ = (
        value.numpy().astype(np.float64) for value in drawn
    )
    axes = []
    for axis in range(3):
        old, new = grid.patch_size[axis], grid.size[axis]
        voxels = (np.arange(new) + 0.5) * old / new - 0.5
        voxels = np.minimum(np.maximum(voxels, 0), old - 1)
        axes.append((voxels - (old - 1) / 2) * grid.spacing_mm[axis])
    field = noise
    for axis, along in enumerate(axes):
        points = elastic.lattice(along, augmentation.elastic_sigma_mm)
        gauss = np.exp(-((along[:, None] - points) ** 2) / (2 * sigma**2))
        gauss /= np.linalg.norm(gauss, axis=1, keepdims=True)
        field = np.moveaxis(np.tensordot(gauss, field, (1, axis + 1)), 0, axis + 1)
    field = np.clip(field, -4, 4) * std
    mesh = np.stack(np.meshgrid(*axes, indexing="ij"))
    mesh = mesh * (1 - 2 * mirrored)[:, None, None, None] + field
    rotation = np.array(
        [
            [1, 0, 0],
            [0, math.cos(angle), -math.sin(angle)],
            [0, math.sin(angle), math.cos(angle)],
        ]
    )
    moved = scale * np.einsum("ab,bzyx->azyx", rotation, mesh)
    return moved / np.array(grid.spacing_mm)[:, None, None, None]


def expected_image(image, coordinates, method):
    """`image` (z, y, x, C) at (3, …) voxels, padded with each modality's minimum."""
    image = np.asarray(image, np.float64)
    planes = [image[..., channel] for channel in range(image.shape[-1])]
    if method == "linear":
        found = [
            scipy.ndimage.map_coordinates(
                plane, coordinates, order=1, mode="grid-constant", cval=plane.min()
            )
            for plane in planes
        ]
    else:
        found = [_keys(plane, coordinates) for plane in planes]
    return np.stack(found, axis=-1)


def _keys(plane, coordinates):
    """Keys' cubic convolution, a = -0.5, as a sum over the 64 neighbours."""
    first = np.floor(coordinates).astype(int) - 1
    total = np.zeros(coordinates.shape[1:])
    for tap in np.ndindex(4, 4, 4):
        index = first + np.array(tap)[:, None, None, None]
        distance = np.abs(coordinates - index)
        near = 1.5 * distance**3 - 2.5 * distance**2 + 1
        far = -0.5 * distance**3 + 2.5 * distance**2 - 4 * distance + 2
        weight = np.where(distance <= 1, near, np.where(distance < 2, far, 0))
        inside = np.ones(coordinates.shape[1:], bool)
        for axis in range(3):
            inside &= (index[axis] >= 0) & (index[axis] < plane.shape[axis])
        safe = [np.clip(i, 0, n - 1) for i, n in zip(index, plane.shape, strict=True)]
        values = np.where(inside, plane[tuple(safe)], plane.min())
        total += weight.prod(axis=0) * values
    return total


def expected_labels(labels, coordinates):
    """Label of the nearest voxel, padded with background; halves are rounded up."""
    index = np.floor(coordinates + 0.5).astype(int)
    inside = np.ones(coordinates.shape[1:], bool)
    for axis in range(3):
        inside &= (index[axis] >= 0) & (index[axis] < labels.shape[axis])
    safe = [np.clip(i, 0, n - 1) for i, n in zip(index, labels.shape, strict=True)]
    return np.where(inside, labels[tuple(safe)], 0)
