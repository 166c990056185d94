"""The sheet shows patches before and after the augmentation that the flags specify."""

import dataclasses
import re

import numpy as np
import pytest
from absl import flags
from command_server import CommandServer
from matplotlib import colors, image

from data_prep.config import ConversionConfig
from data_prep.convert.convert_domains import convert
from u2net_tf import command_flags, show_augmentations
from u2net_tf.config.augmentation import AugmentationConfig
from u2net_tf.config.data import DataConfig, SamplingConfig
from u2net_tf.config.visualization import ContactSheetConfig
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.labels import Label
from u2net_tf.shards.manifest import load_converted
from u2net_tf.visualization import contact_sheet
from u2net_tf.volumes.class_colours import CLASS_COLOURS

RED = colors.to_rgb(CLASS_COLOURS[0])
DOMAIN = Domain(
    name="Task90_Thick",
    raw_dir="none",
    modalities=("T2", "ADC"),
    labels=(Label("background", (0,)), Label("organ", (1,))),
    spacing_mm=(4.0, 1.0, 1.0),
    median_shape=(8, 24, 24),
    patch_size=(8, 24, 24),
    pools=(1, 1, 1),
    batch_size=1,
)


def make_patch(box, size=(8, 24, 24)):
    """Makes an organ that fills a box and is bright only in the second modality."""
    labels = np.zeros(size, np.uint8)
    labels[box] = 1
    picture = np.stack([np.zeros(size), labels], axis=-1).astype(np.float32)
    return contact_sheet.Patch(picture, labels, "case_0")


def draw(tmp_path, pair, **keywords):
    output = tmp_path / "sheet.png"
    contact_sheet.draw_sheet([pair], DOMAIN, output, **keywords)
    return image.imread(output)[..., :3]


def sizes_of_outlines(picture):
    """Height and width in pixels of the outline in each quarter of the sheet."""
    found = []
    for part in np.array_split(picture, 4, axis=1):
        rows, columns = np.nonzero(np.abs(part - RED).max(axis=-1) < 0.3)
        found.append((np.ptp(rows), np.ptp(columns)))
    return np.array(found)


def test_each_picture_shows_its_patch_in_millimetres(tmp_path):
    before = make_patch(np.s_[2:5, 4:16, 6:12])
    after = make_patch(np.s_[2:5, 4:10, 6:12])
    heights, widths = sizes_of_outlines(draw(tmp_path, (before, after))).T
    # Axial: 12 by 6 mm and 6 by 6 mm. Coronal: 3 slices of 4 mm, by 6 mm.
    np.testing.assert_allclose(heights / widths, [2, 1, 2, 2], rtol=0.1)


def test_right_is_on_the_left_and_the_front_on_top(tmp_path):
    corner = make_patch(np.s_[:, 20:, 20:])
    picture = draw(tmp_path, (corner, corner))
    axial = np.array_split(picture, 4, axis=1)[0]
    rows, columns = np.nonzero(np.abs(axial - RED).max(axis=-1) < 0.3)
    assert rows.mean() < axial.shape[0] / 2
    assert columns.mean() < axial.shape[1] / 2


def test_shows_the_requested_modality(tmp_path):
    pair = (make_patch(np.s_[2:5, 4:20, 4:20]),) * 2
    dark, bright = (
        (draw(tmp_path, pair, modality=number)[40:-40, 40:200].min(axis=-1) > 0.9).sum()
        for number in (0, 1)
    )
    assert bright > dark + 1000


def test_pairs_show_the_same_patch(tiny_data):
    plan, (manifest,) = load_converted(str(tiny_data.data_dir), ["Task92_Two"])
    settings = DataConfig(
        data_dir=str(tiny_data.data_dir),
        batch_size=1,
        sampling=SamplingConfig(oversample_foreground_fraction=1),
        augmentation=AugmentationConfig(
            mirror_probability=0, brightness_probability=1, brightness=(2.0, 2.0)
        ),
    )
    pairs = show_augmentations.take_pairs(plan.domains[0], manifest, settings, count=3)
    assert len(pairs) == 3
    for before, after in pairs:
        assert before.case == after.case
        assert before.labels.any()
        np.testing.assert_array_equal(before.labels, after.labels)
        np.testing.assert_allclose(after.image, 2 * before.image, rtol=1e-6)


def test_voxels_without_annotation_are_background():
    batch = {
        "image": np.ones((1, 2, 2, 2, 1)),
        "labels": np.array([[[[0, 1], [2, 2]]] * 2], np.uint8),
        "case": np.array([b"a"]),
    }
    batch["labels"].flags.writeable = False
    domain = dataclasses.replace(DOMAIN, ignore_label=9)
    patch = show_augmentations._first(batch, domain)
    assert patch.labels[0].tolist() == [[0, 1], [0, 0]]
    assert patch.case == "a"


def test_cases_of_all_folds_are_drawn(tiny_data, tmp_path, monkeypatch):
    domain = tiny_data.plan.domains[0]
    folds = tuple((case,) for case in (*domain.train, *domain.validation))
    plan = Plan((dataclasses.replace(domain, train=(), validation=(), folds=folds),))
    folder = str(tmp_path / "data")
    convert(plan, ConversionConfig(data_dir=folder, num_workers=1))
    drawn = []
    monkeypatch.setattr(
        contact_sheet, "draw_sheet", lambda pairs, *_, **__: drawn.extend(pairs)
    )
    config = ContactSheetConfig(
        data=DataConfig(data_dir=folder),
        domain=domain.name,
        num_patches=12,
        output=str(tmp_path / "sheet.png"),
    )
    show_augmentations.main(config)
    assert {before.case for before, _ in drawn} == {case for (case,) in folds}


@pytest.mark.slow
def test_command(run_command, tiny_data, tmp_path):
    common = {"data_dir": tiny_data.data_dir, "domain": "Task91_One", "num_patches": 2}
    output = tmp_path / "sheet.png"
    done = run_command(
        "u2net_tf.show_augmentations",
        **common,
        output=output,
        patch_size="8,8,8",
        resize_method="cubic",
        seed=3,
        mirror_probability=1,
        rotation_probability=1,
    )
    assert done.stdout == f"{output}: drew 2 patches of Task91_One\n"
    assert image.imread(output).ndim == 3


@pytest.mark.parametrize(
    ("given", "expected", "count", "modality"),
    [
        ({}, {"sampling": SamplingConfig(oversample_foreground_fraction=1)}, 6, 0),
        (
            {
                "num_patches": 3,
                "modality": 1,
                "seed": 5,
                "mirror_probability": 0.7,
                "patch_size": "8,4,16",
                "resize_method": "cubic",
                "rotation_probability": 0.2,
                "gamma": "1.1,1.2",
            },
            {
                "seed": 5,
                "sampling": SamplingConfig(oversample_foreground_fraction=1),
                "patch_size": (8, 4, 16),
                "resize_method": "cubic",
                "augmentation": AugmentationConfig(
                    mirror_probability=0.7, rotation_probability=0.2, gamma=(1.1, 1.2)
                ),
            },
            3,
            1,
        ),
    ],
    ids=["defaults", "others"],
)
def test_flags_reach_their_functions(
    monkeypatch, tiny_data, tmp_path, given, expected, count, modality
):
    calls, pairs = {}, object()

    def take_pairs(*arguments, **keywords):
        calls["take_pairs"] = arguments, keywords
        return pairs

    def draw_sheet(*arguments, **keywords):
        calls["draw_sheet"] = arguments, keywords

    monkeypatch.setattr(show_augmentations, "take_pairs", take_pairs)
    monkeypatch.setattr(contact_sheet, "draw_sheet", draw_sheet)
    data_dir, output = str(tiny_data.data_dir), tmp_path / "sheet.png"
    given = {"data_dir": data_dir, "domain": "Task92_Two", "output": output, **given}
    values = flags.FlagValues()
    command_flags.define(ContactSheetConfig, values=values)
    values(["test", *(f"--{name}={value}" for name, value in given.items())])
    show_augmentations.main(command_flags.read(ContactSheetConfig, values=values))
    plan, (manifest,) = load_converted(data_dir, ["Task92_Two"])
    (domain,) = plan.domains
    settings = DataConfig(data_dir=data_dir, batch_size=1, **expected)
    assert calls == {
        "take_pairs": ((domain, manifest, settings), {"count": count}),
        "draw_sheet": ((pairs, domain, output), {"modality": modality}),
    }


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"modality": 5}, "--modality: expected at most 0"),
        (
            {"mirror_probability": 2},
            r"--mirror_probability: expected a number in the range \[0, 1\]",
        ),
        (
            {"scale": "1,a"},
            "--scale: expected two numbers lowest,highest. Received: 1,a",
        ),
        ({"gamma": "2,1"}, "gamma: expected .lowest, highest.*Received: .2.0, 1.0."),
        ({"output": "sheet.jpg"}, "--output: expected FILE.png"),
        ({"domain": "Task99"}, "domain 'Task99': expected one of"),
    ],
)
def test_wrong_flags_are_reported(run_warm, tiny_data, tmp_path, wrong, words):
    given = {
        "data_dir": tiny_data.data_dir,
        "domain": "Task91_One",
        "output": tmp_path / "sheet.png",
    }
    done = run_warm("u2net_tf.show_augmentations", status=1, **given | wrong)
    assert re.search(words, done.stderr)
    assert not (tmp_path / "sheet.png").exists()


def test_help_answers_without_the_libraries():
    watched = ("tensorflow", "matplotlib")
    with CommandServer() as server:
        done = server.run("u2net_tf.show_augmentations", "--help", watched=watched)
    assert done.imported == []
    assert "--rotation_probability" in done.stdout
