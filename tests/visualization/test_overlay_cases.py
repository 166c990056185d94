"""Cases that the `dataset.json` next to a folder of images lists."""

import dataclasses
import json

import pytest
import toy

from u2net_tf.plan.domains import Plan
from u2net_tf.visualization.label_names import LabelNames
from u2net_tf.visualization.overlay_cases import find_cases


@pytest.fixture
def write(tmp_path):
    """Writes empty files and `dataset.json`; returns the arguments of `find_cases`."""

    def write(images, labels, predictions, /, **content):
        folders = [tmp_path / "raw" / name for name in ("imagesTr", "labelsTr")]
        folders.append(tmp_path / "predicted")
        for folder, names in zip(folders, (images, labels, predictions), strict=True):
            for name in names:
                path = folder / f"{name}.nii.gz"
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()
        content = {"labels": {"background": 0, "organ": 1}, **content}
        (tmp_path / "raw" / "dataset.json").write_text(json.dumps(content))
        return [[str(folder)] for folder in folders]

    return write


def found(arguments):
    """Name -> image, reference and prediction, relative to the folders."""
    return {
        case.name: tuple(
            path.relative_to(folder).as_posix().removesuffix(".nii.gz")
            for path, (folder,) in zip(
                (case.image_path, case.reference_path, case.prediction_path),
                arguments,
                strict=True,
            )
        )
        for case in find_cases(*arguments, max_cases=4)
    }


def nnunet_1(cases, *modalities):
    return {"modality": dict(enumerate(modalities)), "training": rows(cases)}


def nnunet_2(cases, *modalities):
    del cases
    return {"channel_names": dict(enumerate(modalities)), "file_ending": ".nii.gz"}


def rows(names, image="{}", label="{}"):
    return [
        {
            "image": f"./imagesTr/{image.format(name)}.nii.gz",
            "label": f"./labelsTr/{label.format(name)}.nii.gz",
        }
        for name in names
    ]


VERSIONS = pytest.mark.parametrize("version", [nnunet_1, nnunet_2])


@VERSIONS
def test_nnunet_with_one_modality(write, version):
    cases = ("knee", "knee_0001")
    images = [f"{name}_0000" for name in cases]
    arguments = write(images, cases, cases, **version(cases, "CT"))
    assert found(arguments) == {name: (f"{name}_0000", name, name) for name in cases}


@VERSIONS
def test_nnunet_with_several_modalities(write, version):
    cases = ("a", "b")
    images = ["a_0000", "a_0001", "b_0000", "b_0001"]
    arguments = write(images, cases, ["b"], **version(cases, "T2", "ADC"))
    assert found(arguments) == {"b": ("b_0000", "b", "b")}
    # A file may be given by itself, even if it is not the first modality.
    arguments[2][0] += "/b.nii.gz"
    second = f"{arguments[0][0]}/b_0001.nii.gz"
    (case,) = find_cases([second], [], arguments[2], max_cases=1)
    assert (str(case.image_path), case.name) == (second, "b_0001")
    first = f"{arguments[0][0]}/b_0000.nii.gz"
    (case,) = find_cases([first], arguments[1], arguments[2], max_cases=1)
    assert (str(case.image_path), case.name) == (first, "b")


def test_a_folder_per_patient(write):
    arguments = write(
        ["a/ct", "b/ct"],
        ["a/seg", "b/seg"],
        ["b", "ct"],
        modality={"0": "CT"},
        training=rows("ab", "{}/ct", "{}/seg"),
    )
    assert found(arguments) == {"b": ("b/ct", "b/seg", "b")}


def test_predictions_named_like_the_images(write):
    content = nnunet_2("ab", "CT")
    arguments = write(["a_0000", "b_0000"], "ab", ["a_0000", "b", "b_0000"], **content)
    assert found(arguments) == {"a": ("a_0000", "a", "a_0000"), "b": ("b_0000", *"bb")}


def test_other_cases_are_named_like_their_files(write):
    arguments = write(["a_0000", "b"], "ab", "ab", **nnunet_1("a", "CT"))
    assert found(arguments) == {"a": ("a_0000", *"aa"), "b": ("b",) * 3}


def test_missing_images_are_skipped(write):
    arguments = write("b", "ab", "ab", **nnunet_1("ab", "CT"))
    assert found(arguments) == {"b": ("b",) * 3}


def test_references_may_be_elsewhere(write):
    arguments = write(["a_0000"], "a", "a", **nnunet_1("a", "CT"))
    arguments[1] = arguments[2]
    assert found(arguments) == {"a": ("a_0000", *"aa")}


def test_folders_may_be_relative(write, tmp_path, monkeypatch):
    _, _, predicted = write(["a_0000"], "a", "a", **nnunet_1("a", "CT"))
    monkeypatch.chdir(tmp_path / "raw")
    (case,) = find_cases(["imagesTr"], ["labelsTr"], predicted, max_cases=1)
    assert case.image_path.samefile("imagesTr/a_0000.nii.gz")


def test_label_maps_may_be_named_like_the_images(write, tmp_path):
    """As `predict` names them, also if two of its outputs are compared."""
    names = [f"{case}_0000" for case in "ab"]
    images, _, predictions = write(names, "ab", names, **nnunet_1("ab", "CT"))
    other = tmp_path / "other"
    other.mkdir()
    for name in names:
        (other / f"{name}.nii.gz").touch()
    arguments = [images, [str(other)], predictions]
    assert found(arguments) == {case: (f"{case}_0000",) * 3 for case in "ab"}
    # A single image, and folders of label maps.
    image = f"{images[0]}/a_0000.nii.gz"
    (case,) = find_cases([image], [str(other)], predictions, max_cases=4)
    assert (case.name, case.prediction_path.name) == ("a", "a_0000.nii.gz")


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".SEG.NRRD", ".nrrd", ".mha"])
def test_label_maps_may_have_another_format(write, tmp_path, suffix):
    """Such as that of 3D Slicer, which `predict` can write."""
    arguments = write("ab", [], [])
    places = ((1, "other", "a"), (1, "other", "b"), (2, "slicer", "a"))
    for position, folder, case in places:
        path = tmp_path / folder / f"{case}{suffix}"
        path.parent.mkdir(exist_ok=True)
        path.touch()
        arguments[position] = [str(path.parent)]
    (case,) = find_cases(*arguments, max_cases=4)
    assert case.name == "a"
    assert case.image_path.name == "a.nii.gz"
    assert case.reference_path == tmp_path / "other" / f"a{suffix}"
    assert case.prediction_path == tmp_path / "slicer" / f"a{suffix}"


def test_the_ignore_label_is_that_of_dataset_json_or_plan(write):
    labels = {"background": 0, "organ": 1, "ignore": 7}
    arguments = write(
        ["knee_0000"], ["knee"], ["knee"], labels=labels, **nnunet_2((), "CT")
    )
    (case,) = find_cases(*arguments, max_cases=1)
    assert case.label_names == LabelNames("raw", (((1,), "organ"),), ignore_label=7)
    plan = Plan((dataclasses.replace(toy.ONE, name="raw", ignore_label=9),))
    (case,) = find_cases(*arguments, max_cases=1, plan=plan)
    assert case.label_names.ignore_label == 9
