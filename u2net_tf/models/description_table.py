"""Formats the description of a model as text of at most 100 columns."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence

from tabulate import tabulate

from u2net_tf.config.network import SECOND_UP_CONV_TO_KERNEL
from u2net_tf.models.description import (
    BestDescription,
    DomainDescription,
    ModelDescription,
)
from u2net_tf.wording import quantity

_UNKNOWN = "not recorded"
_SPLITS = ("train", "val.", "test")
_KINDS = {
    "none": "plain convolutions (adapter none)",
    "separable": "universal (separable adapters)",
    "series": "universal (series adapters)",
    "parallel": "universal (parallel adapters)",
}


def to_text(model: ModelDescription) -> str:
    """Returns a description as text for people."""
    rows = [*_network_rows(model), *_training_rows(model)]
    parts = [
        f"{model.model_dir}, {model.checkpoint}",
        _table(rows, (), (16, 82)),
        _domains(model.domains),
        _classes(model),
        _checkpoints(model),
    ]
    return "\n\n".join(parts)


def _network_rows(model: ModelDescription) -> Iterator[tuple[str, str]]:
    yield "written by", model.written_by or "not recorded (release 0.1.0 or earlier)"
    pools = ",".join(map(str, model.pools))
    last_kernel = ""
    if model.second_up_conv is not None:
        kernel = SECOND_UP_CONV_TO_KERNEL[model.second_up_conv]
        last_kernel = f", last decoder kernel {kernel}"
    yield (
        "network",
        f"{_architecture(model)}, {_KINDS[model.adapter]}, "
        f"{quantity(model.base_channels, 'channel')} at full resolution, pools {pools}"
        f"{last_kernel}",
    )
    patch = "each domain's own"
    if model.patch_size is not None:
        patch = f"{_format_triple(model.patch_size)} ({model.resize_method} resizing)"
    yield "patch", patch
    yield "parameters", _parameters(model)


def _architecture(model: ModelDescription) -> str:
    if model.depth is None:
        return "3D U²-Net"
    corners = ", aligned corners" if model.align_corners else ""
    heads = "" if model.deep_supervision else ", a single head"
    gates = "" if model.gates == "none" else f", gates {model.gates}"
    return f"UNet# of depth {model.depth}{corners}{heads}{gates}"


def _parameters(model: ModelDescription) -> str:
    own = [domain.parameters for domain in model.domains]
    span = f"{min(own):,}" + (f" to {max(own):,}" if max(own) > min(own) else "")
    return (
        f"{model.parameters:,}: {model.shared_parameters:,} shared, {span} per domain"
    )


def _training_rows(model: ModelDescription) -> Iterator[tuple[str, str]]:
    run = model.training
    if run is None:
        yield "training", "none (composed or ported model)"
        return
    end = "; finished" if run.finished else ""
    yield (
        "training",
        f"{quantity(run.steps, 'step')}, {quantity(run.epochs, 'epoch')}, "
        f"learning rate {run.learning_rate:.2g}{end}",
    )
    trained = [domain.name for domain in model.domains if domain.is_trained]
    if len(trained) < len(model.domains):
        frozen = "" if run.shared_variables else "; all other variables frozen"
        yield "trained domains", ", ".join(trained) + frozen
    if model.settings.get("from"):
        yield "adapted from", model.settings["from"]
    if model.settings.get("init_from"):
        yield "initialized from", model.settings["init_from"]
    weight = model.settings.get("region_loss_weight", "0")
    if weight not in ("0", "0.0"):
        yield "region loss", f"weight {weight}"
    if run.weight_ema_decay:
        yield "weights", f"moving averages, decay {run.weight_ema_decay:g}"
    yield "best", _best(run.best)
    if run.fold is not None:
        yield "fold", str(run.fold)
    yield "precision", run.precision or _UNKNOWN
    yield "data", model.settings.get("data_dir") or _UNKNOWN
    yield "data fingerprint", (run.data_fingerprint or _UNKNOWN)[:16]


def _best(best: BestDescription | None) -> str:
    if best is None:
        return "none yet"
    epoch = _UNKNOWN if best.epoch is None else best.epoch
    return f"step {best.step}, epoch {epoch}: {best.measure} {best.value:.4f}"


def _domains(domains: Sequence[DomainDescription]) -> str:
    rows = [
        (
            domain.name,
            ", ".join(domain.modalities),
            "×".join(f"{length:.3g}" for length in domain.spacing_mm),
            _format_triple(domain.patch_size),
            *map(str, domain.cases.values()),
        )
        for domain in domains
    ]
    headers = ("domain", "modalities", "spacing mm", "patch", *_SPLITS)
    align = ("left",) * 4 + ("right",) * 3
    return _table(rows, headers, (24, 16, 15, 11, 5, 4, 4), align)


def _classes(model: ModelDescription) -> str:
    best = model.training and model.training.best
    dice = best.dice if best else {}
    rows = []
    for domain in model.domains:
        names = [_with_dice(domain, label, dice) for label in domain.classes]
        text = ", ".join(names)
        if not domain.cases["validation"] and text != ", ".join(domain.classes):
            text += " (of test cases)"
        rows.append((domain.name, f"{domain.parameters:,}", text))
        rows += [
            ("", "", f"region {_with_dice(domain, name, dice)}: {', '.join(classes)}")
            for name, classes in domain.regions.items()
        ]
        if domain.ignore_label is not None:
            rows.append(("", "", f"ignore label {domain.ignore_label}"))
    align = ("left", "right", "left")
    header = "classes, with the Dice of the best checkpoint" if dice else "classes"
    return _table(rows, ("domain", "parameters", header), (24, 11, 58), align)


def _with_dice(domain: DomainDescription, name: str, dice: Mapping[str, float]) -> str:
    """Returns the name of a class or region, with its Dice if there is one."""
    score = dice.get(f"{domain.name}/{name}")
    return name if score is None else f"{name} {score:.3f}"


def _checkpoints(model: ModelDescription) -> str:
    rows = []
    for checkpoint in model.checkpoints:
        remarks = {
            "described here": checkpoint.name == model.checkpoint,
            "best": checkpoint.is_best,
            "damaged": checkpoint.is_damaged,
        }
        rows.append(
            (
                checkpoint.name,
                _format_size(checkpoint.size_bytes),
                checkpoint.written.replace("T", " "),
                ", ".join(remark for remark, applies in remarks.items() if applies),
            )
        )
    headers = ("checkpoint", "size", "written", "")
    align = ("left", "right", "left", "left")
    return _table(rows, headers, (28, 10, 26, 30), align)


def _format_triple(values: Sequence[int]) -> str:
    return "×".join(map(str, values))


def _format_size(num_bytes: int) -> str:
    return (
        f"{num_bytes / 1e6:.1f} MB" if num_bytes >= 1e5 else f"{num_bytes / 1e3:.1f} kB"
    )


def _table(
    rows: Iterable[Sequence[str]],
    headers: Sequence[str],
    widths: Sequence[int],
    align: Sequence[str] | None = None,
) -> str:
    # tabulate's own `maxcolwidths` fails on "1,000", which it tries to parse.
    wrapped = [
        [textwrap.fill(cell, width) for cell, width in zip(row, widths, strict=True)]
        for row in rows
    ]
    return tabulate(
        wrapped, headers, tablefmt="plain", disable_numparse=True, colalign=align
    )
