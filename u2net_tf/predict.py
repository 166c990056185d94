"""Segments raw scans with a trained model.

  python -m u2net_tf.predict --model=PATH --domain=NAME --input=PATH --output=DIR

The model is a folder written by training, or the output of u2net_tf.pack or
u2net_tf.export: a .u2net, ONNX or OpenVINO file, for which TensorFlow is not needed, or
a SavedModel.

With --domains=NAME,NAME instead of --domain, each scan is read once, and its label map
has the classes of all these domains.

Scans that were already predicted with the same model, domain and settings are skipped,
so an interrupted run resumes where it left off when rerun. Files that this command did
not write, or that were edited since, are only replaced with --overwrite. Scans that
cannot be used are listed with the reason at the end; the exit status is then 1.
"""

from __future__ import annotations

import pathlib
from typing import TYPE_CHECKING, Any

from absl import logging

from u2net_tf import command
from u2net_tf.config.inference import PredictConfig
from u2net_tf.wording import quantity

if TYPE_CHECKING:
    from u2net_tf.inference.label_maps import Report
    from u2net_tf.inference.opened_model import OpenedModel
    from u2net_tf.inference.organs import Organ
    from u2net_tf.inference.scans import FoundScans
    from u2net_tf.plan.domains import Domain
    from u2net_tf.progress import Progress


def main(config: PredictConfig) -> None:
    """Predicts every scan of the input."""
    from u2net_tf.inference import organs, scans

    organs.require_choice(config)
    scans.require_input(config.input, config.input_list)
    from u2net_tf.inference import label_maps
    from u2net_tf.inference.backends.opening import open_ensemble

    progress = command.progress_every(config.log.log_every_seconds)
    model = open_ensemble(
        config.model, config.windows, runtime=config.runtime, progress=progress
    )
    if not config.domain:
        _predict_several(config, model, progress)
        return
    predictor = model.predictor(config.domain)
    plan = predictor.plan
    domain = plan.index(config.domain)
    found = _find_scans(config, plan.domains[domain])
    report = label_maps.predict_scans(
        predictor,
        domain,
        found,
        pathlib.Path(config.output),
        **_options(config, progress),
    )
    _print_report(config, plan.names[domain], predictor.checkpoint, report)
    _exit_if_skipped(report, found)


def _predict_several(
    config: PredictConfig, model: OpenedModel, progress: Progress
) -> None:
    """Predicts several domains of every scan of the input."""
    from u2net_tf.inference import organs, several_domains

    chosen = _load_organs(config, model)
    domains = [organ.domain for organ in chosen]
    modalities = organs.scan_modalities(domains, config.modalities)
    found = _find_scans(config, organs.scan_domain(domains, modalities))
    report = several_domains.predict_domains(
        chosen,
        found,
        pathlib.Path(config.output),
        modalities=modalities,
        priority=config.priority,
        separate_files=config.separate_files,
        **_options(config, progress),
    )
    checkpoints = dict.fromkeys(organ.predictor.checkpoint for organ in chosen)
    _print_report(
        config,
        " and ".join(domain.name for domain in domains),
        ", ".join(checkpoints),
        report,
    )
    for case, overlaps in report.overlaps.items():
        for one in overlaps:
            print(
                f"{case}: {one.domain} hides {quantity(one.voxels, 'voxel')} "
                f"({one.volume_ml:.3g} ml) of {one.hidden}"
            )
    _exit_if_skipped(report, found)


def _find_scans(config: PredictConfig, domain: Domain) -> FoundScans:
    """Returns the scans of this command's part of the input."""
    from u2net_tf.inference import scans

    found = scans.find_scans(config.input, domain, input_list=config.input_list)
    if config.part_id is None or config.num_parts == 1:
        return found
    part = found.part(config.part_id, config.num_parts)
    logging.info(
        "part %d (of 0 to %d): %d of %s",
        config.part_id,
        config.num_parts - 1,
        part.num_cases,
        quantity(found.num_cases, "scan"),
    )
    return part


def _options(config: PredictConfig, progress: Progress) -> dict[str, Any]:
    """Returns the options of `label_maps.predict_files`."""
    return {
        "reading": config.reading,
        "save_probabilities": config.save_probabilities,
        "preview": config.preview,
        "output_format": config.output_format,
        "volumes_csv": pathlib.Path(config.volumes_csv) if config.volumes_csv else None,
        "overwrite": config.overwrite,
        "progress": progress,
    }


def _load_organs(config: PredictConfig, model: OpenedModel) -> list[Organ]:
    """Returns the requested domains with their models, each loaded once."""
    from u2net_tf.inference import organs

    names = organs.choose_domains(config.domains, model.domains)
    organs.order_by_priority(names, config.priority)
    return [
        organs.Organ(predictor, predictor.plan.index(name))
        for name in names
        for predictor in [model.predictor(name)]
    ]


def _print_report(
    config: PredictConfig, domains: str, checkpoint: str, report: Report
) -> None:
    num_label_maps = report.num_written + report.num_existing
    note = f"{report.num_existing} already existed" if report.num_existing else ""
    if report.num_edited:
        note += f", including {quantity(report.num_edited, 'edited file')}"
    print(
        f"{quantity(num_label_maps, 'label map')} of {domains} in {config.output}, "
        f"predicted by {checkpoint}"
        + (f" ({note})" if note else "")
        + (f"; volumes in {config.volumes_csv}" if config.volumes_csv else "")
    )


def _exit_if_skipped(report: Report, found: FoundScans) -> None:
    command.exit_if_skipped(report.skipped, found.num_cases, "scan")


def run() -> None:
    """Entry point of `u2net-predict`."""
    command.start(main, PredictConfig)


if __name__ == "__main__":
    run()
