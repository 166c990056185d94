"""UNet# from its formula, in float64 NumPy and SciPy, independent of the network.

Parameters are arrays under the paths of checkpoints, channels last.
"""

import numpy as np
from scipy import ndimage


def convolve(image, kernel, bias):
    """Cross-correlation with zero padding; (N, D, H, W, C) and (3, 3, 3, C, F)."""
    out = np.zeros((*image.shape[:-1], kernel.shape[-1]))
    for n, c, f in np.ndindex(len(image), *kernel.shape[3:]):
        out[n, ..., f] += ndimage.correlate(
            image[n, ..., c], kernel[..., c, f], mode="constant"
        )
    return out + bias


def normalize(image, gamma, beta):
    """Instance normalization and LeakyReLU."""
    mean = image.mean(axis=(1, 2, 3), keepdims=True)
    variance = image.var(axis=(1, 2, 3), keepdims=True)
    out = (image - mean) / np.sqrt(variance + 1e-5) * gamma + beta
    return np.where(out > 0, out, 0.01 * out)


def halve(image, axes):
    for axis in axes:
        even, odd = (
            np.take(image, range(start, image.shape[axis], 2), axis) for start in (0, 1)
        )
        image = np.maximum(even, odd)
    return image


def enlarge(image, sizes, align_corners):
    """Linear interpolation to `sizes` along D, H, W; outermost voxels are repeated."""
    lines = []
    for new, old in zip(sizes, image.shape[1:4], strict=True):
        if align_corners:
            lines.append(np.linspace(0, old - 1, new))
        else:
            lines.append((np.arange(new) + 0.5) * (old / new) - 0.5)
    grid = np.meshgrid(*lines, indexing="ij")
    out = np.empty((len(image), *sizes, image.shape[-1]))
    for n, c in np.ndindex(len(image), image.shape[-1]):
        out[n, ..., c] = ndimage.map_coordinates(
            image[n, ..., c], grid, order=1, mode="nearest"
        )
    return out


class Reference:
    """The network of one domain, with plain or separable units."""

    def __init__(self, params, domain, *, depth, pools, align_corners):
        self.params, self.domain = params, domain
        self.depth, self.pools, self.align_corners = depth, pools, align_corners

    def _own(self, path):
        return self.params[f"{path}_{self.domain}"]

    def _norm(self, image, path):
        return normalize(image, self._own(f"{path}/gamma"), self._own(f"{path}/beta"))

    def _unit(self, image, path):
        if f"{path}/conv/kernel" in self.params:
            kernel, bias = (self.params[f"{path}/conv/{n}"] for n in ("kernel", "bias"))
            return self._norm(convolve(image, kernel, bias), f"{path}/norm")
        each = self._own(f"{path}/depthwise/kernel")
        full = np.zeros((3, 3, 3, each.shape[-1], each.shape[-1]))
        for c in range(each.shape[-1]):
            full[..., c, c] = each[..., c]
        image = convolve(image, full, self._own(f"{path}/depthwise/bias"))
        image = self._norm(image, f"{path}/depthwise_norm")
        image = image @ self.params[f"{path}/pointwise/kernel"][0, 0, 0]
        return self._norm(image + self.params[f"{path}/pointwise/bias"], f"{path}/norm")

    def heads(self, image):
        """(level, column) -> logits at full size."""
        x, full = {}, image.shape[1:4]

        def enlarged(part, level):
            sizes = [
                size // 2 ** min(level, pools)
                for size, pools in zip(full, self.pools, strict=True)
            ]
            return enlarge(part, sizes, self.align_corners)

        first = convolve(
            image, self._own("stem/conv/kernel"), self._own("stem/conv/bias")
        )
        x[0, 0] = self._unit(self._norm(first, "stem/norm"), "node_0_0/unit_1")
        for i in range(1, self.depth + 1):
            axes = [axis + 1 for axis in range(3) if self.pools[axis] >= i]
            hidden = halve(x[i - 1, 0], axes)
            for number in (1, 2):
                hidden = self._unit(hidden, f"node_{i}_0/unit_{number}")
            x[i, 0] = hidden
        for j in range(1, self.depth + 1):
            for i in range(self.depth - j + 1):
                parts = [x[i, k] for k in range(j)]
                parts += [enlarged(x[i + k, j - k], i) for k in range(1, j + 1)]
                hidden = np.concatenate(parts, axis=-1)
                for number in (1, 2):
                    hidden = self._unit(hidden, f"node_{i}_{j}/unit_{number}")
                x[i, j] = hidden
        self.maps = x
        logits = {}
        for j in range(1, self.depth + 1):
            kernel, bias = (self._own(f"head_0_{j}/{n}") for n in ("kernel", "bias"))
            logits[0, j] = x[0, j] @ kernel[0, 0, 0] + bias
        for i in range(1, self.depth + 1):
            path = f"head_{i}_{self.depth - i}"
            kernel, bias = (self._own(f"{path}/{n}") for n in ("kernel", "bias"))
            part = convolve(x[i, self.depth - i], kernel, bias)
            logits[i, self.depth - i] = enlarged(part, 0)
        return logits

    def gates(self, image):
        """(level, column) -> logits of presence, (patches, foreground classes).

        They are the maximum, over all voxels of X^{level,column}, of a linear function
        of the channels.
        """
        self.heads(image)
        found = {}
        for (i, j), values in self.maps.items():
            path = f"gate_{i}_{j}/conv"
            if f"{path}/kernel_{self.domain}" not in self.params:
                continue
            kernel, bias = (self._own(f"{path}/{n}") for n in ("kernel", "bias"))
            scores = np.einsum("nzyxc,ck->nzyxk", values, kernel[0, 0, 0]) + bias
            found[i, j] = scores.max(axis=(1, 2, 3))
        return found
