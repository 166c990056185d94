import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
import types
import weakref

import pytest
import toy
from recorded_progress import RecordedProgress

from u2net_tf.config.evaluation import EvaluateConfig
from u2net_tf.config.inference import ReadingConfig, WindowConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluate import _settings
from u2net_tf.evaluation import evaluate_model as module
from u2net_tf.evaluation.evaluate_model import evaluate_model
from u2net_tf.evaluation.scoring import DomainScores
from u2net_tf.evaluation.tables import CaseScore
from u2net_tf.models.checkpoint_paths import checkpoint_hash
from u2net_tf.models.run_state import RunState, SeenCases
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.plan_file import plan_to_json

FOLDS = (("one_0", "one_1"), ("one_2",))


@pytest.fixture
def models(tiny_data, monkeypatch, tmp_path):
    """Independent models of the two domains; returns the recorded calls."""
    folders = {domain.name: tmp_path / domain.name for domain in toy.PLAN.domains}
    plans = {folders[domain.name]: Plan((domain,)) for domain in tiny_data.plan.domains}
    calls = []

    def load(folder, settings, *, progress):
        calls.append(("load", folder.name, settings.overlap, progress))
        depth = settings.prune_to if folder.name == toy.TWO.name else None
        spec = types.SimpleNamespace(plan=plans[folder], depth=depth)
        return types.SimpleNamespace(spec=spec, checkpoint=f"of {folder.name}")

    def score(predictor, index, cases, output_dir, **options):
        domain = predictor.spec.plan.domains[index]
        calls.append((domain.name, [case.name for case in cases], output_dir, options))
        dice = {label.name: 0.5 for label in domain.labels[1:]}
        scores = [CaseScore(domain.name, case.name, dice, {}) for case in cases]
        return DomainScores(scores, {})

    monkeypatch.setattr(module, "models_by_domain", lambda model_dir: folders)
    monkeypatch.setattr(
        module,
        "load_spec_and_state",
        lambda folder, checkpoint: (
            ModelSpec(
                plan=plans[folder],
                pools=(1, 1, 1),
                architecture="unet_sharp",
                depth=1,
                gates="none" if folder.name == toy.ONE.name else "top",
            ),
            RunState(),
        ),
    )
    monkeypatch.setattr(module.keras, "load_predictor", load)
    monkeypatch.setattr(module.scoring, "score_domain", score)
    monkeypatch.setattr(module, "checkpoint_hash", lambda path: f"hash {path}")
    return calls


def configure(tmp_path, **settings):
    defaults = {"model_dir": (str(tmp_path / "model"),)}
    return EvaluateConfig.from_flat(defaults | settings)


def test_each_domain_is_scored_with_its_model(models, tmp_path):
    found = evaluate_model(configure(tmp_path), progress="progress")
    output_dir = tmp_path / "model" / "test"
    options = {
        "regions": (),
        "surface_tolerance_mm": None,
        "overwrite": False,
        "reading": ReadingConfig(),
        "progress": "progress",
    }
    assert models == [
        ("load", "Task91_One", 0.5, "progress"),
        ("Task91_One", ["one_5"], output_dir, options),
        ("load", "Task92_Two", 0.5, "progress"),
        ("Task92_Two", ["two_2"], output_dir, options),
    ]
    assert [row.label for row in found.rows] == ["organ", "rim", "core"]
    assert found.num_cases == 2
    assert found.checkpoint == "of Task91_One, of Task92_Two"
    assert found.output_dir == output_dir
    summary = json.loads((output_dir / "summary.json").read_text())
    assert (summary["split"], summary["checkpoint"]) == ("test", found.checkpoint)
    for name in ("postprocessing", "prediction", "depths"):
        assert summary[name] == {}
    assert summary["training_cases"] == summary["domains_with_unlisted_cases"] == []
    assert summary["region_classes"] == {}
    assert summary["checkpoint_hashes"] == {
        "Task91_One": "hash of Task91_One",
        "Task92_Two": "hash of Task92_Two",
    }
    assert len((output_dir / "dice.csv").read_text().splitlines()) == 4


def test_one_model_is_in_memory_at_a_time(models, tmp_path, monkeypatch):
    class Predictor(types.SimpleNamespace):
        pass

    load, loaded, alive = module.keras.load_predictor, [], []

    def load_with_reference_cycle(*arguments, **options):
        alive.append(sum(reference() is not None for reference in loaded))
        predictor = Predictor(**vars(load(*arguments, **options)))
        predictor.itself = predictor
        loaded.append(weakref.ref(predictor))
        return predictor

    monkeypatch.setattr(module.keras, "load_predictor", load_with_reference_cycle)
    evaluate_model(configure(tmp_path))
    assert alive == [0, 0]


def test_the_checkpoint_may_be_removed_while_domains_are_scored(
    models, tiny_data, tmp_path, monkeypatch
):
    index = tmp_path / "step-1.index"
    index.write_bytes(b"index")
    spec = ModelSpec(plan=tiny_data.plan, pools=(1, 1, 1))
    score = module.scoring.score_domain

    def score_and_remove(*arguments, **options):
        index.unlink(missing_ok=True)
        return score(*arguments, **options)

    for where, name, replacement in (
        (module, "models_by_domain", lambda _: dict.fromkeys(toy.PLAN.names, tmp_path)),
        (module, "load_spec_and_state", lambda folder, name: (spec, RunState())),
        (module, "checkpoint_hash", checkpoint_hash),
        (module.scoring, "score_domain", score_and_remove),
        (
            module.keras,
            "load_predictor",
            lambda *given, progress: types.SimpleNamespace(
                spec=spec, checkpoint=str(index.with_suffix(""))
            ),
        ),
    ):
        monkeypatch.setattr(where, name, replacement)
    found = evaluate_model(configure(tmp_path))
    summary = json.loads((found.output_dir / "summary.json").read_text())
    expected = hashlib.sha256(b"index").hexdigest()
    assert summary["checkpoint_hashes"] == dict.fromkeys(toy.PLAN.names, expected)


def test_settings_are_passed_on(models, tmp_path):
    config = configure(
        tmp_path,
        output_dir=str(tmp_path / "out"),
        domains=("Task91_One",),
        split="validation",
        overlap=0.25,
        overwrite=True,
        surface_tolerance_mm=1.5,
        num_workers=3,
        resample_modalities=True,
    )
    evaluate_model(config)
    loaded, scored = models
    assert loaded[:3] == ("load", "Task91_One", 0.25)
    name, cases, output_dir, options = scored
    assert (name, output_dir) == ("Task91_One", pathlib.Path(tmp_path / "out"))
    assert len(cases) == 2
    assert options["overwrite"] is True
    assert options["surface_tolerance_mm"] == 1.5
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["surface_tolerance_mm"] == 1.5
    assert options["reading"] == config.reading != ReadingConfig()


def test_training_cases_in_another_split_are_named(models, tiny_data, tmp_path, caplog):
    listed = dataclasses.replace(
        tiny_data.plan.domains[0], train=(), validation=("one_0", "one_3")
    )
    plan = tmp_path / "plan.json"
    plan.write_text(plan_to_json(Plan((listed,))))
    settings = {"plan": str(plan), "domains": ("Task91_One",), "split": "validation"}
    found = evaluate_model(configure(tmp_path, **settings))
    assert caplog.messages == [
        f"{plan}: 1 case of the split validation had the names of training cases of "
        "the model: Task91_One/one_0"
    ]
    summary = json.loads((found.output_dir / "summary.json").read_text())
    assert summary["training_cases"] == ["Task91_One/one_0"]


def configure_two(
    tmp_path, models, monkeypatch, *, change=lambda domain: domain, **settings
):
    """Settings for two models, the second of which has only the first domain."""
    first = module.models_by_domain("")
    second = {toy.ONE.name: tmp_path / "second"}
    folders = {str(tmp_path / "model"): first, str(tmp_path / "other"): second}
    load, load_spec = module.keras.load_predictor, module.load_spec_and_state
    plan = load_spec(first[toy.ONE.name], "newest")[0].plan

    def load_either(folder, settings, *, progress):
        predictor = load(first[toy.ONE.name], settings, progress=progress)
        predictor.plan = plan
        predictor.backend = types.SimpleNamespace(
            spec=predictor.spec,
            fingerprint=f"hash of {folder.name}",
            checkpoint=f"of {folder.name}",
            is_exported=False,
        )
        predictor.checkpoint = predictor.backend.checkpoint
        return predictor

    def load_either_spec(folder, checkpoint):
        spec, state = load_spec(first[toy.ONE.name], checkpoint)
        if folder == second[toy.ONE.name]:
            plan = Plan((change(spec.plan.domains[0]),))
            spec = dataclasses.replace(spec, plan=plan)
        return spec, state

    monkeypatch.setattr(module, "models_by_domain", folders.get)
    monkeypatch.setattr(module, "load_spec_and_state", load_either_spec)
    monkeypatch.setattr(module.keras, "load_predictor", load_either)
    return configure(
        tmp_path,
        model_dir=tuple(folders),
        output_dir=str(tmp_path / "out"),
        **settings,
    )


def test_settings_must_suit_every_model(models, tmp_path, monkeypatch):
    folders = []
    monkeypatch.setattr(
        module.keras,
        "require_settings",
        lambda spec, settings, folder: folders.append(folder.name),
    )
    evaluate_model(configure_two(tmp_path, models, monkeypatch))
    assert folders == [toy.ONE.name, "second"]


def test_an_ensemble_is_scored(models, tmp_path, monkeypatch, caplog):
    def train_on_a_test_case(domain):
        return dataclasses.replace(domain, train=("one_5",), test=())

    config = configure_two(
        tmp_path, models, monkeypatch, change=train_on_a_test_case, overlap=0.25
    )
    predictors = []
    score = module.scoring.score_domain

    def record(predictor, *arguments, **options):
        predictors.append(predictor)
        return score(predictor, *arguments, **options)

    monkeypatch.setattr(module.scoring, "score_domain", record)
    progress = RecordedProgress()
    found = evaluate_model(config, progress=progress)
    (predictor,) = predictors
    assert predictor._progress is progress
    assert predictor.overlap == 0.25
    members = [each.checkpoint for each in predictor.backend.members]
    assert members == ["of Task91_One", "of second"]
    assert found.checkpoint == "of Task91_One, of second"
    assert {row.domain for row in found.rows} == {toy.ONE.name}
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert summary["checkpoint_hashes"] == {
        toy.ONE.name: "hash of Task91_One + hash of second"
    }
    # Of the second model, although the first lists it for testing.
    assert summary["training_cases"] == ["Task91_One/one_5"]
    (warning,) = caplog.messages
    assert warning.startswith(f"{', '.join(config.model_dir)}: 1 case of the split")


def test_models_with_different_ignore_labels(models, tmp_path, monkeypatch):
    def change(domain):
        return dataclasses.replace(domain, ignore_label=9)

    config = configure_two(tmp_path, models, monkeypatch, change=change)
    words = f"second: expected the ignore label of .* in .*{toy.ONE.name}, none, .*: 9$"
    with pytest.raises(InputError, match=words):
        evaluate_model(config)
    assert not (tmp_path / "out" / "summary.json").exists()


def test_cases_that_the_model_was_initialized_with(
    models, tmp_path, monkeypatch, caplog
):
    load, checkpoints = module.load_spec_and_state, []
    seen = (
        SeenCases(toy.ONE.name, toy.ONE.test, True),
        SeenCases(toy.TWO.name, (), False),
    )
    state = RunState(initial_cases=seen)

    def load_with_state(folder, checkpoint):
        checkpoints.append(checkpoint)
        return load(folder, checkpoint)[0], state

    monkeypatch.setattr(module, "load_spec_and_state", load_with_state)
    config = configure(tmp_path, checkpoint="best")
    evaluate_model(config)
    assert checkpoints == ["best", "best"]
    path = tmp_path / "model" / "test" / "summary.json"
    summary = json.loads(path.read_text())
    assert summary["training_cases"] == ["Task91_One/one_5"]
    assert summary["domains_with_unlisted_cases"] == [toy.TWO.name]
    first, second = caplog.messages
    model_dir = config.model_dir[0]
    assert first.startswith(f"{model_dir}: 1 case of the split test had the name")
    assert second.startswith(f"{model_dir}: the model does not name all cases of Task")
    caplog.clear()
    evaluate_model(config.with_changes(split="train"))
    path = tmp_path / "model" / "train" / "summary.json"
    summary = json.loads(path.read_text())
    assert summary["training_cases"] == caplog.messages == []
    assert summary["domains_with_unlisted_cases"] == [toy.TWO.name]


def test_models_that_differ_are_an_error_before_they_are_loaded(
    models, tmp_path, monkeypatch
):
    def with_other_patches(domain):
        return dataclasses.replace(domain, patch_size=(8, 8, 16))

    config = configure_two(tmp_path, models, monkeypatch, change=with_other_patches)
    with pytest.raises(InputError, match="second: expected the patch size of Task91"):
        evaluate_model(config)
    assert models == []


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model_dir": ("a", "b")}, "`output_dir`: expected a folder, as there are"),
        (
            {"model_dir": ("a", "a"), "output_dir": "o"},
            "`model_dir`: expected paths of dis",
        ),
        (
            {"model_dir": ()},
            "`model_dir`: expected paths of distinct models. Received: none",
        ),
    ],
)
def test_wrong_settings_of_an_ensemble(tmp_path, monkeypatch, settings, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match=words):
        evaluate_model(configure(tmp_path, **settings))


def test_nothing_to_score_is_an_error_before_a_model_is_loaded(models, tmp_path):
    config = configure(tmp_path, domains=("Task92_Two",), split="validation")
    with pytest.raises(InputError, match="`split`: expected cases in 'validation'"):
        evaluate_model(config)
    assert models == []


def test_a_missing_scan_is_an_error_before_a_model_is_loaded(models, tmp_path):
    with pytest.raises(InputError, match="no/Task91_One/dataset.json"):
        evaluate_model(configure(tmp_path, raw_dir=str(tmp_path / "no")))
    assert models == []


def test_postprocessing_that_replaces_the_plan_s_is_recorded(models, tmp_path):
    config = configure(tmp_path, keep_components=0, keep_foreground_components=2)
    found = evaluate_model(config)
    summary = json.loads((found.output_dir / "summary.json").read_text())
    assert summary["postprocessing"] == {
        "keep_foreground_components": 2,
        "keep_components": 0,
    }


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"prune_to": 2}, "expected at most 1, the depth of the model in .*Task91_One"),
        ({"gate_threshold": 0.5}, "expected none, as the model in .*Task91_One has no"),
    ],
)
def test_a_setting_that_does_not_fit_a_model_is_an_error_before_it_is_loaded(
    models, tmp_path, settings, words
):
    with pytest.raises(InputError, match=words):
        evaluate_model(configure(tmp_path, **settings))
    assert models == []


def test_settings_that_change_predictions_are_recorded(models, tmp_path):
    changed = {"overlap": 0.25, "skip_empty": False, "gate_threshold": 0.5}
    changed |= {"test_time_mirroring": True}
    changed |= {"precision": "mixed_bfloat16", "resample_modalities": True}
    settings = {**changed, "prune_to": 1, "batch_size": 2, "keep_components": 0}
    config = configure(tmp_path, domains=(toy.TWO.name,), **settings)
    summary = json.loads(
        (evaluate_model(config).output_dir / "summary.json").read_text()
    )
    assert summary["prediction"] == changed
    # That of the network, which may have been pruned before.
    assert summary["depths"] == {toy.TWO.name: 1}
    assert _settings(config) == (
        " and --overlap=0.25 --noskip_empty --test_time_mirroring "
        "--precision=mixed_bfloat16 --gate_threshold=0.5 --resample_modalities "
        "--keep_components=0 --prune_to=1"
    )


def test_every_setting_of_predictions_is_recorded_or_named_here():
    recorded = {*EvaluateConfig.prediction_settings, "prune_to"}
    recorded |= set(
        WindowConfig(keep_components=1, keep_foreground_components=1).postprocessing
    )
    # In the path of the checkpoint; and without an effect.
    others = {"checkpoint", "batch_size"}
    assert recorded - {"resample_modalities"} | others == set(WindowConfig.settings())


@pytest.fixture
def damaged(models, tiny_data, tmp_path):
    """Settings for scans with one unreadable test case."""
    moved = shutil.copytree(tiny_data.raw_dir, tmp_path / "moved")
    (moved / "Task92_Two" / "imagesTr" / "two_2.nii.gz").write_bytes(b"no scan")
    return functools.partial(configure, tmp_path, raw_dir=str(moved))


def test_unusable_cases_are_skipped_and_recorded(damaged, models):
    found = evaluate_model(damaged())
    assert found.num_cases == 1
    (name, error), *others = found.skipped.items()
    assert (name, others) == ("Task92_Two/two_2", [])
    assert "two_2.nii.gz: expected a readable NIfTI file" in str(error)
    summary = json.loads((found.output_dir / "summary.json").read_text())
    assert summary["skipped"] == {name: str(error)}
    assert [row["num_cases"] for row in summary["classes"]] == [1, 0, 0]
    assert models[3][:2] == ("Task92_Two", [])


def test_all_headers_are_read_before_the_first_prediction(damaged, models):
    with pytest.raises(InputError, match="two_2.nii.gz: expected a readable NIfTI"):
        evaluate_model(damaged(on_bad_case="fail"))
    assert models == []


def test_no_usable_case_is_an_error(damaged):
    with pytest.raises(InputError, match="`split`: .* problem is: .*two_2.nii"):
        evaluate_model(damaged(domains=("Task92_Two",)))


def test_the_folder_is_writable_before_the_first_prediction(models, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="expected a folder that can be written"):
        evaluate_model(configure(tmp_path, output_dir=str(tmp_path / "file" / "out")))
    assert models == []


def test_cases_are_those_of_a_plan(models, tiny_data, tmp_path):
    one = dataclasses.replace(
        tiny_data.plan.domains[0], train=(), validation=(), folds=FOLDS
    )
    path = tmp_path / "plan.json"
    path.write_text(plan_to_json(Plan((one,))))
    plan = {"domains": (one.name,), "plan": str(path)}
    evaluate_model(configure(tmp_path, **plan, split="train"))
    evaluate_model(configure(tmp_path, **plan, split="validation", fold=1))
    scored = [call[1] for call in models if call[0] == one.name]
    assert scored == [["one_0", "one_1", "one_2"], ["one_2"]]
