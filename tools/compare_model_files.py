"""Measures model files: size for one and for all domains, and the effect of float16.

    python -m tools.compare_model_files
    python -m tools.compare_model_files --model_dir=MODEL --raw_dir=SCANS

Without a model, it uses a randomly initialized universal network of the paper with
three domains. With raw scans, it predicts the test cases with the graphs of both
precisions in onnxruntime and prints the Dice of each class.
"""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Sequence
from typing import TYPE_CHECKING, get_args

import tabulate
from absl import flags

from u2net_tf import command, machine

if TYPE_CHECKING:
    from u2net_tf.evaluation.tables import ClassScore
    from u2net_tf.models.model_file import ModelFile
    from u2net_tf.models.spec import ModelSpec

NUM_DOMAINS = 3


def save_random_model(folder: pathlib.Path) -> None:
    """Writes a randomly initialized universal network for a few domains."""
    from u2net_tf.models.build import build_network
    from u2net_tf.models.loading import save_model
    from u2net_tf.models.spec import ModelSpec
    from u2net_tf.plan.domains import Domain, Plan
    from u2net_tf.plan.labels import Label

    domains = tuple(
        Domain(
            name=f"Task0{number}_Drawn",
            raw_dir="none",
            modalities=("CT",),
            labels=(Label("background", (0,)), Label("organ", (1,))),
            spacing_mm=(1.0, 1.0, 1.0),
            median_shape=(128, 128, 128),
            patch_size=(128, 128, 128),
            pools=(5, 5, 5),
            batch_size=2,
        )
        for number in range(1, NUM_DOMAINS + 1)
    )
    spec = ModelSpec(plan=Plan(domains), pools=(5, 5, 5))
    save_model(folder, spec, build_network(spec))


def score(
    model: ModelFile, spec: ModelSpec, raw_dir: str, folder: pathlib.Path
) -> list[ClassScore]:
    """Returns the Dice on the test cases of all domains."""
    from u2net_tf.config.inference import ReadingConfig
    from u2net_tf.evaluation.scoring import find_cases, score_domain
    from u2net_tf.evaluation.tables import summarize
    from u2net_tf.inference.backends.opening import open_model

    opened = open_model(model.path, runtime="onnxruntime")
    scores = []
    for domain in spec.plan.domains:
        cases = find_cases(domain, "test", raw_dir)
        predictor = opened.predictor(domain.name)
        index = predictor.plan.index(domain.name)
        found = score_domain(predictor, index, cases, folder, reading=ReadingConfig())
        scores += found.scores
    return summarize(scores, spec.plan.domains)


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "model_dir", None, "Model to compare; random weights if not given."
    )
    flags.DEFINE_string("raw_dir", None, "Raw scans, one folder per domain.")


def main(argv: Sequence[str]) -> None:
    """Prints the tables."""
    del argv  # flags only; `command.start` has checked
    values = flags.FLAGS
    machine.import_tensorflow()
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary)
        model_dir = values.model_dir or str(folder / "model")
        if values.model_dir is None:
            save_random_model(folder / "model")
        compare(model_dir, values.raw_dir, folder)


def compare(model_dir: str, raw_dir: str | None, folder: pathlib.Path) -> None:
    """Packs one and all domains in both precisions and prints the tables.

    Args:
      model_dir: folder of the model.
      raw_dir: raw scans, one folder per domain; None to skip the Dice.
      folder: folder for the packed files.
    """
    from u2net_tf.config.packing import PackConfig
    from u2net_tf.exporting.pack_model import pack_model
    from u2net_tf.models.loading import load_spec
    from u2net_tf.models.model_file_format import WeightsPrecision

    spec = load_spec(model_dir)
    rows = []
    scores = {}
    for precision in get_args(WeightsPrecision):
        for names in (spec.plan.names[:1], spec.plan.names):
            model = pack_model(
                PackConfig(
                    model_dir=model_dir,
                    output=str(folder / f"{precision}-{len(names)}.u2net"),
                    domains=names,
                    precision=precision,
                )
            )
            sizes = {each.name: each.size for each in model.description.members}
            size = model.path.stat().st_size
            weights = sizes["weights.bin"]
            bytes_of = (f"{number:,}" for number in (size, weights, size - weights))
            rows.append((precision, len(names), *bytes_of))
        if raw_dir is not None:
            scores[precision] = score(model, spec, raw_dir, folder / precision)
    columns = ("precision", "domains", "bytes", "weights", "other")
    print(tabulate.tabulate(rows, columns, disable_numparse=True))
    if scores:
        differences = [
            (one.domain, one.label, f"{one.mean:.6f}", f"{two.mean - one.mean:+.6f}")
            for one, two in zip(*scores.values(), strict=True)
        ]
        headers = ("domain", "class", "Dice, float32", "float16 change")
        print(tabulate.tabulate(differences, headers, disable_numparse=True))


def run() -> None:
    """Runs the command."""
    define_flags()
    command.start(main)


if __name__ == "__main__":
    run()
