import dataclasses
import json
import math
import os
import pathlib
import shutil
import types

import nibabel as nib
import numpy as np
import pytest
import toy
import tqdm
from reading_ahead import PicklingExecutor, count_live_scans
from recorded_progress import RecordedProgress

from u2net_tf import machine
from u2net_tf.config.inference import ReadingConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluation import scored_case, scoring
from u2net_tf.evaluation.surfaces import surface_scores
from u2net_tf.inference import case_memory, usable_cases
from u2net_tf.inference.predictor import Prediction, Predictor
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.labels import Region
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import case_labels


class Oracle:
    """Predicts class 1 in the left half of every image."""

    fingerprint = "one"
    batch_size = 1

    def __init__(self, plan):
        self.spec = ModelSpec(plan=plan, pools=(1, 1, 1))
        self.backend = types.SimpleNamespace(spec=self.spec, is_exported=False)
        self.predicted = []

    def key(self, domain, paths, **options):
        return Predictor(self).key(domain, paths, **options)

    def predict_prepared(self, scan, domain, *, with_probabilities, num_scans=None):
        assert not with_probabilities
        path = pathlib.Path(scan.raw.grid.path)
        self.predicted.append(path.name.removesuffix(".nii.gz"))
        classes = np.zeros(scan.raw.data.shape[1:], np.uint8)
        classes[:, :, : classes.shape[2] // 2] = 1
        return Prediction(classes, None)


@pytest.fixture
def score(tiny_data, tmp_path):
    """Scores the training cases of a domain; also returns those that were predicted."""

    def call(index=0, *, predictor=None, plan=None, raw_dir=None, **options):
        plan = plan or tiny_data.plan
        predictor = predictor or Oracle(plan)
        predictor.predicted.clear()
        domain = plan.domains[index]
        cases = scoring.find_cases(domain, "train", raw_dir)
        names = ReadingConfig.model_fields.keys() & options.keys()
        reading = ReadingConfig(**{name: options.pop(name) for name in names})
        found = scoring.score_domain(
            predictor, index, cases, tmp_path / "out", reading=reading, **options
        )
        skipped = [found.skipped] if found.skipped else []
        return (found.scores, predictor.predicted, *skipped)

    return call


class TestFindCases:
    @pytest.mark.parametrize("split", ["train", "validation", "test"])
    def test_of_the_split_in_the_order_of_the_plan(self, tiny_data, split):
        domain = tiny_data.plan.domains[0]
        cases = scoring.find_cases(domain, split, None)
        assert tuple(case.name for case in cases) == domain.cases(split)

    def test_in_another_folder(self, tiny_data, tmp_path):
        domain = dataclasses.replace(tiny_data.plan.domains[0], raw_dir="gone")
        moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
        cases = scoring.find_cases(domain, "test", str(moved))
        assert cases[0].image_path == moved / domain.name / "imagesTr" / "one_5.nii.gz"
        with pytest.raises(InputError, match="gone.dataset.json"):
            scoring.find_cases(domain, "test", None)

    def test_a_case_that_the_dataset_does_not_list(self, tiny_data):
        domain = dataclasses.replace(tiny_data.plan.domains[0], test=("no",))
        with pytest.raises(InputError, match="expected the case 'no'"):
            scoring.find_cases(domain, "test", None)


class TestCheckHeaders:
    @pytest.mark.parametrize("kind", ["imagesTr", "labelsTr"])
    @pytest.mark.parametrize("content", [None, b"no scan"])
    def test_an_unusable_file_is_reported(self, tiny_data, tmp_path, kind, content):
        moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
        path = moved / "Task91_One" / kind / "one_1.nii.gz"
        path.unlink()
        if content is not None:
            path.write_bytes(content)
        domain = tiny_data.plan.domains[0]
        cases = scoring.find_cases(domain, "train", str(moved))
        found = scoring.check_headers(domain, cases, ReadingConfig())
        assert list(found) == ["one_1"]
        assert str(found["one_1"]).startswith(f"{path}: expected a ")
        with pytest.raises(InputError, match=f"{path}: expected a "):
            scoring.check_headers(domain, cases, ReadingConfig(on_bad_case="fail"))


class TestScoreDomain:
    @pytest.mark.parametrize("num_workers", [0, 2])
    def test_an_unusable_case_is_skipped(
        self, score, tiny_data, tmp_path, num_workers, write_nifti
    ):
        moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
        label = moved / "Task91_One" / "labelsTr" / "one_1.nii.gz"
        write_nifti(label, np.zeros((3, 3, 3), np.uint8))
        options = {"raw_dir": str(moved), "num_workers": num_workers}
        scores, predicted, skipped = score(**options)
        assert [s.case for s in scores] == sorted(predicted) == ["one_0", "one_2"]
        assert "one_1.nii.gz: expected shape" in str(skipped["one_1"])
        with pytest.raises(InputError, match="one_1.nii.gz: expected shape"):
            score(**options, on_bad_case="fail")

    def test_scores_on_the_grid_of_the_scan(self, score):
        scores, _ = score()
        assert [(s.domain, s.case) for s in scores] == [
            ("Task91_One", f"one_{i}") for i in range(3)
        ]
        # 12 × 12 × 10 voxels; the organ is at 3–8, 3–8, 2–7 (x, y, z) and the left half
        # at x 0–5: 3 · 6 · 6 voxels of 6 · 6 · 6 and 6 · 12 · 10 overlap.
        assert scores[0].dice == {"organ": pytest.approx(2 * 108 / (216 + 720))}

    def test_writes_label_maps_of_raw_values(self, score, tmp_path, tiny_data):
        score(1)
        path = tmp_path / "out" / "predictions" / "Task92_Two" / "two_0.nii.gz"
        image = nib.load(path)
        # The class of index 1 is written with the first of its raw values.
        assert np.unique(image.dataobj).tolist() == [0, 4]
        scan = tiny_data.raw_dir / "Task92_Two" / "imagesTr" / "two_0.nii.gz"
        assert image.shape == nib.load(scan).shape[:3]

    def test_an_absent_class_has_no_dice(self, score, tiny_data):
        labels = (
            *toy.TWO.labels[:2],
            dataclasses.replace(toy.TWO.labels[2], values=(9,)),
        )
        preprocessing = dataclasses.replace(
            toy.TWO.preprocessing, unknown_labels="background"
        )
        domain = dataclasses.replace(
            tiny_data.plan.domains[1], labels=labels, preprocessing=preprocessing
        )
        plan = dataclasses.replace(tiny_data.plan, domains=(toy.ONE, domain))
        for _ in range(2):  # The second time, the score is read from disk.
            scores, _ = score(1, plan=plan)
            assert np.isnan(scores[0].dice["core"])
            assert scores[0].dice["rim"] > 0
            assert scores[0].false_positive_ml == {"core": 0}

    def test_a_false_positive_class_has_a_volume(self, score, tiny_data):
        labels = (
            toy.TWO.labels[0],
            dataclasses.replace(toy.TWO.labels[1], values=(9,)),
            toy.TWO.labels[2],
        )
        preprocessing = dataclasses.replace(
            toy.TWO.preprocessing, unknown_labels="background"
        )
        domain = dataclasses.replace(
            tiny_data.plan.domains[1], labels=labels, preprocessing=preprocessing
        )
        plan = dataclasses.replace(tiny_data.plan, domains=(toy.ONE, domain))
        for _ in range(2):
            scores, _ = score(1, plan=plan)
            # Half of 12 · 12 · 10 voxels of 1 mm³.
            assert scores[0].false_positive_ml == {"rim": pytest.approx(0.72)}
            assert scores[0].dice["rim"] == 0

    def test_voxels_may_be_sheared(self, score, tiny_data, tmp_path):
        moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
        folder = moved / "Task91_One"
        for path in (
            folder / "imagesTr/one_0.nii.gz",
            folder / "labelsTr/one_0.nii.gz",
        ):
            image = nib.load(path)
            voxels = np.asarray(image.dataobj)
            if path.parent.name == "labelsTr":
                voxels = np.zeros_like(voxels)
            affine = image.affine.copy()
            affine[:3, 2] = affine[:3, 1] * 0.6 + affine[:3, 2] * 0.8
            path.unlink()
            nib.save(nib.Nifti1Image(voxels, affine), path)
        scores, _ = score(raw_dir=str(moved))
        # Half of 12 · 12 · 10 voxels of 1 · 1 · 0.8 mm³.
        assert scores[0].false_positive_ml == {"organ": pytest.approx(0.576)}

    def test_memory_of_a_case_is_limited(self, score, tiny_data):
        scores, predicted, skipped = score(max_memory_gb=1e-6)
        assert not scores
        assert not predicted
        words = "one_0.nii.gz: expected at most {} GB of memory (`max_memory_gb`)"
        assert words.format(0) in str(skipped["one_0"])
        assert "Of 1e-06 GB, the program and the network take " in str(skipped["one_0"])
        domain = tiny_data.plan.domains[0]
        cases = scoring.find_cases(domain, "train", None)
        reading = ReadingConfig(max_memory_gb=1e-6)
        found = scoring.check_headers(domain, cases, reading)
        assert words.format("1e-06") in str(found["one_0"])
        # The limit does not invalidate existing scores.
        score()
        assert not score(max_memory_gb=100)[1]

    def test_read_ahead_is_limited_by_the_memory(self, score, tiny_data, monkeypatch):
        monkeypatch.setattr(machine, "resident_bytes", lambda: 0)
        monkeypatch.setattr(
            case_memory, "network_bytes", lambda *arguments, **options: 0
        )
        chosen = []

        def read_ahead(read, cases, reading, **options):
            chosen.append(reading.num_workers)
            return original(read, cases, reading, **options)

        original = usable_cases.read_ahead
        monkeypatch.setattr(usable_cases, "read_ahead", read_ahead)
        domain = tiny_data.plan.domains[0]
        needs = scoring._needs(domain, scoring.find_cases(domain, "train", None))
        predicted = max(need.prediction for need in needs)
        ahead = max(need.preparation for need in needs)
        for number in (2, 1, 0):
            limit = predicted + number * ahead
            score(max_memory_gb=1.01 * limit / 1e9, num_workers=2, overwrite=True)
        assert chosen == [2, 1, 0]

    def test_resampled_modalities_are_scored_again(self, score, tiny_data, tmp_path):
        moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
        folder = moved / "Task92_Two" / "imagesTr"
        for path in list(folder.glob("two_*.nii.gz")):
            image = nib.load(path)
            for channel in (0, 1):
                one = nib.Nifti1Image(image.dataobj[..., channel], image.affine)
                stem = path.name.removesuffix(".nii.gz")
                nib.save(one, folder / f"{stem}_{channel:04d}.nii.gz")
            path.unlink()
        options = {"index": 1, "raw_dir": str(moved)}
        assert len(score(**options)[1]) == 2
        assert not score(**options)[1]
        assert len(score(**options, resample_modalities=True)[1]) == 2
        # A single file is never resampled.
        score(0)
        assert not score(0, resample_modalities=True)[1]

    def test_progress_counts_the_cases(self, score, tmp_path):
        progress = RecordedProgress()
        score(progress=progress)
        (tmp_path / "out" / ".scores" / "Task91_One" / "one_1.json").unlink()
        score(progress=progress)
        assert progress.counts == [("Task91_One", "case", 3)] * 2

    @pytest.mark.parametrize("num_workers", [0, 1, 2])
    def test_cases_are_read_ahead(self, score, monkeypatch, num_workers):
        received = []
        original = usable_cases.parallel.map_ahead

        def spy(function, cases, *, num_workers, executor):
            received.append(num_workers)
            return original(function, cases, num_workers=num_workers)

        monkeypatch.setattr(usable_cases.parallel, "map_ahead", spy)
        scores, _ = score(num_workers=num_workers)
        assert received == [num_workers]
        assert [s.case for s in scores] == ["one_0", "one_1", "one_2"]

    def test_cases_are_read_by_an_executor_without_the_predictor(self, score):
        expected, _ = score()
        with PicklingExecutor() as executor:
            found, _ = score(overwrite=True, num_workers=2, executor=executor)
        assert found == expected
        # The predictor is not pickled.
        assert executor.num_calls == 3
        assert executor.largest < 10_000

    def test_a_scan_is_freed_before_the_next_one_is_read(self, score, monkeypatch):
        alive = count_live_scans(monkeypatch, scoring)
        score(num_workers=0, progress=tqdm.tqdm)
        assert alive == [0, 0, 0]


class TestRerun:
    def test_scored_cases_are_not_predicted_again(self, score):
        first, predicted = score()
        assert predicted == ["one_0", "one_1", "one_2"]
        again, predicted = score()
        assert predicted == []
        assert again == first

    @pytest.mark.parametrize("change", ["edited", "removed"])
    def test_a_label_map_that_changes_before_it_is_scored_again(
        self, score, tmp_path, monkeypatch, change
    ):
        first, _ = score()
        path = tmp_path / "out" / "predictions" / "Task91_One" / "one_1.nii.gz"

        def read(*arguments, original=scoring._read_case):
            # Cases are read by several threads: only the one of this label map
            # changes it, before its case is scored.
            if arguments[-1].name == "one_1":
                path.unlink()
                if change == "edited":
                    path.write_bytes(b"corrected by hand")
            return original(*arguments)

        monkeypatch.setattr(scoring, "_read_case", read)
        scores, predicted, skipped = score(surface_tolerance_mm=2.0)
        assert [one.case for one in scores] == ["one_0", "one_2"]
        assert [one.dice for one in scores] == [first[0].dice, first[2].dice]
        assert predicted == []
        words = "one that was edited" if change == "edited" else "no such file"
        assert words in str(skipped["one_1"])

    @pytest.mark.parametrize("fingerprint", ["one", "two"])
    def test_an_edited_label_map_is_neither_scored_nor_replaced(
        self, score, tiny_data, tmp_path, fingerprint
    ):
        first, _ = score()
        path = tmp_path / "out" / "predictions" / "Task91_One" / "one_1.nii.gz"
        path.write_bytes(b"corrected by hand")
        predictor = Oracle(tiny_data.plan)
        predictor.fingerprint = fingerprint
        with pytest.raises(
            InputError, match=f"{path}: .* Received: one that was edited"
        ):
            score(predictor=predictor)
        assert path.read_bytes() == b"corrected by hand"
        # Found before the first case is predicted.
        assert predictor.predicted == []
        again, predicted = score(predictor=predictor, overwrite=True)
        assert predicted == ["one_0", "one_1", "one_2"]
        assert again == first
        assert score(predictor=predictor) == (first, [])

    def test_a_foreign_label_map_is_not_replaced(self, score, tmp_path):
        path = tmp_path / "out" / "predictions" / "Task91_One" / "one_1.nii.gz"
        path.parent.mkdir(parents=True)
        path.write_bytes(b"a reference")
        with pytest.raises(InputError, match=f"{path}: .* Received: a different file"):
            score()
        assert path.read_bytes() == b"a reference"

    @pytest.mark.parametrize("edited", [False, True])
    def test_label_maps_of_release_0_1_0_are_recognized_by_their_time(
        self, score, tmp_path, edited
    ):
        first, _ = score()
        folder = tmp_path / "out" / "predictions" / "Task91_One"
        shutil.rmtree(folder / ".predicted")
        if not edited:
            assert score() == (first, [])
            return
        scored = tmp_path / "out" / ".scores" / "Task91_One" / "one_1.json"
        later = scored.stat().st_mtime_ns + 1
        os.utime(folder / "one_1.nii.gz", ns=(later, later))
        with pytest.raises(
            InputError, match="one_1.nii.gz: .* Received: a different file"
        ):
            score()

    def test_resumes_where_it_stopped(self, score, tmp_path):
        first, _ = score()
        (tmp_path / "out" / ".scores" / "Task91_One" / "one_1.json").unlink()
        assert score() == (first, [])

    @pytest.mark.parametrize(
        "dice", [{}, {"organ": 2.0}, {"organ": 0.5, "liver": 0.5}, {"organ": "1"}]
    )
    def test_an_invalid_score_is_computed_again(self, score, tmp_path, dice):
        first, _ = score()
        path = tmp_path / "out" / ".scores" / "Task91_One" / "one_1.json"
        path.write_text(json.dumps({**json.loads(path.read_text()), "dice": dice}))
        assert score() == (first, [])

    @pytest.mark.parametrize("dice", [0.5, None, 0.0])
    def test_an_older_score_may_imply_the_volume(self, score, tmp_path, dice):
        """Not for a Dice of 0: the class may be missed or a false positive."""
        first, _ = score()
        path = tmp_path / "out" / ".scores" / "Task91_One" / "one_1.json"
        content = {**json.loads(path.read_text()), "format": 1, "dice": {"organ": dice}}
        del content["false_positive_ml"]
        path.write_text(json.dumps(content))
        again, predicted = score()
        assert predicted == []
        assert (again[1].dice == first[1].dice) == (dice == 0)
        assert again[1].false_positive_ml == ({"organ": 0} if dice is None else {})

    def test_a_score_of_another_prediction_is_computed_again(self, score, tmp_path):
        """A run may end between writing a label map and its score."""
        first, _ = score()
        path = tmp_path / "out" / ".scores" / "Task91_One" / "one_1.json"
        other = {"key": "another", "dice": {"organ": 0.125}}
        path.write_text(json.dumps({**json.loads(path.read_text()), **other}))
        assert score() == (first, [])

    @pytest.mark.parametrize("volume", [{"organ": -1.0}, {"liver": 1.0}])
    def test_an_invalid_volume_is_measured_again(self, score, tmp_path, volume):
        first, _ = score()
        path = tmp_path / "out" / ".scores" / "Task91_One" / "one_1.json"
        content = {**json.loads(path.read_text()), "false_positive_ml": volume}
        path.write_text(json.dumps(content))
        assert score() == (first, [])

    def test_nothing_changes_if_killed_before_a_prediction(
        self, score, tiny_data, monkeypatch
    ):
        first, _ = score()
        second = Oracle(tiny_data.plan)
        second.fingerprint = "two"

        def die(*arguments, **keywords):
            raise KeyboardInterrupt

        monkeypatch.setattr(second, "predict_prepared", die)
        with pytest.raises(KeyboardInterrupt):
            score(predictor=second)
        assert score() == (first, [])

    @pytest.mark.parametrize("fingerprint", ["one", "two"])
    def test_scores_again_if_killed_before_the_score(
        self, score, tiny_data, monkeypatch, fingerprint
    ):
        """The label map is then another model's, and the old score must not be kept."""
        first, _ = score()
        predictor = Oracle(tiny_data.plan)
        predictor.fingerprint = "two"

        def die(*arguments, **keywords):
            raise KeyboardInterrupt

        with monkeypatch.context() as patch:
            patch.setattr(scored_case, "compare", die)
            with pytest.raises(KeyboardInterrupt):
                score(predictor=predictor)
        predictor.fingerprint = fingerprint
        # The label maps of the first case are those of the second model.
        expected = {"one": ["one_0"], "two": ["one_1", "one_2"]}
        assert score(predictor=predictor) == (first, expected[fingerprint])

    def test_a_missing_label_map_is_predicted_again(self, score, tmp_path):
        score()
        path = tmp_path / "out" / "predictions" / "Task91_One" / "one_2.nii.gz"
        path.unlink()
        assert score()[1] == ["one_2"]
        assert path.is_file()

    def test_another_model_predicts_every_case_again(self, score, tiny_data):
        score()
        predictor = Oracle(tiny_data.plan)
        predictor.fingerprint = "two"
        assert len(score(predictor=predictor)[1]) == 3

    def test_another_scan_is_predicted_again(self, score, tiny_data, tmp_path):
        moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
        score(raw_dir=str(moved))
        path = moved / "Task91_One" / "imagesTr" / "one_1.nii.gz"
        os.utime(path, (1, 1))
        assert score(raw_dir=str(moved))[1] == ["one_1"]

    @pytest.mark.parametrize("text", ["", "{", "{}", "[]"])
    def test_an_unreadable_score_is_computed_again(self, score, tmp_path, text):
        first, _ = score()
        path = tmp_path / "out" / ".scores" / "Task91_One" / "one_1.json"
        path.write_text(text)
        assert score() == (first, [])

    def test_scores_are_json(self, score, tmp_path):
        scores, _ = score()
        path = tmp_path / "out" / ".scores" / "Task91_One" / "one_0.json"
        assert json.loads(path.read_text())["dice"] == scores[0].dice


class TestRegions:
    def test_an_unchanged_region_is_not_scored_again(self, score, tmp_path):
        regions = (Region("all", ("rim", "core")),)
        found, _ = score(1, regions=regions)
        path = next((tmp_path / "out" / ".scores").rglob("*.json"))
        before = path.stat().st_mtime_ns
        assert repr(score(1, regions=regions)) == repr((found, []))
        assert path.stat().st_mtime_ns == before

    def test_a_region_that_changed_is_scored_again(self, score):
        """Under the same name."""
        (plain, *_), _ = score(1)
        both, rim = (
            (Region("all", ("rim", "core")),),
            (Region("all", ("rim",)),),
        )
        (first, *_), predicted = score(1, regions=both)
        assert predicted == []
        assert first.dice.keys() == {"rim", "core", "all"}
        assert first.dice["all"] != plain.dice["rim"]
        (second, *_), _ = score(1, regions=rim)
        assert second.dice["all"] == plain.dice["rim"]

    def test_an_older_score_is_that_of_the_classes(self, score, tmp_path):
        found, _ = score(1)
        path = next((tmp_path / "out" / ".scores").rglob("*.json"))
        content = json.loads(path.read_text())
        del content["regions"]
        path.write_text(json.dumps({**content, "format": 3}))
        before = path.stat().st_mtime_ns
        assert score(1) == (found, [])
        assert path.stat().st_mtime_ns == before


class TestSurfaces:
    def test_scores_of_the_written_label_map(self, score, tiny_data):
        """In two classes, one of which has merged values and is never predicted."""
        (first, *_), _ = score(1, surface_tolerance_mm=1.5)
        assert first.hd95_mm.keys() == first.surface_dice.keys() == {"rim", "core"}
        assert math.isnan(first.hd95_mm["core"])
        assert first.surface_dice["core"] == 0

    def test_on_the_grid_of_the_scan(self, score, tiny_data):
        domain = tiny_data.plan.domains[0]
        case = scoring.find_cases(domain, "train", None)[0]
        image = case_files.read_image(case.image_paths, domain)
        reference = case_labels.read_labels(case.label_path, image.grid, domain)
        left = np.zeros_like(reference)
        left[:, :, : left.shape[2] // 2] = 1
        expected = {
            tolerance_mm: surface_scores(
                reference,
                left,
                num_classes=2,
                spacing_mm=image.grid.spacing_mm("pixdim"),
                tolerance_mm=tolerance_mm,
            )[0]
            for tolerance_mm in (1.0, 3.0)
        }
        assert expected[1.0].surface_dice < expected[3.0].surface_dice
        for tolerance_mm, predicted in ((1.0, 3), (3.0, 0)):
            (first, *_), names = score(surface_tolerance_mm=tolerance_mm)
            assert len(names) == predicted
            assert first.hd95_mm == {"organ": expected[tolerance_mm].hd95_mm}
            surface_dice = expected[tolerance_mm].surface_dice
            assert first.surface_dice == {"organ": surface_dice}

    def test_the_spacing_is_that_of_the_preprocessing(self, score, tiny_data, tmp_path):
        """Voxels of twice the size according to the affine."""
        moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
        for path in (moved / "Task91_One").glob("*Tr/*.nii.gz"):
            image = nib.load(path)
            voxels = np.asanyarray(image.dataobj)
            image = nib.Nifti1Image(voxels, image.affine, image.header)
            image.set_sform(image.affine @ np.diag([2, 2, 2, 1]), code=1)
            nib.save(image, path)
        found = []
        for source in ("pixdim", "affine"):
            domain = tiny_data.plan.domains[0]
            preprocessing = dataclasses.replace(
                domain.preprocessing, spacing_source=source
            )
            domain = dataclasses.replace(domain, preprocessing=preprocessing)
            plan = dataclasses.replace(
                tiny_data.plan, domains=(domain, *tiny_data.plan.domains[1:])
            )
            (first, *_), _ = score(
                plan=plan, raw_dir=moved, surface_tolerance_mm=1.0, overwrite=True
            )
            found.append(first.hd95_mm["organ"])
        assert found[0] > 0
        assert found[1] == pytest.approx(2 * found[0])

    def test_are_computed_without_predicting_again(self, score, tmp_path, monkeypatch):
        plain, _ = score()
        assert plain[0].hd95_mm == plain[0].surface_dice == {}
        with monkeypatch.context() as patch:
            # Nor are scans preprocessed.
            patch.delattr(scoring, "prepare_scan")
            found, predicted = score(surface_tolerance_mm=2.0)
        assert predicted == []
        assert [one.dice for one in found] == [one.dice for one in plain]
        # Nothing is computed again, or shown unless it is requested.
        path = tmp_path / "out" / ".scores" / "Task91_One" / "one_0.json"
        before = path.stat().st_mtime_ns
        assert score(surface_tolerance_mm=2.0) == (found, [])
        assert score() == (plain, [])
        assert path.stat().st_mtime_ns == before
        content = json.loads(path.read_text())
        for name, values in (
            ("hd95_mm", {"organ": -1.0}),
            ("surface_dice", {"organ": 1.5}),
            ("hd95_mm", {}),
            ("surface_dice", {}),
        ):
            path.write_text(json.dumps({**content, name: values}))
            assert score(surface_tolerance_mm=2.0) == (found, [])
        del content["hd95_mm"], content["surface_dice"]
        del content["surface_tolerance_mm"]
        path.write_text(json.dumps({**content, "format": 2}))
        assert score() == (plain, [])
        assert score(surface_tolerance_mm=2.0) == (found, [])
