"""Segments raw scans with a trained model.

  python -m u2net_tf.predict --model_dir=DIR --domain=NAME --input=PATH --output=DIR

Scans whose output is there already, of the same model, domain and settings, are passed
over, so an interrupted run goes on where it stopped. A file that this command did not
write, or that was changed since, is written over with --overwrite only.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

from absl import flags, logging

from u2net_tf import command
from u2net_tf.inference import flags as inference_flags

_MODEL_DIR = flags.DEFINE_string("model_dir", None, "Folder that training wrote.")
_DOMAIN = flags.DEFINE_string("domain", None, "Domain of the model to predict with.")
_INPUT = flags.DEFINE_list(
    "input",
    None,
    "A NIfTI file, a DICOM folder, or a folder of either; or, separated by commas, one "
    "file or DICOM folder per modality of one case.",
)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for the label maps.")
_SAVE_PROBABILITIES = flags.DEFINE_bool(
    "save_probabilities",
    False,
    "Also write CASE_probabilities.nii.gz, 4-D, a class each.",
)
_OVERWRITE = flags.DEFINE_bool("overwrite", False, "Predict again what is there.")
flags.adopt_module_key_flags(inference_flags)


def main(argv: Sequence[str]) -> None:
    """Predicts every scan of the input."""
    del argv
    command.required(_MODEL_DIR, _DOMAIN, _INPUT, _OUTPUT)
    command.import_tensorflow()
    from tqdm import tqdm

    from u2net_tf.inference.outputs import Outputs
    from u2net_tf.inference.predictor import Predictor
    from u2net_tf.inference.scans import find_scans

    predictor = Predictor.from_model_dir(_model_folder(), **inference_flags.settings())
    plan = predictor.spec.plan
    domain = plan.index(_DOMAIN.value)
    scans = find_scans(_INPUT.value, plan.domains[domain].num_modalities)
    output = pathlib.Path(_OUTPUT.value)
    _check_output(output, scans)
    outputs = {
        scan: Outputs(
            output,
            scan.name,
            _output_paths(scan, output),
            predictor.key(domain, scan.paths),
        )
        for scan in scans
    }
    pending = [
        scan for scan in scans if _OVERWRITE.value or not outputs[scan].are_there()
    ]
    if not _OVERWRITE.value:
        for scan in pending:
            outputs[scan].check_ours()
    edited = [
        path for scan in scans if scan not in pending for path in outputs[scan].edited()
    ]
    for path in edited:
        logging.warning("%s: edited since it was predicted; kept as it is", path)
    for scan in tqdm(pending, "predicting", unit="case", disable=None):
        _predict_scan(predictor, domain, scan, outputs[scan])
    done_before = len(scans) - len(pending)
    note = f"{done_before} were there already" if done_before else ""
    if edited:
        note += f", with {len(edited)} files that were edited since"
    print(
        f"{len(scans)} label maps of {_DOMAIN.value} by {predictor.checkpoint} in "
        f"{output}" + (f" ({note})" if note else "")
    )


def _model_folder() -> pathlib.Path:
    """Of several independent models, that of the domain."""
    from u2net_tf.models.checkpoints import serving

    folders = serving(_MODEL_DIR.value)
    if _DOMAIN.value not in folders:
        raise command.InputError(
            f"--domain: expected one of {', '.join(folders)}, found {_DOMAIN.value}"
        )
    return folders[_DOMAIN.value]


def _check_output(output: pathlib.Path, scans) -> None:
    """A scan must not be written over, and a file is no folder."""
    if output.exists() and not output.is_dir():
        raise command.InputError(
            f"--output: expected a folder, found the file {output}"
        )
    inputs = {path.resolve() for scan in scans for path in scan.paths}
    for scan in scans:
        for path in _output_paths(scan, output):
            if path.resolve() in inputs:
                raise command.InputError(
                    "--output: expected another folder than that of the scans, "
                    f"found {path}, which would be written over"
                )


def _output_paths(scan, output: pathlib.Path) -> list[pathlib.Path]:
    """Files that are written for a scan; the last is the label map."""
    kinds = ["_probabilities"] if _SAVE_PROBABILITIES.value else []
    return [output / f"{scan.name}{kind}.nii.gz" for kind in [*kinds, ""]]


def _predict_scan(predictor, domain: int, scan, outputs) -> None:
    from u2net_tf.volumes import case, nifti

    settings = predictor.spec.plan.domains[domain]
    image = case.read_image(scan.paths, settings)
    prediction = predictor.predict(
        image, domain, with_probabilities=_SAVE_PROBABILITIES.value
    )
    outputs.begin()
    *others, labels_path = outputs.paths
    for path in others:
        nifti.save_probabilities(path, prediction.probabilities, image.grid)
    labels = case.raw_labels(prediction.classes, settings)
    nifti.save_labels(labels_path, labels, image.grid)
    outputs.finish()


def run() -> None:
    """Entry point of `u2net-predict`."""
    command.start(main)


if __name__ == "__main__":
    run()
