"""Sheets of overlays: their files, slices, orientation and colours."""

import builtins
import dataclasses
import json
import os
import pathlib
import shutil
import subprocess
import sys
from unittest import mock

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import toy
from matplotlib import colors, image

from u2net_tf.errors import StoppedError
from u2net_tf.visualization import figures, overlays, slices
from u2net_tf.visualization.label_names import LabelNames
from u2net_tf.visualization.overlay_cases import OverlayCase, find_cases
from u2net_tf.volumes.class_colours import CLASS_COLOURS, class_colour

SHAPE = (20, 16, 8)
RED, BLUE = (colors.to_rgb(colour) for colour in CLASS_COLOURS[:2])


def _save(path, array, affine=None):
    path.parent.mkdir(parents=True, exist_ok=True)
    affine = np.diag([1.0, 1.0, 3.0, 1.0]) if affine is None else affine
    nib.save(nib.Nifti1Image(array, affine), path)
    return path


def _box(low, high, *, value=1, shape=SHAPE):
    labels = np.zeros(shape, np.uint8)
    labels[tuple(map(slice, low, high))] = value
    return labels


def _noise(shape=SHAPE):
    return np.random.default_rng(0).normal(100, 20, shape).astype(np.float32)


@pytest.fixture
def case(tmp_path):
    """The reference is right and anterior, the prediction left and posterior."""
    return OverlayCase(
        name="one",
        image_path=_save(tmp_path / "image.nii.gz", _noise()),
        reference_path=_save(
            tmp_path / "reference.nii.gz", _box((12, 10, 2), (17, 14, 4))
        ),
        prediction_path=_save(
            tmp_path / "prediction.nii.gz", _box((2, 2, 2), (7, 6, 4), value=2)
        ),
    )


def _draw(cases, tmp_path):
    output = tmp_path / "pictures" / "sheet.png"
    overlays.draw_overlays(cases, output)
    assert [path.name for path in output.parent.iterdir()] == ["sheet.png"]
    return image.imread(output)[..., :3]


def _panels(sheet, num_rows=1):
    """The sheet without legend and names, split into rows of three columns."""
    body = sheet[:-45, 40:]
    return [np.array_split(row, 3, axis=1) for row in np.array_split(body, num_rows)]


def _pixels_of(panel, colour):
    """Rows and columns of the pixels of a colour."""
    return np.nonzero(np.abs(panel - np.array(colour)).max(axis=-1) < 0.1)


def _count(panel, colour):
    return len(_pixels_of(panel, colour)[0])


def test_each_column_shows_its_own_labels_in_their_colour(case, tmp_path):
    ((plain, reference, prediction),) = _panels(_draw([case], tmp_path))
    assert _count(plain, RED) == _count(plain, BLUE) == 0
    assert _count(reference, RED) > 50
    assert _count(reference, BLUE) == 0
    assert _count(prediction, BLUE) > 50
    assert _count(prediction, RED) == 0


def test_right_is_on_the_left_and_the_front_on_top(case, tmp_path):
    ((_, reference, prediction),) = _panels(_draw([case], tmp_path))
    (rows_right, columns_right) = _pixels_of(reference, RED)
    (rows_left, columns_left) = _pixels_of(prediction, BLUE)
    assert columns_right.mean() < columns_left.mean() - 30
    assert rows_right.mean() < rows_left.mean() - 30


def test_a_name_need_not_be_utf8(case, tmp_path):
    _draw([dataclasses.replace(case, name=os.fsdecode(b"\xff"))], tmp_path)


def test_the_legend_names_the_classes(case, tmp_path):
    legend = _draw([case], tmp_path)[-45:]
    assert _count(legend, RED) > 10
    assert _count(legend, BLUE) > 10


def test_voxels_without_annotation_are_not_scored(case, tmp_path):
    names = LabelNames("", (((1,), "organ"),), ignore_label=9)
    reference = _box((2, 2, 2), (7, 6, 4))
    reference[:, :, 3:] = 9
    prediction = _box((2, 2, 2), (7, 6, 8))
    marked = dataclasses.replace(
        case,
        label_names=names,
        reference_path=_save(tmp_path / "r.nii.gz", reference),
        prediction_path=_save(tmp_path / "p.nii.gz", prediction),
    )
    with mock.patch.object(figures, "save_figure") as save:
        overlays.draw_overlays([marked], tmp_path / "sheet.png")
    figure = save.call_args.args[0]
    (title,) = [row.get_suptitle() for row in figure.subfigs[:-1]]
    # Slice 3 is the only one with annotated foreground.
    assert title == "one, slice 3 of 8: Dice organ 1.000"
    _, legend = figure.subfigs
    assert [text.get_text()[1:] for text in legend.legends[0].get_texts()] == ["organ"]


class TestNames:
    @pytest.fixture
    def drawn(self, monkeypatch, tmp_path):
        """Draws cases; returns the lines above them and the entries of the legend."""

        def draw(cases):
            figures_drawn = []
            monkeypatch.setattr(
                figures, "save_figure", lambda figure, _: figures_drawn.append(figure)
            )
            overlays.draw_overlays(cases, tmp_path / "sheet.png")
            *rows, last = figures_drawn[0].subfigs
            texts = [text.get_text()[1:] for text in last.legends[0].get_texts()]
            colours = [line.get_color() for line in last.legends[0].get_lines()]
            titles = [row.get_suptitle() for row in rows]
            return titles, dict(zip(texts, colours, strict=True))

        return draw

    @pytest.fixture
    def raw(self, tmp_path):
        """A folder of raw data of one domain, and predictions in another folder."""
        folder = tmp_path / "raw" / "Task92_Two"
        labels = _box((2, 2, 2), (6, 6, 4), value=4) + _box(
            (6, 2, 2), (10, 6, 4), value=7
        )
        _save(folder / "imagesTr" / "two_0.nii.gz", _noise())
        _save(folder / "labelsTr" / "two_0.nii.gz", labels)
        # Covers half of each class; all of it is predicted as the first.
        predicted = _box((2, 2, 2), (10, 4, 4), value=4)
        _save(tmp_path / "predicted" / "two_0.nii.gz", predicted)
        names = {"0": "background", "2": "core", "4": "rim", "7": "edge"}
        (folder / "dataset.json").write_text(json.dumps({"labels": names}))
        return [
            [str(path)]
            for path in (
                folder / "imagesTr",
                folder / "labelsTr",
                tmp_path / "predicted",
            )
        ]

    def test_of_dataset_json(self, raw, drawn):
        titles, legend = drawn(find_cases(*raw, max_cases=1))
        # |A∩B| = 16, |A| = 32, |B| = 32 of the class 4.
        assert titles == [
            "Task92_Two, two_0, slice 3 of 8: Dice core –, rim 0.500, edge 0.000"
        ]
        colours = {"rim": class_colour(4), "edge": class_colour(7)}
        assert legend == colours

    def test_of_a_plan(self, raw, drawn):
        found = find_cases(*raw, max_cases=1, plan=toy.PLAN)
        titles, legend = drawn(found)
        # The classes 4 and 7 are one: |A∩B| = 32, |A| = 64, |B| = 32.
        assert titles == ["Task92_Two, two_0, slice 3 of 8: Dice core –, rim 0.667"]
        assert legend == {"rim": class_colour(4)}

    def test_of_several_domains(self, raw, case, drawn):
        (two,) = find_cases(*raw, max_cases=1)
        titles, legend = drawn([two, case])
        assert titles[1] == "one, slice 3 of 8: Dice value 1 0.000, value 2 0.000"
        assert list(legend) == [
            "Task92_Two: rim",
            "Task92_Two: edge",
            "value 1",
            "value 2",
        ]

    def test_without_a_reference(self, raw, drawn):
        image, _, predicted = raw
        (found,) = find_cases(image, [], predicted, max_cases=1)
        titles, _ = drawn([found])
        assert titles == ["Task92_Two, two_0, slice 3 of 8"]

    def test_long_names_of_classes_are_shortened(self, case, drawn):
        """Not replaced by "…", although they have no spaces to break them at."""
        names = (f"left_{'x' * 50}_1", f"left_{'x' * 50}_2")
        classes = tuple(((n,), name) for n, name in enumerate(names, 1))
        long = dataclasses.replace(case, label_names=LabelNames("All", classes))
        (title,), legend = drawn([long])
        dice = "Dice left_xxxxx…xxxxxxx_1 0.000, left_xxxxx…xxxxxxx_2 0.000"
        assert title.endswith(dice)
        x = "x" * 15
        assert list(legend) == [f"left_{x}…{x}xx_{n}" for n in (1, 2)]

    def test_many_classes_have_one_score(self, case, drawn):
        classes = tuple(((n,), f"class_{n}") for n in range(1, 40))
        titles, _ = drawn(
            [dataclasses.replace(case, label_names=LabelNames("All", classes))]
        )
        assert titles == ["All, one, slice 3 of 8: mean Dice 0.000 of 2 classes"]

    def test_a_faulty_dataset_json_is_a_warning(self, raw, caplog):
        path = pathlib.Path(raw[0][0]).parent / "dataset.json"
        for text in ("[]", "no JSON"):
            path.write_text(text)
            (found,) = find_cases(*raw, max_cases=1)
            assert found.label_names == LabelNames("Task92_Two")
            assert "dataset.json" in caplog.text
            assert "classes are shown by their values" in caplog.text

    def test_a_plan_of_other_domains(self, case):
        paths = (case.image_path, case.reference_path, case.prediction_path)
        with pytest.raises(ValueError, match="`plan`: expected a domain named .* or "):
            find_cases(*([str(path)] for path in paths), max_cases=1, plan=toy.PLAN)

    def test_the_folder_of_predictions_names_the_domain(self, case, tmp_path):
        folder = tmp_path / "elsewhere" / "Task91_One"
        folder.mkdir(parents=True)
        prediction = shutil.copy(case.prediction_path, folder)
        (found,) = find_cases(
            [str(case.image_path)], [], [prediction], max_cases=1, plan=toy.PLAN
        )
        assert found.label_names == LabelNames("Task91_One", (((1,), "organ"),))


def test_pictures_do_not_depend_on_how_the_file_is_stored(case, tmp_path):
    upright = _draw([case], tmp_path)
    to_lps = nib.orientations.axcodes2ornt("LPS")
    for path in (case.image_path, case.reference_path, case.prediction_path):
        nib.save(nib.load(path).as_reoriented(to_lps), path)
    np.testing.assert_array_equal(_draw([case], tmp_path), upright)


@pytest.mark.parametrize("spacing_y", [1.0, 2.0])
def test_pixels_have_their_physical_shape(tmp_path, spacing_y):
    affine = np.diag([1.0, spacing_y, 3.0, 1.0])
    # A box of 8 x 8 voxels is as high as it is wide, or twice as high.
    labels = _box((6, 4, 2), (14, 12, 4))
    label_path = _save(tmp_path / "labels.nii.gz", labels, affine)
    drawn = OverlayCase(
        "one", _save(tmp_path / "i.nii.gz", _noise(), affine), label_path, label_path
    )
    ((_, reference, _),) = _panels(_draw([drawn], tmp_path))
    rows, columns = _pixels_of(reference, RED)
    assert np.ptp(rows) / np.ptp(columns) == pytest.approx(spacing_y, rel=0.05)


def test_the_slice_has_most_foreground():
    labels = _box((1, 2, 2), (7, 4, 4), shape=SHAPE[::-1])
    labels[5, 2:9, 2:9] = 2
    assert slices.choose_slice(labels) == 5
    assert slices.choose_slice(np.zeros_like(labels)) == 4
    assert slices.choose_slice(labels.transpose(1, 0, 2), along=1) == 5


def test_the_reference_determines_the_slice(case, tmp_path):
    # The prediction has no voxel in the slice of the reference.
    _save(case.prediction_path, _box((2, 2, 6), (18, 14, 8), value=2))
    ((_, reference, prediction),) = _panels(_draw([case], tmp_path))
    assert _count(reference, RED) > 50
    assert _count(prediction, BLUE) == 0


def test_without_a_reference_the_prediction_determines_the_slice(case, tmp_path):
    alone = OverlayCase("one", case.image_path, None, case.prediction_path)
    ((_, reference, prediction),) = _panels(_draw([alone], tmp_path))
    assert _count(reference, BLUE) == 0
    assert _count(prediction, BLUE) > 50


def test_a_row_for_each_case_and_only_the_first_modality(case, tmp_path):
    ct_and_noise = np.stack([_noise(), np.full(SHAPE, np.float32(1e6))], axis=-1)
    other = OverlayCase(
        "two",
        _save(tmp_path / "two.nii.gz", ct_and_noise),
        case.prediction_path,
        case.reference_path,
    )
    first, second = _panels(_draw([case, other], tmp_path), num_rows=2)
    assert _count(first[1], RED) > 50
    assert _count(second[1], BLUE) > 50
    # The constant second modality is not shown: both images are the same noise.
    grey = [row[0][40:250, 100:].std() for row in (first, second)]
    assert grey[0] == pytest.approx(grey[1], rel=0.2)


def test_labels_to_the_edge_and_empty_labels_are_drawn(case, tmp_path):
    _save(case.reference_path, np.ones(SHAPE, np.uint8))
    _save(case.prediction_path, np.zeros(SHAPE, np.uint8))
    ((_, reference, prediction),) = _panels(_draw([case], tmp_path))
    assert _count(reference, RED) > 200
    assert _count(prediction, RED) == 0


@pytest.mark.parametrize(
    ("shape", "shift", "named"),
    [((20, 16, 9), 0.0, "shape"), (SHAPE, 2.0, "the affine of")],
    ids=["shape", "affine"],
)
def test_labels_on_another_grid_are_refused(case, tmp_path, shape, shift, named):
    affine = np.diag([1.0, 1.0, 3.0, 1.0])
    affine[0, 3] = shift
    _save(case.prediction_path, _box((2, 2, 2), (4, 4, 4), shape=shape), affine)
    with pytest.raises(ValueError, match=rf"prediction\.nii\.gz: expected {named}"):
        _draw([case], tmp_path)
    assert not (tmp_path / "pictures").exists()


def test_invalid_arguments_are_reported(case, tmp_path):
    with pytest.raises(ValueError, match="cases"):
        overlays.draw_overlays([], tmp_path / "sheet.png")
    with pytest.raises(ValueError, match=r"sheet\.jpg"):
        overlays.draw_overlays([case], tmp_path / "sheet.jpg")
    case.image_path.write_bytes(b"no scan")
    with pytest.raises(ValueError, match=r"image\.nii\.gz: expected a readable"):
        _draw([case], tmp_path)


def test_missing_matplotlib_names_the_extra(case, tmp_path, monkeypatch):
    real_import = builtins.__import__

    def refuse(name, *rest):
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return real_import(name, *rest)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(StoppedError, match=r"u2net-tf\[pictures\]"):
        overlays.draw_overlays([case], tmp_path / "sheet.png")


def test_the_window_covers_the_organ_and_not_the_air():
    plane = np.full((40, 40), -1000.0)
    plane[3:37, 3:37] = np.linspace(0, 100, 34 * 34).reshape(34, 34)
    foreground = plane > 40
    low, high = slices.choose_window(plane, foreground)
    assert -300 < low < 10
    assert 90 < high <= 100
    # Without foreground, the window is that of the whole slice, even of a constant one.
    window = slices.choose_window(plane, plane > 200)
    assert window == slices.percentile_window(plane)
    low, high = slices.choose_window(plane * 0, plane > 200)
    assert low < high


@pytest.fixture
def folders(tmp_path):
    """Three images and references, two predictions, and a hidden file."""
    for name in ("a", "b", "c"):
        _save(tmp_path / "images" / f"{name}.nii.gz", _noise())
        _save(tmp_path / "labels" / f"{name}.nii.gz", _box((2, 2, 2), (9, 9, 4)))
    for name in ("b", "c"):
        _save(tmp_path / "predicted" / f"{name}.nii.gz", _box((2, 2, 2), (9, 9, 4)))
    (tmp_path / "images" / "._b.nii.gz").write_bytes(b"")
    return [str(tmp_path / name) for name in ("images", "labels", "predicted")]


def test_files_with_the_same_name_belong_together(folders):
    images, labels, predicted = folders
    cases = find_cases([images], [labels], [predicted], max_cases=4)
    assert [case.name for case in cases] == ["b", "c"]
    assert str(cases[0].reference_path) == f"{labels}/b.nii.gz"
    assert str(cases[0].prediction_path) == f"{predicted}/b.nii.gz"
    none = find_cases([images], [], [predicted], max_cases=4)
    assert [case.reference_path for case in none] == [None, None]


def test_formats_may_differ_and_look_the_same(folders, tmp_path):
    images, labels, predicted = folders
    expected = _draw(find_cases([images], [labels], [predicted], max_cases=1), tmp_path)
    for folder, suffix in ((images, "nrrd"), (predicted, "mha")):
        path = pathlib.Path(folder) / "b.nii.gz"
        sitk.WriteImage(sitk.ReadImage(path), path.with_name(f"b.{suffix}"))
        path.unlink()
    (case,) = find_cases([images], [labels], [predicted], max_cases=1)
    assert case.image_path.name == "b.nrrd"
    np.testing.assert_array_equal(_draw([case], tmp_path), expected)
    shutil.copy(case.image_path, f"{images}/c.nrrd")
    message = r"`image`: expected one volume with each name. .*c.nii.gz and .*c.nrrd"
    with pytest.raises(ValueError, match=message):
        find_cases([images], [labels], [predicted], max_cases=1)


def test_at_most_max_cases_of_each_folder(folders):
    images, labels, predicted = folders
    cases = find_cases([images] * 2, [labels, ""], [predicted] * 2, max_cases=1)
    assert [case.name for case in cases] == ["b", "b"]
    assert cases[1].reference_path is None


def test_single_files_may_have_any_name(case):
    paths = (case.image_path, case.reference_path, case.prediction_path)
    (found,) = find_cases(*([str(p)] for p in paths), max_cases=4)
    assert (found.image_path, found.reference_path, found.prediction_path) == paths


def test_arguments_that_do_not_match_are_reported(folders, tmp_path):
    images, labels, predicted = folders
    with pytest.raises(ValueError, match="Received: 2, 2, 1"):
        find_cases([images] * 2, [], [predicted], max_cases=4)
    with pytest.raises(FileNotFoundError, match="`prediction`: .*nowhere"):
        find_cases([images], [], [f"{tmp_path}/nowhere"], max_cases=4)
    (tmp_path / "labels" / "b.nii.gz").unlink()
    with pytest.raises(FileNotFoundError, match=r"`reference`: no b in "):
        find_cases([images], [labels], [predicted], max_cases=4)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="`image`: .*empty"):
        find_cases([f"{tmp_path}/empty"], [], [predicted], max_cases=4)


def test_flags_reach_the_sheet(folders, tmp_path):
    images, labels, predicted = folders
    output = tmp_path / "sheet.png"
    done = subprocess.run(
        [
            *(sys.executable, "-m", "u2net_tf.draw_overlays"),
            *(f"--image={images}", f"--reference={labels}"),
            *(f"--prediction={predicted}", f"--output={output}", "--cases=1"),
        ],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{output}: drew b\n"
    ((_, reference, prediction),) = _panels(image.imread(output)[..., :3])
    assert _count(reference, RED) > 50
    assert _count(prediction, RED) > 50
