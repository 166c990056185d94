"""Training with `fold` on shards written once: one fold is excluded from training."""

import dataclasses
import shutil

import pytest
import toy
from in_process import InProcess

from data_prep.config import ConversionConfig
from data_prep.convert import convert_domains
from u2net_tf.config.training import AdaptConfig
from u2net_tf.errors import InputError
from u2net_tf.models.build import build_network
from u2net_tf.models.checkpoint_reading import CheckpointReader
from u2net_tf.models.loading import load_spec, save_model
from u2net_tf.models.run_state import RunState
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.shards import manifest as manifests
from u2net_tf.shards.manifest import load_converted
from u2net_tf.training import adaptation, loop, validation

pytestmark = pytest.mark.usefixtures("shared_input", "eager_steps")
CASES = (*toy.ONE.train, *toy.ONE.validation)
FOLDS = tuple((case,) for case in CASES)


@pytest.fixture(scope="module")
def folds_dir(tiny_data, tmp_path_factory):
    """Shards of the first toy domain, with a fold for each case but the test case."""
    domain = dataclasses.replace(
        tiny_data.plan.domains[0], train=(), validation=(), folds=FOLDS
    )
    folder = tmp_path_factory.mktemp("folds")
    settings = ConversionConfig(data_dir=str(folder))
    convert_domains.convert(Plan((domain,)), settings, executor=InProcess())
    return folder


@pytest.fixture
def cases_seen(monkeypatch):
    """The sets of cases that a run trained on and validated on."""
    trained, validated = set(), set()

    def step(self, domain, batch, original=loop.Trainer.step):
        trained.update(name.decode() for name in batch["case"].numpy())
        return original(self, domain, batch)

    def watch(*arguments, original=validation._monitored_records):
        for record in original(*arguments):
            validated.add(record.case)
            yield record

    monkeypatch.setattr(loop.Trainer, "step", step)
    monkeypatch.setattr(validation, "_monitored_records", watch)
    return trained, validated


def test_every_shard_belongs_to_one_fold(folds_dir):
    _, (manifest,) = load_converted(folds_dir)
    for index, fold in enumerate(FOLDS):
        assert manifest.shards(fold) == [f"fold{index}-00000-of-00001.tfrecord"]
    assert manifest.shards(toy.ONE.test) == ["test-00000-of-00001.tfrecord"]


@pytest.mark.usefixtures("toy_network")
@pytest.mark.parametrize("fold", [0, 2])
def test_a_fold_is_left_out_and_validated_on(
    train, folds_dir, tmp_path, cases_seen, fold
):
    train(
        tmp_path,
        data_dir=folds_dir,
        fold=fold,
        steps_per_epoch=12,
        validate_every_epochs=1,
        eval_cases=9,
    )
    trained, validated = cases_seen
    assert validated == set(FOLDS[fold])
    assert trained == set(CASES) - validated
    spec = load_spec(tmp_path)
    assert spec.plan.domains[0].validation == FOLDS[fold]
    assert spec.plan.domains[0].test == toy.ONE.test


@pytest.mark.usefixtures("toy_network")
def test_without_a_fold_all_cases_are_trained_on(
    train, folds_dir, tmp_path, cases_seen
):
    train(tmp_path, data_dir=folds_dir, steps_per_epoch=16)
    assert cases_seen[0] == set(CASES)
    assert load_spec(tmp_path).plan.domains[0].train == tuple(sorted(CASES))


@pytest.mark.usefixtures("toy_network")
def test_a_run_is_not_resumed_with_another_fold(train, folds_dir, tmp_path):
    train(tmp_path, data_dir=folds_dir, fold=0, steps_per_epoch=1)
    with pytest.raises(InputError, match="domain .* Received: different train, valid"):
        train(tmp_path, data_dir=folds_dir, fold=1, steps_per_epoch=1, max_epochs=2)


@pytest.mark.usefixtures("toy_network")
@pytest.mark.parametrize(("into", "fold"), [(0, 1), (1, 1)])
def test_a_shard_of_another_fold_with_the_name_of_this_one(
    train, folds_dir, tmp_path, into, fold
):
    """Otherwise, the run would validate on a case that it is trained on."""
    folder = shutil.copytree(folds_dir, tmp_path / "data")
    shard = folder / toy.ONE.name / "fold{}-00000-of-00001.tfrecord"
    source = str(shard).format(1 - into)
    shutil.copyfile(source, str(shard).format(into))
    words = f"{str(shard).format(into)}: expected [0-9]+ bytes in 1 record"
    with pytest.raises(InputError, match=words):
        train(
            tmp_path / "model",
            data_dir=folder,
            fold=fold,
            validate_every_epochs=1,
            steps_per_epoch=8,
        )


@pytest.mark.usefixtures("toy_network")
def test_a_fold_whose_cases_were_skipped(train, folds_dir, tmp_path):
    folder = shutil.copytree(folds_dir, tmp_path / "data")
    _, (manifest,) = load_converted(folder)
    cases = tuple(entry for entry in manifest.cases if entry.case not in FOLDS[1])
    manifest = dataclasses.replace(
        manifest, cases=cases, skipped={FOLDS[1][0]: "no image"}
    )
    path = manifests.manifest_path(folder, manifest.domain)
    path.write_text(manifests.to_json(manifest))
    with pytest.raises(InputError, match="validation cases: expected .*skipped"):
        train(tmp_path / "model", data_dir=folder, fold=1)
    train(tmp_path / "model", data_dir=folder, fold=0, steps_per_epoch=1)


@pytest.mark.usefixtures("toy_network")
def test_resuming_with_other_shards_warns(train, tiny_data, tmp_path, caplog):
    common = {"steps_per_epoch": 1, "domains": (toy.TWO.name,)}
    train(tmp_path / "model", **common)
    train(tmp_path / "model", max_epochs=2, **common)
    assert "shards have changed" not in caplog.text
    settings = ConversionConfig(data_dir=str(tmp_path / "data"), image_dtype="float32")
    convert_domains.convert(tiny_data.plan, settings, executor=InProcess())
    train(tmp_path / "model", data_dir=tmp_path / "data", max_epochs=3, **common)
    assert "data: the shards have changed since the last checkpoint" in caplog.text


@pytest.mark.usefixtures("toy_network")
@pytest.mark.parametrize(("before", "warns"), [(1, False), (2, True), (None, False)])
def test_resuming_on_another_number_of_devices_warns(
    train, tmp_path, caplog, monkeypatch, before, warns
):
    common = {"steps_per_epoch": 1, "domains": (toy.TWO.name,)}
    with monkeypatch.context() as patch:
        if before != 1:
            patch.setattr(
                loop,
                "RunState",
                lambda **given: RunState(**{**given, "num_replicas": before}),
            )
        train(tmp_path, **common)
    path = tmp_path / "checkpoints" / "step-1"
    assert CheckpointReader(str(path)).state().num_replicas == before
    train(tmp_path, max_epochs=2, **common)
    words = (
        "resuming on 1 device, but the last checkpoint was trained on 2, so the result "
        "will differ from that of an uninterrupted run"
    )
    assert (words in caplog.text) == warns


@pytest.mark.usefixtures("toy_network")
def test_a_fold_of_a_plan_without_folds(train, tmp_path):
    with pytest.raises(InputError, match="`fold`: expected no value, since"):
        train(tmp_path / "model", fold=0)
    assert not (tmp_path / "model").exists()


@pytest.mark.usefixtures("toy_network")
def test_a_case_that_was_moved_to_another_fold(train, folds_dir, tmp_path):
    folder = shutil.copytree(folds_dir, tmp_path / "data")
    path = folder / "plan.json"
    first, second = (f'["{cases[0]}"]' for cases in FOLDS[:2])
    text = path.read_text()
    path.write_text(text.replace(f"{first}, {second}", f"{second}, {first}"))
    assert path.read_text() != text
    message = f"case {min(CASES[:2])} in fold., as in the plan .* where it is in fold."
    with pytest.raises(InputError, match=message):
        train(tmp_path / "model", data_dir=folder)


@pytest.mark.slow
@pytest.mark.usefixtures("plain_implementation", "eager_steps")
def test_an_added_domain_also_leaves_a_fold_out(
    folds_dir, tiny_data, tmp_path, cases_seen
):
    spec = ModelSpec(
        tiny_data.plan.select([toy.TWO.name]), pools=(1, 0, 1), base_channels=2
    )
    save_model(tmp_path / "parent", spec, build_network(spec))
    config = AdaptConfig.from_flat(
        {
            "from_": str(tmp_path / "parent"),
            "domain": toy.ONE.name,
            "data_dir": str(folds_dir),
            "model_dir": str(tmp_path / "new"),
            "fold": 1,
            "steps_per_epoch": 8,
            "max_epochs": 1,
            "validate_every_epochs": 1,
            "distribution": "none",
        }
    )
    adaptation.adapt(config)
    trained, validated = cases_seen
    assert validated == set(FOLDS[1])
    assert trained == set(CASES) - validated
    with pytest.raises(InputError, match="domain .* Received: different train, valid"):
        adaptation.adapt(config.with_changes(fold=None, max_epochs=2))
