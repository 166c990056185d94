"""A model that stays loaded, to segment images from Python."""

from __future__ import annotations

import numbers
import os
import threading
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from u2net_tf.errors import InputError
from u2net_tf.inference import plausibility
from u2net_tf.inference.opened_model import OpenedModel
from u2net_tf.inference.prepared_scan import prepare_scan
from u2net_tf.inference.segmentation import Segmentation
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.volumes import array_images, case
from u2net_tf.volumes.grid import Volume
from u2net_tf.wording import first_few


class Segmenter:
    """A trained model that segments images; see `load`.

    The network of a domain is loaded when it is first used and stays in memory. Calls
    from several threads are safe: images are read and preprocessed in parallel, and the
    network processes one of them at a time, on all cores.

    Args:
      model: the opened model.

    Attributes:
      path: path of the model, or the paths of an ensemble, joined by ", ".
      runtime: runtime that executes it: "tensorflow", "openvino" or "onnxruntime";
        those of an ensemble are joined by " and ".
      domains: names of its domains.
    """

    def __init__(self, model: OpenedModel):
        self._model = model
        self._lock = threading.Lock()
        self.path = str(model.path)
        self.runtime = model.runtime
        self.domains = model.domains

    def __repr__(self) -> str:
        domains = first_few(self.domains)
        return f"<Segmenter of {domains} in {self.path}, run by {self.runtime}>"

    @property
    def plan(self) -> Plan:
        """Modalities, classes and preprocessing of all domains, which it loads."""
        with self._lock:
            return self._model.plan

    def __call__(
        self,
        image: str | os.PathLike | Sequence[str | os.PathLike] | np.ndarray,
        domain: str | None = None,
        *,
        spacing_mm: Sequence[float] | None = None,
        orientation: str | None = None,
        affine: npt.ArrayLike | None = None,
        with_probabilities: bool = False,
        resample_modalities: bool = False,
        max_memory_gb: float | None = None,
    ) -> Segmentation:
        """Segments an image.

        Args:
          image: a file (NIfTI, NRRD, MetaImage or multi-frame DICOM), the folder of a
            DICOM series, or several of these, one per modality; or an array of shape
            (z, y, x) or (z, y, x, C), with C modalities.
          domain: name of the domain; may be omitted if the model has only one.
          spacing_mm: voxel size (z, y, x) of an array, in mm.
          orientation: directions of the axes x, y and z of an array, such as "LPS";
            see `array_images.image_from_array`.
          affine: (4, 4) affine of an array, instead of spacing and orientation.
          with_probabilities: whether to keep the class probabilities.
          resample_modalities: whether to resample modalities on other grids to the grid
            of the first; otherwise they are an error.
          max_memory_gb: limit to the memory of the image, in GB; half of the machine's
            if None.

        Returns:
          The segmentation, on the grid of the image.

        Raises:
          InputError: if an argument is invalid or a file cannot be used.
        """
        name = self._only_domain() if domain is None else domain
        _require_limit(max_memory_gb)
        with self._lock:
            predictor = self._model.predictor(name)
        index = predictor.plan.index(name)
        chosen = predictor.plan.domains[index]
        position = {
            "spacing_mm": spacing_mm,
            "orientation": orientation,
            "affine": affine,
        }
        volume = (
            _from_array(image, chosen, position)
            if isinstance(image, np.ndarray)
            else _from_files(
                image,
                chosen,
                position,
                resample_modalities=resample_modalities,
                max_memory_gb=max_memory_gb,
            )
        )
        scan = prepare_scan(
            volume,
            chosen,
            with_probabilities=with_probabilities,
            max_memory_gb=max_memory_gb,
        )
        with self._lock:
            prediction = predictor.predict_prepared(
                scan, index, with_probabilities=with_probabilities
            )
        warnings = (*volume.notes, *plausibility.differences(volume, chosen))
        return Segmentation(chosen, volume.grid, warnings, prediction)

    def _only_domain(self) -> str:
        if len(self.domains) > 1:
            raise InputError(
                "`domain`",
                expected=f"one of {first_few(self.domains)}",
                received="none",
            )
        return self.domains[0]


def _require_limit(max_memory_gb: Any) -> None:
    if max_memory_gb is None:
        return
    # Not a number, NaN, is not above 0.
    if not (isinstance(max_memory_gb, numbers.Real) and float(max_memory_gb) > 0):
        raise InputError(
            "`max_memory_gb`", expected="a number above 0", received=max_memory_gb
        )


def _from_array(image: np.ndarray, domain: Domain, position: dict[str, Any]) -> Volume:
    volume = array_images.image_from_array(image, **position)
    case.check_image(array_images.SOURCE, volume, domain.num_modalities)
    return volume


def _from_files(
    image: str | os.PathLike | Sequence[str | os.PathLike],
    domain: Domain,
    position: dict[str, Any],
    **options: Any,
) -> Volume:
    for name, value in position.items():
        if value is not None:
            raise InputError(
                f"`{name}`",
                expected="none, as `image` is not an array",
                received=value,
            )
    paths = [image] if isinstance(image, str | os.PathLike) else image
    if (
        not isinstance(paths, list | tuple)
        or not paths
        or not all(isinstance(path, str | os.PathLike) for path in paths)
    ):
        raise InputError(
            array_images.SOURCE,
            expected="a path, one path per modality, or a NumPy array",
            received="no path" if paths == [] else type(image).__name__,
        )
    return case.read_image(paths, domain, **options)
