"""Segments raw scans with a trained model.

  python -m u2net_tf.predict --model_dir=DIR --domain=NAME --input=PATH --output=DIR

Scans whose output is there already, of the same model, domain and settings, are passed
over, so an interrupted run goes on where it stopped. A file that this command did not
write, or that was changed since, is written over with --overwrite only.
"""

from __future__ import annotations

import pathlib

from absl import logging

from u2net_tf import command, machine
from u2net_tf.config.inference import PredictConfig
from u2net_tf.wording import quantity


def main(config: PredictConfig) -> None:
    """Predicts every scan of the input."""
    machine.import_tensorflow()
    from u2net_tf.inference.outputs import Outputs
    from u2net_tf.inference.predictor import Predictor
    from u2net_tf.inference.scans import find_scans

    predictor = Predictor.from_model_dir(
        _model_folder(config), progress=command.progress_bar, **config.windows.flat()
    )
    plan = predictor.spec.plan
    domain = plan.index(config.domain)
    scans = find_scans(config.input, plan.domains[domain].num_modalities)
    output = pathlib.Path(config.output)
    _check_output(output, scans, config)
    outputs = {
        scan: Outputs(
            output,
            scan.name,
            _output_paths(scan, config),
            predictor.key(domain, scan.paths),
        )
        for scan in scans
    }
    pending = [
        scan for scan in scans if config.overwrite or not outputs[scan].are_there()
    ]
    if not config.overwrite:
        for scan in pending:
            outputs[scan].check_ours()
    edited = [
        path for scan in scans if scan not in pending for path in outputs[scan].edited()
    ]
    for path in edited:
        logging.warning("%s: edited since it was predicted; kept as it is", path)
    for scan in command.progress_bar(pending, "predicting", unit="case"):
        _predict_scan(predictor, domain, scan, outputs[scan], config.save_probabilities)
    done_before = len(scans) - len(pending)
    note = f"{done_before} already there" if done_before else ""
    if edited:
        note += f", with {quantity(len(edited), 'edited file')}"
    print(
        f"{quantity(len(scans), 'label map')} of {config.domain} by "
        f"{predictor.checkpoint} in {output}" + (f" ({note})" if note else "")
    )


def _model_folder(config: PredictConfig) -> pathlib.Path:
    """Of several independent models, that of the domain."""
    from u2net_tf.models.loading import models_by_domain

    folders = models_by_domain(config.model_dir)
    if config.domain not in folders:
        raise command.InputError(
            "`domain`", expected=f"one of {', '.join(folders)}", received=config.domain
        )
    return folders[config.domain]


def _check_output(output: pathlib.Path, scans, config: PredictConfig) -> None:
    """A scan must not be written over, and a file is no folder."""
    if output.exists() and not output.is_dir():
        raise command.InputError(
            "`output`", expected="a folder", received=f"the file {output}"
        )
    inputs = {path.resolve() for scan in scans for path in scan.paths}
    for scan in scans:
        for path in _output_paths(scan, config):
            if path.resolve() in inputs:
                raise command.InputError(
                    "`output`",
                    expected="another folder than that of the scans",
                    received=f"{path}, which would be overwritten",
                )


def _output_paths(scan, config: PredictConfig) -> list[pathlib.Path]:
    """Files that are written for a scan; the last is the label map."""
    kinds = ["_probabilities"] if config.save_probabilities else []
    folder = pathlib.Path(config.output)
    return [folder / f"{scan.name}{kind}.nii.gz" for kind in [*kinds, ""]]


def _predict_scan(
    predictor, domain: int, scan, outputs, save_probabilities: bool
) -> None:
    from u2net_tf.volumes import case, nifti

    settings = predictor.spec.plan.domains[domain]
    image = case.read_image(scan.paths, settings)
    prediction = predictor.predict(image, domain, with_probabilities=save_probabilities)
    outputs.begin()
    *others, labels_path = outputs.paths
    for path in others:
        nifti.save_probabilities(path, prediction.probabilities, image.grid)
    labels = case.raw_labels(prediction.classes, settings)
    nifti.save_labels(labels_path, labels, image.grid)
    outputs.finish()


def run() -> None:
    """Entry point of `u2net-predict`."""
    command.start(main, PredictConfig)


if __name__ == "__main__":
    run()
