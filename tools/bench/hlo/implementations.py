"""Alternative implementations of convolutions in JAX, to compare them under XLA.

Feature maps are (N, D, H, W, C) in the layout "channels last" and (N, C, D, H, W) in
"channels first". Sums of shifted products are computed in float32; convolutions return
the dtype of their inputs. `tools.bench.hlo.ways` measures them.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping

TAPS = tuple(itertools.product(range(3), repeat=3))
LAST, FIRST = "channels last", "channels first"
# (layout, name) -> function of arrays in that layout.
Implementations = Mapping[tuple[str, str], Callable]


def forward_implementations() -> Implementations:
    """Returns convolutions of inputs with a kernel (3, 3, 3, C)."""
    found: dict[tuple[str, str], Callable] = {}
    for layout in (LAST, FIRST):
        for name, function in {
            "shifted multiply-adds": _shifted,
            "a map per depth tap": _map_per_depth_tap,
            "padded beforehand": _padded_beforehand,
            "padded, a map per depth tap": _padded_maps,
        }.items():
            found[layout, name] = functools.partial(function, layout)
    return found | {
        (LAST, "2D, per depth tap"): _two_d,
        (LAST, "grouped convolution"): _grouped,
    }


def gradient_implementations() -> Implementations:
    """Returns functions from inputs and output gradient to kernel gradient."""
    import jax
    import jax.numpy as jnp

    def transposed(convolve):
        def gradient(inputs, upstream):
            kernel = jnp.zeros((3, 3, 3, inputs.shape[-1]), inputs.dtype)
            _, pull = jax.vjp(lambda kernel: convolve(inputs, kernel), kernel)
            return pull(upstream)[0]

        return gradient

    found: dict[tuple[str, str], Callable] = {
        (LAST, "2D, per depth tap"): transposed(_two_d),
    }
    for layout in (LAST, FIRST):
        for name, step in {
            "27 sums": 27,
            "27 sums, nine at a time": 9,
            "27 sums, three at a time": 3,
        }.items():
            found[layout, name] = functools.partial(_gradient_by_sums, layout, step)
    return found | {
        (FIRST, "products of lines"): _products_of_lines,
        (LAST, "grouped convolution"): transposed(_grouped),
    }


def strided_implementations() -> Implementations:
    """Returns functions to the input gradient of a convolution with stride 2.

    They map the gradient of the outputs, of half the size, and the kernel
    (3, 3, 3, C, 2C) to the gradient of the inputs.
    """
    return {
        (FIRST, "sub-voxel convolution"): _sub_voxel_gradient,
        (FIRST, "cuDNN's input gradient"): _strided_gradient,
    }


def pointwise_implementations(*, gradient: bool) -> Implementations:
    """Returns products of the voxels with a matrix (C, C).

    Args:
        gradient: whether to return functions from inputs and output gradient to the
            gradient of the matrix instead.
    """
    import jax.numpy as jnp
    from jax import lax

    def contract(equation, inputs, other):
        product = jnp.einsum(
            equation,
            inputs,
            other.astype(inputs.dtype),
            precision=lax.Precision.HIGHEST,
            preferred_element_type=jnp.float32,
        )
        return product.astype(inputs.dtype)

    # The letters are N, D, H, W, C and the output channels F.
    last = "ndhwc,ndhwf->cf" if gradient else "ndhwc,cf->ndhwf"
    first = "ncdhw,nfdhw->cf" if gradient else "ncdhw,cf->nfdhw"
    return {
        (layout, "matrix product"): functools.partial(contract, equation)
        for layout, equation in ((LAST, last), (FIRST, first))
    }


def _sizes(layout, inputs):
    """Returns the sizes of a batch of feature maps: N, D, H, W, C."""
    sizes = inputs.shape
    return sizes if layout == LAST else (sizes[0], *sizes[2:], sizes[1])


def _pad(layout, inputs):
    import jax.numpy as jnp

    spatial = [(1, 1)] * 3
    channel = [(0, 0)]
    paddings = spatial + channel if layout == LAST else channel + spatial
    return jnp.pad(inputs, [(0, 0), *paddings])


def _window(layout, padded, first, size):
    """Returns the part of D, H, W that starts at `first`, in float32."""
    import jax.numpy as jnp

    window = tuple(slice(f, f + s) for f, s in zip(first, size, strict=True))
    window = window if layout == LAST else (slice(None), *window)
    return padded[(slice(None), *window)].astype(jnp.float32)


def _weights(layout, kernel, tap):
    return kernel[tap] if layout == LAST else kernel[tap][:, None, None, None]


def _planes(layout, inputs, padded, kernel):
    """Yields, for each depth tap, its part of the outputs before the shift by it."""
    _, depth, height, width, _ = _sizes(layout, inputs)
    for tap in range(3):
        yield _sum(
            _window(layout, padded, (0, i, j), (depth + 2, height, width))
            * _weights(layout, kernel, (tap, i, j))
            for i, j in itertools.product(range(3), repeat=2)
        )


def _sum(parts):
    return functools.reduce(lambda one, other: one + other, parts)


def _shift_and_add(layout, inputs, planes):
    size = _sizes(layout, inputs)[1:4]
    parts = (
        _window(layout, plane, (tap, 0, 0), size) for tap, plane in enumerate(planes)
    )
    return _sum(parts).astype(inputs.dtype)


def _shifted(layout, inputs, kernel):
    padded = _pad(layout, inputs)
    return _shift_and_add(layout, inputs, _planes(layout, inputs, padded, kernel))


def _map_per_depth_tap(layout, inputs, kernel, padded=None):
    from jax import lax

    padded = _pad(layout, inputs) if padded is None else padded
    planes = _planes(layout, inputs, padded, kernel)
    made = lax.optimization_barrier(
        tuple(plane.astype(inputs.dtype) for plane in planes)
    )
    return _shift_and_add(layout, inputs, made)


def _padded_beforehand(layout, inputs, kernel):
    from jax import lax

    padded = lax.optimization_barrier(_pad(layout, inputs))
    size = _sizes(layout, inputs)[1:4]
    return _sum(
        _window(layout, padded, tap, size) * _weights(layout, kernel, tap)
        for tap in TAPS
    ).astype(inputs.dtype)


def _padded_maps(layout, inputs, kernel):
    from jax import lax

    padded = lax.optimization_barrier(_pad(layout, inputs))
    return _map_per_depth_tap(layout, inputs, kernel, padded)


def _gradient_by_sums(layout, num_together, inputs, upstream):
    """Sums the products of the inputs of each tap with the gradient of the outputs."""
    import jax.numpy as jnp
    from jax import lax

    *size, channels = _sizes(layout, inputs)[1:]
    axes = (0, 1, 2, 3) if layout == LAST else (0, 2, 3, 4)
    padded, wide = _pad(layout, inputs), upstream.astype(jnp.float32)
    sums = []
    for first in range(0, len(TAPS), num_together):
        if sums:
            # One fusion computes all sums before it, another one those after it.
            padded, wide, *sums = lax.optimization_barrier((padded, wide, *sums))
        sums += [
            jnp.sum(_window(layout, padded, tap, size) * wide, axis=axes)
            for tap in TAPS[first : first + num_together]
        ]
    return jnp.stack(sums).reshape(3, 3, 3, channels)


def _products_of_lines(inputs, upstream):
    """Multiplies all pairs of voxels of two lines along W, and sums three diagonals."""
    import jax.numpy as jnp
    from jax import lax

    _, channels, depth, height, width = inputs.shape
    padded = jnp.pad(inputs, [(0, 0), (0, 0), (1, 1), (1, 1), (0, 0)])
    high = None if inputs.dtype == jnp.bfloat16 else lax.Precision.HIGHEST
    taps = []
    for d, h in itertools.product(range(3), repeat=2):
        lines = padded[:, :, d : d + depth, h : h + height]
        products = jnp.einsum(
            "ncdhv,ncdhw->cvw",
            lines,
            upstream,
            precision=high,
            preferred_element_type=jnp.float32,
        )
        # Voxel v = w + tap - 1 of the inputs meets voxel w of the outputs.
        taps += [
            jnp.trace(products, offset=1 - tap, axis1=1, axis2=2) for tap in range(3)
        ]
    return jnp.stack(taps).reshape(3, 3, 3, channels)


def _grouped(inputs, kernel):
    from jax import lax

    channels = inputs.shape[-1]
    return lax.conv_general_dilated(
        inputs,
        kernel.reshape(3, 3, 3, 1, channels).astype(inputs.dtype),
        (1, 1, 1),
        "SAME",
        dimension_numbers=("NDHWC", "DHWIO", "NDHWC"),
        feature_group_count=channels,
        precision=lax.Precision.HIGHEST,
    )


def _two_d(inputs, kernel):
    import jax.numpy as jnp
    from jax import lax

    num, depth, height, width, channels = inputs.shape
    padded = jnp.pad(inputs, [(0, 0), (1, 1), (0, 0), (0, 0), (0, 0)])
    return _sum(
        lax.conv_general_dilated(
            padded[:, tap : tap + depth].reshape(num * depth, height, width, channels),
            kernel[tap].reshape(3, 3, 1, channels).astype(inputs.dtype),
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels,
            precision=lax.Precision.HIGHEST,
        )
        for tap in range(3)
    ).reshape(inputs.shape)


def _strided_gradient(upstream, kernel):
    import jax
    import jax.numpy as jnp
    from jax import lax

    num, _, *size = upstream.shape
    zeros = jnp.zeros((num, kernel.shape[3], *(2 * s for s in size)), upstream.dtype)

    def convolve(inputs):
        return lax.conv_general_dilated(
            inputs,
            kernel.astype(inputs.dtype),
            (2, 2, 2),
            "SAME",
            dimension_numbers=("NCDHW", "DHWIO", "NCDHW"),
            precision=lax.Precision.HIGHEST,
        )

    return jax.vjp(convolve, zeros)[1](upstream)[0]


def _sub_voxel_gradient(upstream, kernel):
    """Convolves with a kernel of 2 × 2 × 2 that returns eight voxels for each.

    An output voxel o reads the input voxels 2o, 2o + 1 and 2o + 2. So input voxel 2i
    receives tap 0 from output i and tap 2 from i - 1, and 2i + 1 tap 1 from i.
    """
    import jax.numpy as jnp
    from jax import lax

    num, filters, depth, height, width = upstream.shape
    channels = kernel.shape[3]
    parts = kernel
    for axis in range(3):
        tap = [jnp.take(parts, jnp.array([t]), axis=axis) for t in range(3)]
        even = jnp.concatenate([tap[2], tap[0]], axis=axis)
        odd = jnp.concatenate([jnp.zeros_like(tap[1]), tap[1]], axis=axis)
        parts = jnp.stack([even, odd], axis=-3)
    sub_kernel = jnp.moveaxis(parts, -1, 3).reshape(2, 2, 2, filters, 8 * channels)
    blocks = lax.conv_general_dilated(
        upstream,
        sub_kernel.astype(upstream.dtype),
        (1, 1, 1),
        [(1, 0)] * 3,
        dimension_numbers=("NCDHW", "DHWIO", "NCDHW"),
        precision=lax.Precision.HIGHEST,
    ).reshape(num, 2, 2, 2, channels, depth, height, width)
    blocks = blocks.transpose(0, 4, 5, 1, 6, 2, 7, 3)
    return blocks.reshape(num, channels, 2 * depth, 2 * height, 2 * width)
