"""Segments raw scans with a trained model.

  python -m u2net_tf.predict --model=PATH --domain=NAME --input=PATH --output=DIR

The model is a folder that training wrote, or what u2net_tf.pack or u2net_tf.export made
of one: .u2net, ONNX and OpenVINO files, which need no TensorFlow, or a SavedModel.

Scans that were predicted before, with the same model, domain and settings, are skipped,
so an interrupted run resumes where it left off when rerun. A file that this command did
not write, or that was edited since, is replaced with --overwrite only. Scans that
cannot be used are listed with the reason at the end, and the exit status is 1.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING

from u2net_tf import command
from u2net_tf.config.inference import PredictConfig
from u2net_tf.wording import quantity

if TYPE_CHECKING:
    from u2net_tf.inference.label_maps import Report


def main(config: PredictConfig) -> None:
    """Predicts every scan of the input."""
    from u2net_tf.inference import scans

    scans.require_input(config.input, config.input_list)
    from u2net_tf.inference import label_maps
    from u2net_tf.inference.backends.opening import open_model

    progress = command.progress_every(config.log.log_every_seconds)
    model = open_model(
        config.model, config.windows, runtime=config.runtime, progress=progress
    )
    predictor = model.predictor(config.domain)
    plan = predictor.plan
    domain = plan.index(config.domain)
    found = scans.find_scans(
        config.input, plan.domains[domain], input_list=config.input_list
    )
    report = label_maps.predict_scans(
        predictor,
        domain,
        found,
        pathlib.Path(config.output),
        reading=config.reading,
        save_probabilities=config.save_probabilities,
        preview=config.preview,
        output_format=config.output_format,
        volumes_csv=pathlib.Path(config.volumes_csv) if config.volumes_csv else None,
        overwrite=config.overwrite,
        progress=progress,
    )
    num_scans = len(found.scans) + len(found.incomplete)
    _print_report(config, num_scans - len(report.skipped), predictor.checkpoint, report)
    command.exit_if_skipped(report.skipped, num_scans, "scan")


def _print_report(
    config: PredictConfig, num_label_maps: int, checkpoint: str, report: Report
) -> None:
    note = f"{report.num_existing} already there" if report.num_existing else ""
    if report.num_edited:
        note += f", with {quantity(report.num_edited, 'edited file')}"
    print(
        f"{quantity(num_label_maps, 'label map')} of {config.domain} by {checkpoint} "
        f"in {config.output}"
        + (f" ({note})" if note else "")
        + (f"; volumes in {config.volumes_csv}" if config.volumes_csv else "")
    )


def run() -> None:
    """Entry point of `u2net-predict`."""
    command.start(main, PredictConfig)


if __name__ == "__main__":
    run()
