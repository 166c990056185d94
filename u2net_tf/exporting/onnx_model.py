"""Converts one domain of a network to an ONNX graph."""

from __future__ import annotations

import collections
from collections.abc import Sequence
from typing import TYPE_CHECKING

import tensorflow as tf

from u2net_tf.errors import StoppedError
from u2net_tf.export_packages import import_package
from u2net_tf.file_format import version
from u2net_tf.models.exported import (
    INPUT,
    METADATA_PREFIX,
    OUTPUT,
    ExportedDomain,
    to_texts,
)
from u2net_tf.models.segmentation import segment_patches
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks import ops
from u2net_tf.networks.domain_model import DomainModel

if TYPE_CHECKING:
    import onnx

# The newest opset that tf2onnx supports.
OPSET = 18
# Limit of the size of a protocol buffer.
MAX_BYTES = 2**31 - 1
# Prefix of constants that tf2onnx computes.
_COMPUTED = "const_fold_opt__"


def to_onnx(
    network: DomainModel,
    spec: ModelSpec,
    index: int,
    *,
    fingerprint: str,
    any_size: bool = False,
) -> onnx.ModelProto:
    """Converts one domain of a network, without the weights of other domains.

    Args:
      network: the network with its weights, in float32.
      spec: description of the model.
      index: index of the domain.
      fingerprint: see `ExportedDomain`.
      any_size: see `ExportedDomain`.

    Returns:
      A checked model: patches (N, *patch_size, M) -> probabilities (N, *patch_size, K),
      both float32, channels last, any N. Its metadata describe it for
      `models.exported`.

    Raises:
      StoppedError: if the extra `export` is not installed, or the model is too large
        for a single file.
    """
    onnx = import_package("onnx")
    tf2onnx = import_package("tf2onnx")
    from u2net_tf.exporting import onnx_rewriters

    signature = patches_spec(spec, index, any_size=any_size)

    @tf.function(input_signature=[signature], autograph=False)
    def segment(patches: tf.Tensor) -> dict[str, tf.Tensor]:
        with ops.use_implementation("export"), ops.without_gradients():
            return {OUTPUT: segment_patches(network, spec, index, patches)}

    size = sum(4 * v.shape.num_elements() for v in _variables(segment))
    if size >= MAX_BYTES:
        raise StoppedError(
            f"the weights of {spec.plan.names[index]} take {size:,} bytes, but an ONNX "
            f"file is limited to less than {MAX_BYTES:,}; export a SavedModel instead"
        )
    model, _ = tf2onnx.convert.from_function(
        segment,
        [signature],
        opset=OPSET,
        custom_op_handlers=onnx_rewriters.HANDLERS,
        custom_rewriter=onnx_rewriters.REWRITERS,
    )
    _name_dimensions(model, spec, index, any_size=any_size)
    _order_constants(model)
    described = ExportedDomain.of_model(
        spec, index, fingerprint=fingerprint, any_size=any_size
    )
    model.graph.name = described.name
    model.producer_name, _, model.producer_version = version().partition(" ")
    onnx.helper.set_model_props(
        model,
        {METADATA_PREFIX + name: text for name, text in to_texts([described]).items()},
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def _order_constants(model: onnx.ModelProto) -> None:
    """Orders the constants by their first use, so that conversions are reproducible.

    tf2onnx orders constants, and names those that it computes or merges, by sets of
    objects.
    """
    uses = [name for node in model.graph.node for name in node.input]
    order = {name: number for number, name in enumerate(dict.fromkeys(uses))}
    counts = collections.Counter(uses)
    constants = model.graph.initializer
    constants.sort(key=lambda constant: order.get(constant.name, len(order)))
    renamed = {}
    for number, constant in enumerate(constants):
        if counts[constant.name] > 1 or constant.name.startswith(_COMPUTED):
            renamed[constant.name] = constant.name = f"constant_{number}"
    for node in model.graph.node:
        for number, name in enumerate(node.input):
            node.input[number] = renamed.get(name, name)


def patches_spec(spec: ModelSpec, index: int, *, any_size: bool) -> tf.TensorSpec:
    """Returns shape, type and name of the patches of a domain."""
    domain = spec.plan.domains[index]
    size = (None, None, None) if any_size else domain.patch_size
    return tf.TensorSpec([None, *size, domain.num_modalities], tf.float32, INPUT)


def _variables(function: tf.types.experimental.PolymorphicFunction) -> Sequence:
    return function.get_concrete_function().variables


def _name_dimensions(
    model: onnx.ModelProto, spec: ModelSpec, index: int, *, any_size: bool
) -> None:
    """Gives the variable dimensions, N and possibly the size, meaningful names."""
    domain = spec.plan.domains[index]
    size = ("D", "H", "W") if any_size else domain.patch_size
    channels = domain.num_modalities, domain.num_classes
    for value, num_channels in zip(
        (*model.graph.input, *model.graph.output), channels, strict=True
    ):
        dims = value.type.tensor_type.shape.dim
        for dim, extent in zip(dims, ("N", *size, num_channels), strict=True):
            if isinstance(extent, str):
                dim.dim_param = extent
            else:
                dim.dim_value = extent
    # Checkers infer intermediate shapes; those of tf2onnx have generated names.
    del model.graph.value_info[:]
