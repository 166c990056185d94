"""Writes networks as a SavedModel, which runs in TensorFlow without this package."""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from collections.abc import Sequence

import tensorflow as tf

from u2net_tf import system_errors
from u2net_tf.errors import InputError
from u2net_tf.exporting.onnx_model import patches_spec
from u2net_tf.exporting.sliding_window import predict_classes
from u2net_tf.models.exported import OUTPUT, SIGNATURE, ExportedDomain, to_texts
from u2net_tf.models.segmentation import segment_patches
from u2net_tf.models.spec import ModelSpec
from u2net_tf.networks import ops
from u2net_tf.networks.domain_model import DomainModel

# Prefix of the signatures for volumes, like `SIGNATURE` for patches.
VOLUMES = "segment_volume_"


@dataclasses.dataclass(frozen=True)
class Source:
    """A domain to export.

    Attributes:
      network: the network with its weights.
      spec: description of the model.
      index: index of the domain.
      fingerprint: see `ExportedDomain`.
      checkpoint: path of its weights; "" if they come from elsewhere.
    """

    network: DomainModel
    spec: ModelSpec
    index: int
    fingerprint: str
    checkpoint: str = ""


def save_saved_model(
    sources: Sequence[Source],
    folder: pathlib.Path,
    *,
    any_size: bool = False,
    overlap: float | None = None,
) -> list[str]:
    """Writes a SavedModel of several domains.

    Its operations are those of the plain implementation, without XLA. Weights that
    several domains share are stored once; the own weights of domains that are not
    exported are omitted.

    Args:
      sources: the domains.
      folder: folder to create.
      any_size: see `ExportedDomain`.
      overlap: overlap of the windows in a volume; None for no signatures of volumes.

    Returns:
      Names of the signatures.

    Raises:
      InputError: if two domains have the same signature, as "volume_x" has with "x".
      OSError: if the files cannot be written.
    """
    module = tf.Module()
    signatures: dict[str, tf.types.experimental.PolymorphicFunction] = {}
    for source in sources:
        name = source.spec.plan.names[source.index]
        patches = patches_spec(source.spec, source.index, any_size=any_size)
        functions = {SIGNATURE + name: _patches_function(source, patches)}
        if overlap is not None:
            functions[VOLUMES + name] = _volumes_function(source, overlap)
        for signature in functions.keys() & signatures.keys():
            raise InputError(
                "`domains`",
                expected="domains with different signatures",
                received=f"two with the signature {signature}",
                hint="Export them to different folders",
            )
        signatures |= functions
    concrete = {name: of.get_concrete_function() for name, of in signatures.items()}
    # Variables that no function reads are not saved.
    module.weights = list(
        {
            id(variable): variable
            for function in concrete.values()
            for variable in function.variables
        }.values()
    )
    described = [
        ExportedDomain.of_model(
            source.spec, source.index, fingerprint=source.fingerprint, any_size=any_size
        )
        for source in sources
    ]
    with tempfile.TemporaryDirectory() as temporary:
        module.description = []
        for name, text in to_texts(described).items():
            path = pathlib.Path(temporary, f"{name}.json")
            path.write_text(text, encoding="utf-8")
            module.description.append(tf.saved_model.Asset(path))
        try:
            tf.saved_model.save(module, folder, signatures=concrete)
        except tf.errors.OpError as error:
            raise system_errors.of_library("TensorFlow", error.message) from error
    return list(concrete)


def _patches_function(
    source: Source, patches: tf.TensorSpec
) -> tf.types.experimental.PolymorphicFunction:
    @tf.function(input_signature=[patches], autograph=False)
    def segment(patches: tf.Tensor) -> dict[str, tf.Tensor]:
        return {OUTPUT: _segment(source, patches)}

    return segment


def _volumes_function(
    source: Source, overlap: float
) -> tf.types.experimental.PolymorphicFunction:
    domain = source.spec.plan.domains[source.index]
    size = [None, None, None, domain.num_modalities]

    @tf.function(
        input_signature=[tf.TensorSpec(size, tf.float32, "volume")], autograph=False
    )
    def segment(volume: tf.Tensor) -> dict[str, tf.Tensor]:
        classes = predict_classes(
            volume,
            lambda windows: _segment(source, windows),
            patch_size=domain.patch_size,
            num_classes=domain.num_classes,
            overlap=overlap,
        )
        return {"classes": classes}

    return segment


def _segment(source: Source, patches: tf.Tensor) -> tf.Tensor:
    with ops.use_implementation("plain"), ops.without_gradients():
        return segment_patches(source.network, source.spec, source.index, patches)
