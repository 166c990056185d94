"""Scores of label maps that exist already."""

import contextlib
import dataclasses
import json
import math
import os
import pathlib
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
import toy
from in_process import InProcess
from reading_ahead import PicklingExecutor
from recorded_progress import RecordedProgress

from u2net_tf.config.evaluation import ScoreConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluation import score_label_maps as module
from u2net_tf.evaluation import tables
from u2net_tf.evaluation.comparison import comparison_bytes
from u2net_tf.evaluation.score_label_maps import score_label_maps
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.labels import Region
from u2net_tf.plan.plan_file import plan_to_json

ONE, TWO = toy.ONE.name, toy.TWO.name
# The executor that `score_label_maps` makes by itself.
ON_THIS_MACHINE = object()


def reference(tiny_data, domain, case):
    return tiny_data.raw_dir / domain / "labelsTr" / f"{case}.nii.gz"


def copy_references(tiny_data, folder, domain, cases):
    """Writes predictions that are equal to the references."""
    folder.mkdir(parents=True, exist_ok=True)
    for case in cases:
        shutil.copy(reference(tiny_data, domain, case), folder)
    return folder


def edit(path, change):
    """Replaces the (x, y, z) array of a label map."""
    image = nib.load(path)
    changed = np.ascontiguousarray(change(image.get_fdata().astype(np.uint8)))
    nib.save(nib.Nifti1Image(changed.astype(np.uint8), image.affine), path)


@pytest.fixture
def score(tiny_data, tmp_path):
    """Scores label maps; takes the domains of the plan and settings by name."""

    def call(
        *predictions, plan=None, executor=None, progress=RecordedProgress, **settings
    ):
        path = tmp_path / "plan.json"
        path.write_text(plan_to_json(plan or tiny_data.plan), encoding="utf-8")
        config = ScoreConfig(
            **{
                "predictions": tuple(map(str, predictions)),
                "plan": str(path),
                "output_dir": str(tmp_path / "out"),
                **settings,
            }
        )
        return score_label_maps(
            config,
            executor=None if executor is ON_THIS_MACHINE else executor or InProcess(),
            progress=progress(),
        )

    return call


@pytest.fixture
def folder(tiny_data, tmp_path):
    """Predictions of the test cases of both domains, in a folder for each."""
    for domain in (toy.ONE, toy.TWO):
        place = tmp_path / "predictions" / domain.name
        copy_references(tiny_data, place, domain.name, domain.test)
    return tmp_path / "predictions"


def test_equal_label_maps(score, folder, tmp_path):
    found = score(folder, surface_tolerance_mm=1.0)
    assert [(row.domain, row.label) for row in found.rows] == [
        (ONE, "organ"),
        (TWO, "rim"),
        (TWO, "core"),
    ]
    for row in found.rows:
        assert (row.mean, row.hd95_mm, row.surface_dice) == (1, 0, 1)
    assert (found.num_cases, found.skipped) == (2, {})
    assert found.output_dir == tmp_path / "out"
    summary = tables.SUMMARY.load(tmp_path / "out" / "summary.json")
    assert summary.classes == found.rows
    assert summary.split == "test"
    assert summary.checkpoint == f"label maps in {folder}"
    assert summary.surface_tolerance_mm == 1.0
    # There is no model.
    assert summary.checkpoint_hashes == {}
    assert summary.training_cases is None
    rows = (tmp_path / "out" / "dice.csv").read_text().splitlines()
    assert rows[1].startswith(f"{ONE},one_5,organ,1.000000,")


def test_the_dice_is_that_of_the_formula(score, folder):
    path = folder / TWO / "two_2.nii.gz"
    expected = nib.load(path).get_fdata()
    # Both values of the class are its own.
    edit(path, lambda array: np.where(np.roll(array, 1, axis=0) == 7, 4, 0))
    found = score(folder, domains=(TWO,))
    truth, guess = expected == 7, np.roll(expected, 1, axis=0) == 7
    dice = 2 * (truth & guess).sum() / (truth.sum() + guess.sum())
    assert [row.label for row in found.rows] == ["rim", "core"]
    assert found.rows[0].mean == pytest.approx(dice)
    assert found.rows[1].mean == 0


def test_a_label_map_in_another_format_and_orientation(score, folder):
    path = folder / ONE / "one_5.nii.gz"
    image = SimpleITK.DICOMOrient(SimpleITK.ReadImage(path), "RAI")
    SimpleITK.WriteImage(image, path.with_name("one_5.nrrd"))
    path.unlink()
    assert score(folder, domains=(ONE,)).rows[0].mean == 1


@pytest.mark.parametrize("suffix", [".seg.nrrd", ".SEG.NRRD"])
def test_segmentations_of_slicer(score, folder, suffix):
    """As `predict` writes them with `output_format` seg_nrrd."""
    path = folder / ONE / "one_5.nii.gz"
    written = path.with_name("one_5.seg.nrrd")
    SimpleITK.WriteImage(SimpleITK.ReadImage(path), written)
    written.rename(path.with_name(f"one_5{suffix}"))
    path.unlink()
    found = score(folder, domains=(ONE,))
    assert (found.num_cases, found.rows[0].mean) == (1, 1)
    # Of reference and prediction.
    found = score(folder, domains=(ONE,), references=str(folder))
    assert (found.num_cases, found.rows[0].mean) == (1, 1)


def test_regions_and_ignored_voxels(score, folder, tiny_data, tmp_path):
    moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
    path = moved / TWO / "labelsTr" / "two_2.nii.gz"

    def ignore_half(array):
        array[:7] = 9
        return array

    edit(path, ignore_half)
    # Wrong only where the reference is not annotated.
    edit(folder / TWO / path.name, lambda a: np.where(np.arange(len(a)) < 7, 0, a.T).T)
    two = dataclasses.replace(
        tiny_data.plan.domains[1],
        raw_dir="gone",
        ignore_label=9,
        regions=(Region("all", ("rim", "core")),),
    )
    found = score(
        folder,
        plan=Plan((tiny_data.plan.domains[0], two)),
        raw_dir=str(moved),
        surface_tolerance_mm=0.1,
    )
    assert {row.surface_dice for row in (*found.rows, *found.regions)} == {1}
    assert {row.label: row.mean for row in (*found.rows, *found.regions)} == {
        "organ": 1,
        "rim": 1,
        "core": 1,
        "all": 1,
    }
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["region_classes"] == {f"{TWO}/all": ["rim", "core"]}


@pytest.mark.parametrize("value", [5, 9])
def test_a_value_that_is_no_class(score, folder, tiny_data, value):
    """The plan may treat it as background, but a model does not predict it."""
    one = tiny_data.plan.domains[0]
    one = dataclasses.replace(
        one,
        ignore_label=9,
        preprocessing=dataclasses.replace(
            one.preprocessing, unknown_labels="background"
        ),
    )
    path = folder / ONE / "one_5.nii.gz"
    edit(path, lambda array: np.where(array == 1, value, array))
    with pytest.raises(InputError, match=rf"{path}: .*Received: {value} in 216 voxels"):
        score(folder, plan=Plan((one,)), on_bad_case="fail")


def test_values_that_are_no_integers(score, folder, tiny_data, tmp_path):
    """Those of references are rounded if the plan says so, those of a model are not."""
    moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
    one = tiny_data.plan.domains[0]
    one = dataclasses.replace(
        one,
        preprocessing=dataclasses.replace(one.preprocessing, round_labels=True),
    )
    options = {"plan": Plan((one,)), "raw_dir": str(moved), "on_bad_case": "fail"}
    path = pathlib.Path(ONE, "labelsTr", "one_5.nii.gz")
    image = nib.load(moved / path)
    nib.save(nib.Nifti1Image(image.get_fdata() * 1.0625, image.affine), moved / path)
    assert score(folder, **options).rows[0].mean == 1
    shutil.copy(moved / path, folder / ONE)
    with pytest.raises(InputError, match=rf"{ONE}/one_5.nii.gz: expected"):
        score(folder, **options)


def test_folds_are_scored_together(score, tiny_data, tmp_path):
    first = copy_references(tiny_data, tmp_path / "a" / ONE, ONE, ["one_0", "one_4"])
    second = copy_references(
        tiny_data, tmp_path / "b" / ONE, ONE, ["one_1", "one_2", "one_3"]
    )
    folds = (("one_0", "one_4"), ("one_1", "one_2", "one_3"))
    one = dataclasses.replace(
        tiny_data.plan.domains[0], folds=folds, train=(), validation=()
    )
    plan = Plan((one, tiny_data.plan.domains[1]))
    found = score(first.parent, second.parent, plan=plan, split="train")
    assert (found.num_cases, found.skipped) == (5, {})
    assert found.checkpoint == f"label maps in {first.parent}, {second.parent}"
    found = score(second.parent, plan=plan, split="validation", fold=1)
    assert (found.num_cases, found.skipped) == (3, {})


def test_a_label_map_twice(score, folder, tmp_path):
    other = shutil.copytree(folder, tmp_path / "other")
    path = pathlib.Path(ONE, "one_5.nii.gz")
    words = f"{other / path}: expected one label map of one_5. Received: .* {folder}"
    with pytest.raises(InputError, match=words):
        score(folder, other)
    shutil.copy(folder / path, folder / ONE / "one_5.nii")
    with pytest.raises(InputError, match="expected one label map of one_5"):
        score(folder)


def test_the_names_of_files_of_images(score, folder, tiny_data, tmp_path):
    """As `predict` names the label map of a scan that is named as in nnU-Net."""
    moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved") / ONE
    (moved / "imagesTr" / "one_5.nii.gz").rename(moved / "imagesTr/one_5_0000.nii.gz")
    content = json.loads((moved / "dataset.json").read_text())
    del content["modality"], content["training"]
    content |= {
        "channel_names": {"0": "CT"},
        "labels": {"background": 0, "value 1": 1},
        "file_ending": ".nii.gz",
        "numTraining": 1,
    }
    (moved / "dataset.json").write_text(json.dumps(content))
    for case in (*toy.ONE.train, *toy.ONE.validation):
        (moved / "labelsTr" / f"{case}.nii.gz").unlink()
        (moved / "imagesTr" / f"{case}.nii.gz").unlink()
    options = {"domains": (ONE,), "raw_dir": str(moved.parent)}
    assert score(folder, **options).num_cases == 1
    path = folder / ONE / "one_5.nii.gz"
    shutil.copy(path, path.with_name("one_5_0000.nii.gz"))
    with pytest.raises(InputError, match="expected one label map of one_5"):
        score(folder, **options)
    path.unlink()
    assert score(folder, **options).num_cases == 1


def test_images_of_the_same_name(score, folder, tiny_data, tmp_path):
    """With a folder per patient, a name of an image does not identify a case."""
    moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved") / ONE
    rows, names = [], toy.ONE.test + toy.ONE.train
    for case in names:
        (moved / case).mkdir()
        for kind in ("images", "labels"):
            path = moved / f"{kind}Tr" / f"{case}.nii.gz"
            path.rename(moved / case / f"{kind}.nii.gz")
        rows.append({k: f"{case}/{k}s.nii.gz" for k in ("image", "label")})
    content = json.loads((moved / "dataset.json").read_text())
    (moved / "dataset.json").write_text(json.dumps({**content, "training": rows}))
    one = dataclasses.replace(tiny_data.plan.domains[0], validation=())
    options = {"plan": Plan((one,)), "raw_dir": str(moved.parent)}
    assert score(folder, **options).rows[0].mean == 1
    # Not taken for a second label map of the case.
    path = folder / ONE / "one_5.nii.gz"
    shutil.copy(path, path.with_name("images.nii.gz"))
    assert score(folder, **options).rows[0].mean == 1
    # Nor for that of the only case to score, or of all cases.
    path.unlink()
    for split in ("test", "train"):
        with pytest.raises(InputError, match="expected a label map of one_.*: none"):
            score(folder, **options, split=split, on_bad_case="fail")


class TestCasesThatCannotBeUsed:
    def test_a_missing_label_map(self, score, tiny_data, tmp_path):
        folder = copy_references(tiny_data, tmp_path / "flat", ONE, ["one_0", "one_2"])
        options = {"domains": (ONE,), "split": "train"}
        found = score(folder, **options)
        assert found.num_cases == 2
        assert [*found.skipped] == [f"{ONE}/one_1"]
        words = f"{folder}: expected a label map of one_1. Received: none"
        assert str(found.skipped[f"{ONE}/one_1"]) == words
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert summary["skipped"] == {f"{ONE}/one_1": words}
        with pytest.raises(InputError, match=words):
            score(folder, **options, on_bad_case="fail")

    def test_another_grid(self, score, folder, write_nifti):
        path = folder / ONE / "one_5.nii.gz"
        write_nifti(path, np.zeros((3, 3, 3), np.uint8))
        found = score(folder)
        assert found.num_cases == 1
        assert f"{path}: expected shape" in str(found.skipped[f"{ONE}/one_5"])

    def test_a_reference_on_another_grid(self, score, folder, tiny_data, tmp_path):
        """The grid is that of the image, even if prediction and reference agree."""
        moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
        path = moved / ONE / "imagesTr" / "one_5.nii.gz"
        edit(path, lambda array: array[1:])
        found = score(folder, raw_dir=str(moved))
        assert "labelsTr/one_5.nii.gz: expected shape" in str(
            found.skipped[f"{ONE}/one_5"]
        )

    @pytest.mark.parametrize("what", ["image", "reference", "label map"])
    def test_files_are_checked_before_the_first_comparison(
        self, score, folder, tiny_data, tmp_path, monkeypatch, what
    ):
        moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
        copy_references(tiny_data, folder / ONE, ONE, toy.ONE.train)
        path = {
            "image": moved / ONE / "imagesTr",
            "reference": moved / ONE / "labelsTr",
            "label map": folder / ONE,
        }[what] / "one_2.nii.gz"
        path.write_bytes(b"no scan")
        monkeypatch.setattr(module, "compare", None)
        options = {"domains": (ONE,), "split": "train", "raw_dir": str(moved)}
        with pytest.raises(InputError, match=f"{path}: expected"):
            score(folder, **options, on_bad_case="fail")

    def test_a_damaged_label_map(self, score, folder):
        path = folder / ONE / "one_5.nii.gz"
        path.write_bytes(b"no scan")
        found = score(folder)
        assert str(found.skipped[f"{ONE}/one_5"]).startswith(f"{path}: expected")

    def test_none_can_be_used(self, score, folder, tmp_path):
        path = folder / ONE / "one_5.nii.gz"
        path.write_bytes(b"no scan")
        words = f"`predictions`: expected at least .*The first problem is: {path}"
        with pytest.raises(InputError, match=words):
            score(folder, domains=(ONE,))
        assert not (tmp_path / "out").exists()

    def test_the_split_is_empty(self, score, folder, tiny_data):
        plan = Plan((dataclasses.replace(tiny_data.plan.domains[0], test=()),))
        words = "`split`: expected cases in 'test'. Received: none in the plan"
        with pytest.raises(InputError, match=words):
            score(folder, plan=plan)

    def test_the_memory_limit_of_all_files(self, score, folder, monkeypatch):
        limits = []
        for place, name in ((module.images, "load_header"), (module, "read_labels")):
            original = getattr(place, name)

            def spy(*arguments, original=original, max_memory_gb=None, **options):
                limits.append(max_memory_gb)
                return original(*arguments, max_memory_gb=max_memory_gb, **options)

            monkeypatch.setattr(place, name, spy)
        score(folder, domains=(ONE,), max_memory_gb=3.0)
        # Those of three files and, in a worker process, of the grid and two label maps.
        assert limits == [3.0] * 6

    def test_too_little_memory(self, score, folder):
        with pytest.raises(InputError, match=r"first problem is: .*`max_memory_gb`"):
            score(folder, max_memory_gb=1e-9)


class TestReferences:
    def test_of_cases_that_the_plan_does_not_list(self, score, tiny_data, tmp_path):
        references = copy_references(tiny_data, tmp_path / "truth", ONE, ["one_0"])
        (references / "one_0.nii.gz").rename(references / "new.nii.gz")
        predictions = shutil.copytree(references, tmp_path / "predictions")
        found = score(predictions, domains=(ONE,), references=str(references))
        assert (found.num_cases, found.rows[0].mean) == (1, 1)
        summary = json.loads((tmp_path / "out" / "summary.json").read_text())
        assert summary["split"] is None
        rows = (tmp_path / "out" / "dice.csv").read_text().splitlines()
        assert rows[1].startswith(f"{ONE},new,organ,")

    def test_of_several_domains(self, score, folder):
        with pytest.raises(InputError, match="`references`: expected a single domain"):
            score(folder, references=str(folder))

    @pytest.mark.parametrize(
        ("name", "value"), [("raw_dir", "raw"), ("split", "train"), ("fold", 0)]
    )
    def test_settings_that_choose_cases_of_the_plan(
        self, score, folder, tiny_data, name, value
    ):
        folds = (("one_0", "one_1"), ("one_2",))
        one = dataclasses.replace(
            tiny_data.plan.domains[0], folds=folds, train=(), validation=()
        )
        words = f"`{name}`: expected no value with `references`.* Received: {value}"
        with pytest.raises(InputError, match=words):
            score(folder, plan=Plan((one,)), references=str(folder), **{name: value})


class TestFolders:
    def test_label_maps_that_belong_to_no_case(self, score, folder, tiny_data, caplog):
        copy_references(tiny_data, folder / ONE, ONE, ["one_0", "one_1"])
        assert score(folder).num_cases == 2
        (message,) = caplog.messages
        assert message == (
            f"{folder}: 2 label maps of {ONE}, such as one_0.nii.gz, belong to no case "
            "of the split test and are not scored"
        )

    def test_files_that_are_no_label_maps(self, score, folder, caplog):
        (folder / ONE / "dice.csv").write_text("x")
        (folder / ONE / ".hidden.nii.gz").write_text("x")
        assert score(folder).num_cases == 2
        assert caplog.messages == []

    def test_of_a_single_domain(self, score, folder, tiny_data):
        one = Plan(tiny_data.plan.domains[:1])
        assert score(folder / ONE, plan=one).num_cases == 1
        assert score(folder / ONE, domains=(ONE,)).num_cases == 1
        words = f"`domains`: .*: {ONE}, {TWO}. Received: none, and no folder of such"
        with pytest.raises(InputError, match=words):
            score(folder / ONE)

    def test_domains_with_a_folder_are_scored(self, score, folder):
        shutil.rmtree(folder / ONE)
        assert {row.domain for row in score(folder).rows} == {TWO}

    def test_all_are_listed_before_the_first_comparison(self, score, folder, tmp_path):
        (folder / TWO / "two_2.nii.gz").unlink()
        with pytest.raises(InputError, match=f"{TWO}: expected label maps"):
            score(folder)
        assert not (tmp_path / "out").exists()

    def test_a_domain_that_only_one_folder_has(
        self, score, folder, tiny_data, tmp_path
    ):
        other = copy_references(tiny_data, tmp_path / "other" / ONE, ONE, ["one_0"])
        with pytest.raises(InputError, match=f"other/{TWO}: expected a folder"):
            score(folder, other.parent)

    def test_missing_or_empty(self, score, folder, tmp_path):
        with pytest.raises(InputError, match="none: expected a folder. Received: no s"):
            score(tmp_path / "none", domains=(ONE,))
        with pytest.raises(InputError, match="plan.json: expected a folder.*: a file"):
            score(tmp_path / "plan.json", domains=(ONE,))
        (tmp_path / "empty").mkdir()
        with pytest.raises(InputError, match="empty: expected label maps .*.nii.gz"):
            score(tmp_path / "empty", domains=(ONE,))


class TestRerun:
    @pytest.fixture
    def compared(self, monkeypatch):
        """The label maps that are compared."""
        paths, original = [], module.read_labels

        def read(path, *arguments, **options):
            if options.get("only_classes"):
                paths.append(path)
            return original(path, *arguments, **options)

        monkeypatch.setattr(module, "read_labels", read)
        return paths

    def test_known_scores_are_not_computed_again(self, score, folder, compared):
        first = score(folder, surface_tolerance_mm=1.0)
        assert len(compared) == 2
        assert score(folder, surface_tolerance_mm=1.0) == first
        without = score(folder)
        assert len(compared) == 2
        assert np.isnan([row.hd95_mm for row in without.rows]).all()
        score(folder, surface_tolerance_mm=2.0)
        assert len(compared) == 4

    def test_regions(self, score, folder, tiny_data, compared):
        two = tiny_data.plan.domains[1]
        for names, count in (("rim",), 1), (("rim",), 1), (("rim", "core"), 2):
            regions = (Region("all", names),)
            plan = Plan((dataclasses.replace(two, regions=regions),))
            score(folder, plan=plan)
            assert len(compared) == count

    @pytest.mark.parametrize(
        "change",
        [
            {"ignore_label": 9},
            {"spacing_source": "affine"},
            {"round_labels": True},
            {"unknown_labels": "background"},
        ],
    )
    def test_a_changed_plan(self, score, folder, tiny_data, compared, change):
        one = tiny_data.plan.domains[0]
        if "ignore_label" in change:
            changed = dataclasses.replace(one, **change)
        else:
            preprocessing = dataclasses.replace(one.preprocessing, **change)
            changed = dataclasses.replace(one, preprocessing=preprocessing)
        assert changed != one
        for plan in (one, changed, changed):
            score(folder, plan=Plan((plan,)))
        assert len(compared) == 2

    def test_other_files_of_the_same_size_and_time(
        self, score, folder, compared, tmp_path
    ):
        score(folder)
        # Including the times of modification.
        score(shutil.copytree(folder, tmp_path / "other"))
        assert len(compared) == 4

    def test_changed_files_are_compared_again(
        self, score, folder, tiny_data, compared, tmp_path
    ):
        score(folder)
        edit(folder / ONE / "one_5.nii.gz", np.zeros_like)
        assert score(folder).rows[0].mean == 0
        assert compared[2:] == [folder / ONE / "one_5.nii.gz"]
        # Another reference.
        moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
        edit(moved / TWO / "labelsTr" / "two_2.nii.gz", lambda a: np.where(a, 2, 0))
        assert score(folder, raw_dir=str(moved)).rows[1].mean == 0
        # Other values of the classes.
        two = tiny_data.plan.domains[1]
        labels = (two.labels[0], *(two.labels[i] for i in (2, 1)))
        del compared[:]
        two = dataclasses.replace(two, labels=labels)
        score(folder, plan=Plan((two,)))
        assert compared == [folder / TWO / "two_2.nii.gz"]


def test_worker_processes(score, tiny_data, tmp_path, monkeypatch):
    received = []
    original = module.parallel.workers

    def spy(executor, num_workers, num_cases):
        received.append((num_workers, num_cases))
        return original(executor, num_workers, num_cases)

    monkeypatch.setattr(module.parallel, "workers", spy)
    folder = copy_references(tiny_data, tmp_path / "a", ONE, toy.ONE.train)
    options = {"domains": (ONE,), "split": "train"}
    with PicklingExecutor() as executor:
        found = score(folder, num_workers=3, executor=executor, **options)
    assert found.num_cases == executor.num_calls == 3
    monkeypatch.setattr(module.machine, "num_cores", lambda: 7)
    score(folder, surface_tolerance_mm=1.0, **options)
    assert received == [(3, 3), (7, 3)]


def test_workers_are_limited_by_the_memory(score, tiny_data, tmp_path, monkeypatch):
    chosen = []
    in_this_process = InProcess()

    def workers(executor, num_workers, num_cases):
        chosen.append(num_workers)
        return contextlib.nullcontext(executor or in_this_process)

    monkeypatch.setattr(module.parallel, "workers", workers)
    folder = copy_references(tiny_data, tmp_path / "a", ONE, toy.ONE.train)
    paths = [reference(tiny_data, ONE, case) for case in toy.ONE.train]
    largest = max(math.prod(nib.load(path).shape) for path in paths)
    # A worker takes 0.4 GB without a case.
    need_gb = 0.4 + comparison_bytes(largest) / 1e9
    for number, factor in ((3, 3.01), (2, 2.99), (1, 1.01), (1, 0.5)):
        options = {
            "domains": (ONE,),
            "split": "train",
            "max_memory_gb": factor * need_gb,
        }
        shutil.rmtree(tmp_path / "out", ignore_errors=True)
        assert (
            score(folder, num_workers=3, executor=ON_THIS_MACHINE, **options).num_cases
            == 3
        )
        assert chosen.pop() == number
    # Other machines may have more memory.
    shutil.rmtree(tmp_path / "out")
    score(folder, num_workers=3, executor=in_this_process, **options)
    assert chosen == [3]


def test_progress(score, folder):
    for done in (0, 1):
        bars = RecordedProgress()
        score(folder, progress=lambda bars=bars: bars)
        assert bars.counts == [(ONE, "case", 1), (TWO, "case", 1)]
        # Known scores count as done.
        assert [bar.initial for bar in bars.bars] == [done, done]


def test_scores_of_a_model_are_not_replaced(score, folder, tmp_path):
    found = score(folder)
    # Those of label maps are.
    assert score(folder) == found
    path = tmp_path / "out" / "summary.json"
    summary = json.loads(path.read_text())
    for hashes in ({ONE: "0" * 64}, None):
        summary |= {"checkpoint_hashes": hashes, "checkpoint": "model/step-7"}
        path.write_text(json.dumps(summary))
        words = f"`output_dir`: expected .* Received: {path}, scores of model/step-7"
        with pytest.raises(InputError, match=words):
            score(folder)
    path.write_text("damaged")
    assert score(folder) == found


def test_the_folder_is_locked(score, folder, tmp_path):
    words = "out: expected a folder that no other run writes to"
    with (
        module.locks.locked(tmp_path / "out"),
        pytest.raises(InputError, match=words),
    ):
        score(folder)


def test_a_folder_that_cannot_be_written(score, folder, tmp_path):
    (tmp_path / "out" / "dice.csv").mkdir(parents=True)
    with pytest.raises(InputError, match=r"dice.csv: expected"):
        score(folder)
    assert os.listdir(tmp_path / "out" / "dice.csv") == []
