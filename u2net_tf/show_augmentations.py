r"""Draws a contact sheet of patches before and after augmentation.

  python -m u2net_tf.show_augmentations --data_dir=shards --domain=Task01 \
      --rotation_probability=1 --elastic_probability=1 --output=sheet.png

Accepts the augmentation flags of `u2net_tf.train`; without any of them, patches are
only mirrored. Each row shows a patch around foreground as the network would receive it:
the axial and the coronal slice with the most foreground, in millimetres, with the
outlines of its labels. Needs matplotlib (`pip install 'u2net-tf[pictures]'`).
"""

from __future__ import annotations

import itertools
import pathlib
from typing import TYPE_CHECKING

from u2net_tf import command, machine
from u2net_tf.config.visualization import ContactSheetConfig
from u2net_tf.wording import quantity

if TYPE_CHECKING:
    import numpy as np

    from u2net_tf.config.data import DataConfig
    from u2net_tf.plan.domains import Domain
    from u2net_tf.shards.manifest import Manifest
    from u2net_tf.visualization.contact_sheet import Patch


def main(config: ContactSheetConfig) -> None:
    """Draws the sheet."""
    from u2net_tf.visualization import contact_sheet, figures

    output = pathlib.Path(config.output)
    figures.check_output(output)
    machine.import_tensorflow()
    from u2net_tf.shards.manifest import load_converted

    plan, (manifest,) = load_converted(config.data.data_dir, [config.domain])
    # If the plan has folds, the cases of all of them are training cases.
    (domain,) = plan.with_fold(None).domains
    if config.modality >= domain.num_modalities:
        raise command.InputError(
            "`modality`",
            expected=f"at most {domain.num_modalities - 1} for {domain.name}",
            received=config.modality,
        )
    # Every patch is around foreground.
    settings = config.data.with_changes(
        batch_size=1, oversample_foreground_fraction=1.0
    )
    pairs = take_pairs(domain, manifest, settings, count=config.num_patches)
    contact_sheet.draw_sheet(pairs, domain, output, modality=config.modality)
    patches = quantity(config.num_patches, "patch", "patches")
    print(f"{config.output}: drew {patches} of {domain.name}")


def take_pairs(
    domain: Domain, manifest: Manifest, settings: DataConfig, *, count: int
) -> list[tuple[Patch, Patch]]:
    """Returns patches without and with augmentation.

    Args:
      domain: domain of the patches.
      manifest: manifest of its shards.
      settings: settings of the augmented patches.
      count: number of pairs; they are the first that training would draw.
    """
    from u2net_tf.config.augmentation import AugmentationConfig
    from u2net_tf.input.pipeline import domain_dataset
    from u2net_tf.shards.reading import CaseShards, translate_tf_errors

    off = AugmentationConfig(mirror_probability=0.0)
    still = settings.with_changes(**off.flat())
    before, after = (
        itertools.islice(
            domain_dataset(domain, manifest, chosen).as_numpy_iterator(), count
        )
        for chosen in (still, settings)
    )
    shards = CaseShards(settings.data_dir, domain, manifest, domain.train)
    with translate_tf_errors([shards]):
        return [
            (_first(one, domain), _first(other, domain))
            for one, other in zip(before, after, strict=True)
        ]


def _first(batch: dict[str, np.ndarray], domain: Domain) -> Patch:
    """Returns the first patch; voxels without annotation become background."""
    from u2net_tf.visualization.contact_sheet import Patch

    labels = batch["labels"][0]
    labels = labels * (labels != domain.ignore_index)
    return Patch(batch["image"][0], labels, batch["case"][0].decode())


def run() -> None:
    """Entry point of `u2net-show-augmentations`."""
    command.start(main, ContactSheetConfig)


if __name__ == "__main__":
    run()
