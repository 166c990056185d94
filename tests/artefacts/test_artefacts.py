"""Files written by earlier releases stay readable; see `make_artefacts.py`."""

import functools
import json
import os
import shutil

import command_session
import make_artefacts as artefacts
import nibabel as nib
import numpy as np
import pytest
from event_files import scalars_of
from make_artefacts import ONE, THREE, TWO, rows_of

from data_prep.survey import survey_file
from u2net_tf.models.loading import load_spec, models_by_domain
from u2net_tf.plan.plan_file import load_plan
from u2net_tf.shards.manifest import load_converted
from u2net_tf.volumes.components import clean_labels

pytestmark = pytest.mark.usefixtures("plain_implementation")

# Files do not depend on how a network is executed.
session = functools.partial(command_session.session, execution="eager")

RELEASES = sorted(p.name for p in artefacts.FOLDER.iterdir() if p.name[:1].isdecimal())
# Models that the default run resumes and scores.
QUICK_RESUMED = ("adapted",)
QUICK_SCORED = ("separable",)


def read_json(release, name):
    return json.loads((artefacts.FOLDER / release / f"{name}.json").read_text())


MODELS = [
    (release, model)
    for release in RELEASES
    for model in read_json(release, "release")["models"]
]


def all_but_slow(quick, models):
    """Returns releases and models, with all but the `quick` models marked slow."""
    return [
        (release, model)
        if model in quick
        else pytest.param(release, model, marks=pytest.mark.slow)
        for release, model in models
    ]


RESUMED = [(release, model) for release, model in MODELS if model != "composed"]
each_release = pytest.mark.parametrize("release", RELEASES)
each_model = pytest.mark.parametrize(("release", "model"), MODELS)


def frozen(release):
    """Returns the folder of a release in the repository."""
    return artefacts.FOLDER / release


@pytest.fixture(scope="module")
def copy_of(tmp_path_factory):
    """Returns a function that copies a release, with the original file times."""

    @functools.cache
    def copy(release, purpose=""):
        folder = tmp_path_factory.mktemp("copies") / f"{release}{purpose}"
        shutil.copytree(frozen(release), folder)
        for name, (_, time) in read_json(release, "files").items():
            os.utime(folder / name, ns=(time, time))
        return folder

    return copy


def times_of(folder):
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file()}


def test_there_are_files_of_every_release():
    assert "0.1.0" in RELEASES
    assert MODELS


@each_release
def test_files_are_unchanged(release):
    """Git may omit ignored files and convert line endings."""
    found = artefacts.list_files(frozen(release))
    assert found.pop("files.json")
    checksums = {name: checksum for name, (checksum, _) in found.items()}
    written = {name: row[0] for name, row in read_json(release, "files").items()}
    assert checksums == written


class TestDataPreparation:
    @each_release
    def test_survey(self, release):
        domains = survey_file.load_survey(frozen(release) / "survey")
        assert [domain.name for domain in domains] == [ONE, TWO, THREE]
        assert [len(domain.cases) for domain in domains] == [5, 5, 5]
        assert not [fault for domain in domains for fault in domain.faults]
        # 0.1.0 did not write the unit and assumed mm.
        units = {case.length_unit for domain in domains for case in domain.cases}
        assert units == {"mm"}

    @each_release
    def test_survey_gives_the_same_plan(self, release, copy_of):
        """If a rule is changed on purpose, restore the old one by a flag here."""
        folder = copy_of(release)
        common = (f"--survey={folder / 'survey'}", "--keep_foreground_components=0")
        common += tuple(read_json(release, "release")["plan_flags"])
        upstream = f"--flagfile={artefacts.ROOT / 'data_prep/flagfiles/upstream.flags'}"
        results = session(
            "data_prep.plan",
            {
                "plan": (*common, f"--output={folder / 'plan.json'}"),
                "upstream": (*common, upstream, f"--output={folder / 'upstream.json'}"),
            },
        )
        for name, result in results.items():
            # A different plan would be refused, and not replace the existing one.
            assert result["status"] == 0, result
            before, after = (f / f"{name}.json" for f in (frozen(release), folder))
            assert before.read_bytes() == after.read_bytes()

    @each_release
    def test_plan(self, release):
        plan = load_plan(frozen(release) / "plan.json")
        assert plan.names == (ONE, TWO, THREE)
        assert [label.values for label in plan.domains[1].labels] == [
            (0,),
            (2,),
            (4, 7),
        ]
        for domain in plan.domains:
            cases = [len(domain.cases(s)) for s in ("train", "validation", "test")]
            assert cases == [3, 1, 1]
        upstream = load_plan(frozen(release) / "upstream.json").domains[0].preprocessing
        assert upstream.intensity_floor == -1024
        assert upstream.statistics_over == "positive"
        assert upstream.size_rounding == "truncate"

    @each_release
    def test_shards_are_intact_and_not_converted_again(self, release, copy_of):
        folder = copy_of(release)
        data = f"--data_dir={folder / 'shards'}"
        verified = session("data_prep.verify", {"all": (data,)})["all"]
        assert verified["status"] == 0, verified
        before = times_of(folder / "shards")
        common = (data, f"--plan={folder / 'plan.json'}", f"--raw_dir={folder / 'raw'}")
        flags = read_json(release, "release")["convert_flags"]
        converted = session(
            "data_prep.convert",
            {
                name: (*common, f"--domains={name}", *flags.get(name, ()))
                for name in (ONE, TWO, THREE)
            },
        )
        assert {result["status"] for result in converted.values()} == {0}, converted
        after = times_of(folder / "shards")
        # The plan is written every time.
        changed = {path for path, time in after.items() if before.get(path) != time}
        assert {path.name for path in changed} <= {"plan.json"}
        assert len(after) == len(before) > 9

    @each_release
    def test_manifest(self, release):
        _, manifests = load_converted(frozen(release) / "shards")
        assert [m.image_dtype for m in manifests] == ["float16", "float32", "float16"]
        assert [m.compression for m in manifests] == ["none", "gzip", "none"]


class TestModels:
    @each_model
    def test_logits_are_unchanged(self, release, model):
        names = read_json(release, "expected/checkpoints")
        checked = []
        with np.load(frozen(release) / "expected" / "logits.npz") as logits:
            for name, folder in artefacts.model_folders(frozen(release)).items():
                if name.split("/")[0] != model:
                    continue
                for checkpoint in artefacts.checkpoints_of(model):
                    key = f"{name}/{checkpoint}"
                    path, found = artefacts.compute_logits(folder, checkpoint)
                    assert path == names[key]
                    for domain, values in found.items():
                        # Consecutive normalizations amplify rounding errors of float32.
                        np.testing.assert_allclose(
                            values, logits[f"{key}/{domain}"], rtol=0, atol=2e-3
                        )
                        checked.append(f"{key}/{domain}")
            wanted = [key for key in logits if key.startswith(f"{model}/")]
        assert sorted(checked) == sorted(wanted)
        assert wanted

    @each_model
    def test_has_its_domains(self, release, model):
        domains = {"adapted": (ONE, TWO, THREE), "composed": (TWO, THREE)}
        folder = frozen(release) / "models" / model
        found = models_by_domain(folder)
        assert tuple(found) == domains.get(model, (ONE, TWO))
        for name, inner in found.items():
            assert name in load_spec(inner).plan.names
            assert inner == (folder / name if model == "independent" else folder)

    def resume(self, release, work, model):
        """Trains a model for one more epoch with the flags that it was trained with."""
        folder = work / "models" / model
        module, flagfile = "u2net_tf.train", folder / "flags.txt"
        command = [f"--data_dir={work / 'shards'}", f"--model_dir={folder}"]
        if model == "adapted":
            module = "u2net_tf.adapt"
            command.append(f"--from={work / 'models' / 'separable'}")
        if model == "independent":
            # Each domain has its own flagfile.
            flagfile = folder / ONE / "flags.txt"
            command += ["--independent", f"--domains={ONE},{TWO}"]
        command += read_json(release, "release")["continued_flags"]
        return session(module, {"": (f"--flagfile={flagfile}", *command)})[""]

    @pytest.mark.parametrize(("release", "model"), all_but_slow(QUICK_RESUMED, RESUMED))
    def test_resumes(self, release, model, copy_of):
        work = copy_of(release, f"-resumed-{model}")
        result = self.resume(release, work, model)
        assert result["status"] == 0, result
        wanted = {
            name: row
            for name, row in read_json(release, "expected/continued").items()
            if name.split("/")[0] == model
        }
        assert len(wanted) == (2 if model == "independent" else 1)
        for name, row in wanted.items():
            folder = work / "models" / name
            before = rows_of(frozen(release) / "models" / name / "training.csv")
            self.check_rows(rows_of(folder / "training.csv"), before, row)
            assert not list(folder.glob("*.damaged*"))
            steps = [int(line["step"]) for line in [*before, row]]
            points = scalars_of(folder)
            assert [step for step, _ in points["loss/all"]] == steps
            # The best checkpoint is kept and recognized.
            best = read_json(release, "expected/checkpoints")[f"{name}/best"]
            assert artefacts.compute_logits(folder, "best")[0] in (
                best,
                f"step-{steps[-1]}",
            )

    def check_rows(self, found, before, row):
        """Checks rows of training.csv; later versions may have more columns."""
        *kept, new = found
        assert len(kept) == len(before)
        for now, then in zip(kept, before, strict=True):
            assert {name: now[name] for name in then} == then
        for column, value in row.items():
            if column in ("seconds_per_step", "input_wait_share"):
                continue
            assert (new[column] == "") == (value == ""), column
            if value:
                # Rounding differs between machines, more in float16.
                assert float(new[column]) == pytest.approx(
                    float(value), rel=0.01, abs=1e-3
                ), column

    @each_release
    def test_a_composed_model_is_not_resumed(self, release, copy_of):
        work = copy_of(release, "-resumed-composed")
        result = session(
            "u2net_tf.train",
            {
                "": (
                    f"--flagfile={work / 'models' / 'separable' / 'flags.txt'}",
                    f"--data_dir={work / 'shards'}",
                    f"--domains={TWO},{THREE}",
                    f"--model_dir={work / 'models' / 'composed'}",
                )
            },
        )[""]
        assert "was trained" in result["status"]

    @each_release
    def test_can_be_composed(self, release, copy_of):
        models = copy_of(release) / "models"
        parts = f"--models={models / 'separable'},{models / 'composed'}"
        result = session(
            "u2net_tf.compose", {"": (parts, f"--model_dir={models / 'merged'}")}
        )[""]
        # The command itself checks that the domains are unchanged.
        assert result["status"] == 0, result
        assert tuple(models_by_domain(models / "merged")) == (ONE, TWO, THREE)


@pytest.fixture(scope="module")
def predicted(copy_of):
    """Predicts into the folder of a release, and into one with an edited label map."""

    @functools.cache
    def predict(release):
        folder = copy_of(release)
        edited = folder / "edited"
        shutil.copytree(folder / "predictions", edited)
        with (edited / "two_0.nii.gz").open("ab") as stream:
            stream.write(b"edited")
        common = (
            f"--model_dir={folder / 'models' / 'separable'}",
            f"--domain={TWO}",
            f"--input={folder / 'raw' / TWO / 'imagesTr' / 'two_0.nii.gz'}",
            "--save_probabilities",
        )
        return session(
            "u2net_tf.predict",
            {
                "same": (*common, f"--output={folder / 'predictions'}"),
                "edited": (*common, f"--output={edited}"),
            },
        )

    return predict


class TestPredictions:
    @each_release
    def test_are_the_same(self, release, copy_of, predicted):
        # Its own files are replaced without --overwrite.
        result = predicted(release)["same"]
        assert result["status"] == 0, result
        assert result["windows"], "predicted again, from a different path of the scan"
        folders = [f / "predictions" for f in (copy_of(release), frozen(release))]
        found, known = (nib.load(folder / "two_0.nii.gz") for folder in folders)
        np.testing.assert_array_equal(found.affine, known.affine)
        labels, known = (np.asarray(image.dataobj) for image in (found, known))
        assert set(np.unique(known)) == {0, 2, 4}
        found, probabilities = (
            nib.load(folder / "two_0_probabilities.nii.gz").get_fdata()
            for folder in folders
        )
        np.testing.assert_allclose(found, probabilities, rtol=0, atol=2e-3)
        if release == "0.1.0":
            # 0.1.0 resampled label maps to the scan by nearest neighbour, and
            # probabilities as now.
            known = self.labels_from(release, probabilities)
        assert np.mean(labels != known) < 0.005

    def labels_from(self, release, probabilities):
        """Returns the postprocessed label map of probabilities, in the axes on disk."""
        labels = load_plan(frozen(release) / "plan.json").domains[1].labels
        keep = [label.keep_components for label in labels]
        classes = clean_labels(probabilities.argmax(axis=-1), keep)
        return np.array([label.values[0] for label in labels])[classes]

    @each_release
    def test_edited_label_maps_are_not_replaced(self, release, copy_of, predicted):
        path = copy_of(release) / "edited" / "two_0.nii.gz"
        assert str(path) in predicted(release)["edited"]["status"]
        assert path.read_bytes().endswith(b"edited")


@pytest.fixture(scope="module")
def scored(copy_of):
    """Evaluates a model; "separable" into the folder that the release wrote."""

    @functools.cache
    def score(release, model):
        folder = copy_of(release)
        output = folder / ("evaluation" if model == "separable" else f"of_{model}")
        result = session(
            "u2net_tf.evaluate",
            {
                "": (
                    f"--model_dir={folder / 'models' / model}",
                    f"--raw_dir={folder / 'raw'}",
                    f"--output_dir={output}",
                )
            },
        )[""]
        assert result["status"] == 0, result
        assert result["windows"], "predicted again, from a different path"
        return rows_of(output / "dice.csv")

    return score


class TestEvaluation:
    @pytest.mark.parametrize(("release", "model"), all_but_slow(QUICK_SCORED, MODELS))
    def test_is_the_same(self, release, model, scored):
        known = read_json(release, "expected/scores")[model]
        found = scored(release, model)
        assert len(found) == len(known) > 0
        for row, before in zip(found, known, strict=True):
            dice = float(before.pop("dice"))
            # 0.1.0 resampled label maps to the scan by nearest neighbour. In the domain
            # that is resampled, interpolated probabilities score higher.
            gain = 0.12 if (release, row["domain"]) == ("0.1.0", ONE) else 0
            assert dice - 0.01 * (not gain) <= float(row["dice"]) <= dice + 0.01 + gain
            assert {name: row[name] for name in before} == before

    @each_release
    def test_summary(self, release, copy_of, scored):
        scored(release, "separable")
        found, known = (
            json.loads((folder / "evaluation" / "summary.json").read_text())
            for folder in (copy_of(release), frozen(release))
        )
        assert set(known) <= set(found)
        assert found["mean_dice"] == pytest.approx(known["mean_dice"], abs=0.01)
        assert known["mean_dice"] > 0.2
