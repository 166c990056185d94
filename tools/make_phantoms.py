"""Writes synthetic scans with known labels in the layout of the MSD.

    python -m tools.make_phantoms --output_dir=raw --cases=20 --seed=0

Each domain has its own folder; a case takes 0.1 to 0.5 MB and about 0.3 s. The same
seed yields the same files. An existing domain is kept if it was made with the same
arguments and replaced if it was made with others. Other folders are never touched.
"""

from __future__ import annotations

import json
import pathlib
import shutil
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags

from u2net_tf import command, files
from u2net_tf.wording import quantity

if TYPE_CHECKING:
    from tools import phantom_domains, phantoms

# Key in dataset.json that marks folders of this tool, which may be kept or replaced.
_MARKER = "made_by_make_phantoms"
# Must be raised when the drawing changes, so that older phantoms are replaced.
_VERSION = 1


def define_flags() -> None:
    """Defines the flags of this command."""
    flags.DEFINE_string(
        "output_dir", None, "Folder to write the domains into.", required=True
    )
    flags.DEFINE_integer("cases", 20, "Cases per domain.", lower_bound=1)
    flags.DEFINE_integer("seed", 0, "Seed of the random generator.", lower_bound=0)
    flags.DEFINE_list(
        "domains",
        None,
        "Domains to write, of Task01_PhantomCT, Task02_PhantomMR and "
        "Task03_PhantomProstate; all three if not given.",
    )


def main(argv: Sequence[str]) -> None:
    """Writes the phantoms that the flags request."""
    del argv  # flags only; `command.start` has checked
    values = flags.FLAGS
    write_phantoms(
        pathlib.Path(values.output_dir),
        num_cases=values.cases,
        seed=values.seed,
        domains=values.domains,
    )


def write_phantoms(
    output_dir: pathlib.Path,
    *,
    num_cases: int,
    seed: int,
    domains: Sequence[str] | None = None,
) -> None:
    """Writes a folder of `num_cases` cases for each domain and prints a summary.

    Args:
      output_dir: parent of the folders; created if it is missing.
      num_cases: cases per domain.
      seed: seed of the random generator; a case depends on this, its domain and its
        number alone.
      domains: names of the folders; None for all three.

    Raises:
      InputError: for an unknown domain, or if a folder exists that this tool did not
        write. Nothing has been written then.
    """
    from tools import phantom_domains

    chosen = list(phantom_domains.DOMAINS) if domains is None else list(domains)
    for folder in chosen:
        if folder not in phantom_domains.DOMAINS:
            raise command.InputError(
                "`domains`",
                expected=f"domains among {', '.join(phantom_domains.DOMAINS)}",
                received=repr(folder),
            )
    made = {"version": _VERSION, "seed": seed, "num_cases": num_cases}
    cases = quantity(num_cases, "case")
    present = {folder: _read_marker(output_dir / folder) for folder in chosen}
    for folder in chosen:
        where = output_dir / folder
        if present[folder] == made:
            print(f"{where}: already exists, {cases} with seed {seed}")
            continue
        size = _write_domain(where, folder, phantom_domains.DOMAINS[folder], made)
        print(f"{where}: wrote {cases} with seed {seed}, {size / 1e6:.1f} MB")


def _read_marker(folder: pathlib.Path) -> dict | None:
    """Returns the arguments that `folder` was made with, or None if it is empty.

    Raises:
      InputError: if it contains anything that this tool did not write.
    """
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return None
    try:
        dataset = json.loads((folder / "dataset.json").read_text(encoding="utf-8"))
        made = dataset[_MARKER]
        expected = {folder / "dataset.json", folder / "imagesTr", folder / "labelsTr"}
        for entry in dataset["training"]:
            expected |= {folder / entry["image"], folder / entry["label"]}
    except (OSError, ValueError, KeyError, TypeError):
        raise command.InputError(
            folder,
            expected="no folder, or one written by make_phantoms",
            received="a folder with something else, which is not touched",
            hint="Choose another `output_dir`",
        ) from None
    found = set(folder.rglob("*"))
    if found - expected:
        raise command.InputError(
            folder,
            expected="no folder, or one written by make_phantoms",
            received=f"{sorted(map(str, found - expected))[:3]}, which are not touched",
            hint="Choose another `output_dir`",
        )
    # A folder with missing files is incomplete, and is written again.
    return made if found == expected else {}


def _write_domain(
    folder: pathlib.Path,
    key: str,
    domain: phantom_domains.PhantomDomain,
    made: dict[str, int],
) -> int:
    """Writes one domain under a temporary name, then moves it; returns its bytes."""
    import numpy as np

    partial = folder.with_name(f".{folder.name}.partial")
    # May be left over from a killed run.
    shutil.rmtree(partial, ignore_errors=True)
    training = []
    try:
        for part in ("imagesTr", "labelsTr"):
            (partial / part).mkdir(parents=True)
        cases = range(made["num_cases"])
        for case in command.progress_bar(cases, domain.name, unit="case"):
            # Seeded by domain and case, so that a case does not depend on the others.
            rng = np.random.default_rng([made["seed"], zlib.crc32(key.encode()), case])
            name = f"{domain.name.lower()}_{case:03d}.nii.gz"
            _write_case(partial, name, domain.draw(rng, case))
            training.append(
                {"image": f"./imagesTr/{name}", "label": f"./labelsTr/{name}"}
            )
        dataset = {
            "name": domain.name,
            "description": domain.description,
            "tensorImageSize": "4D" if len(domain.modalities) > 1 else "3D",
            "modality": {str(i): name for i, name in enumerate(domain.modalities)},
            "labels": {str(i): name for i, name in enumerate(domain.labels)},
            "numTraining": len(training),
            "numTest": 0,
            "training": training,
            "test": [],
            _MARKER: made,
        }
        text = json.dumps(dataset, indent=2) + "\n"
        files.write_text(partial / "dataset.json", text)
        # It contains only files of this tool: `_read_marker` has checked.
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return sum(path.stat().st_size for path in folder.rglob("*.nii.gz"))


def _write_case(folder: pathlib.Path, name: str, phantom: phantoms.Phantom) -> None:
    """Writes image and labels, each with both qform and sform, as scanners do."""
    import nibabel as nib

    for part, array in (("imagesTr", phantom.image), ("labelsTr", phantom.labels)):
        volume = nib.Nifti1Image(array, phantom.affine)
        volume.set_qform(phantom.affine, code="scanner")
        volume.set_sform(phantom.affine, code="scanner")
        volume.header.set_xyzt_units("mm", "unknown")
        with files.errors_name(folder / part / name):
            nib.save(volume, folder / part / name)


def run() -> None:
    """Runs the command."""
    define_flags()
    command.start(main)


if __name__ == "__main__":
    run()
