"""Packing a model folder into one file for all domains."""

import dataclasses
import functools
import json
import math
import zipfile

import numpy as np
import pytest
from toy import ONE, TWO, make_model

pytest.importorskip("onnx", reason="needs the extra `export`")
pytest.importorskip("tf2onnx", reason="needs the extra `export`")
pytest.importorskip("onnxruntime", reason="needs the extra `export`")

import onnxruntime
from converted import SHARP, draw_patches, run_tensorflow
from killed_writer import leave_temporary_file
from packed import make_graph

from u2net_tf.config.packing import PackConfig
from u2net_tf.errors import InputError
from u2net_tf.evaluation.tables import (
    CaseScore,
    ClassScore,
    Summary,
    mean_dice,
    summarize,
    summary_to_json,
)
from u2net_tf.exporting import export_model
from u2net_tf.exporting import pack_model as module
from u2net_tf.exporting.pack_model import pack_model
from u2net_tf.exporting.shared_weights import MIN_BYTES, SharedWeights
from u2net_tf.models.checkpoint_paths import checkpoint_hash, checkpoint_name
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.loading import load_network, save_model
from u2net_tf.models.model_file import read_model_file
from u2net_tf.models.run_state import RunState, ScheduleState
from u2net_tf.plan.labels import Region


@pytest.fixture(scope="module")
def model():
    return make_model(base_channels=4)


@pytest.fixture(scope="module")
def model_dir(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("model")
    save_model(folder, *model)
    return folder


def run_onnxruntime(file, index, patches):
    session = onnxruntime.InferenceSession(
        file.onnx_model(index), providers=["CPUExecutionProvider"]
    )
    return session.run(["probabilities"], {"patches": patches})[0]


def assert_computes_as(file, spec, network, names, atol=2e-5):
    assert [domain.name for domain in file.domains] == names
    for place, name in enumerate(names):
        index = spec.plan.index(name)
        patches = draw_patches(spec, index)
        expected = run_tensorflow(spec, network, index, patches)
        found = run_onnxruntime(file, place, patches)
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_domains_share_their_weights(model, model_dir, tmp_path):
    spec, network = model
    output = tmp_path / "organs.u2net"
    config = PackConfig(model_dir=str(model_dir), output=str(output))
    file = pack_model(config)
    assert file.path == output
    assert_computes_as(file, spec, network, [ONE.name, TWO.name])
    with zipfile.ZipFile(output) as archive:
        weights = archive.getinfo("weights.bin").file_size
    sizes = [
        4 * variable.value.shape.num_elements()
        for variables in (
            network.shared_variables,
            network.domain_variables(0),
            network.domain_variables(1),
        )
        for variable in variables
    ]
    large = [size for size in sizes if size >= MIN_BYTES]
    # Offsets are rounded up to 64 bytes.
    assert sum(large) <= weights < sum(large) + 64 * len(large)
    for content in (output.read_bytes(), file.page.encode()):
        assert not any(case.encode() in content for case in (*ONE.train, *TWO.test))


CONFIGURATIONS = {
    "series": {"adapter": "series"},
    "parallel": {"adapter": "parallel"},
    "shared": {"adapter": "none"},
    "resized": {"patch_size": (8, 8, 8), "resize_method": "cubic"},
    "sharp": SHARP,
    "sharp, shared, gates": {**SHARP, "adapter": "none", "gates": "both"},
}


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "float16"])
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_configurations(tmp_path, name, precision):
    two = TWO.__class__(**{**vars(TWO), "pools": (1, 1, 1)})
    spec, network = make_model(domains=(ONE, two), **CONFIGURATIONS[name])
    save_model(tmp_path / "model", spec, network)
    settings = {
        "model_dir": str(tmp_path / "model"),
        "output": str(tmp_path / "x.u2net"),
        "precision": precision,
    }
    atol = {"float32": 1e-4, "float16": 2e-2}[precision]
    file = pack_model(PackConfig(**settings))
    assert file.description.precision == precision
    assert_computes_as(file, spec, network, [ONE.name, TWO.name], atol)


@pytest.mark.slow
def test_a_pruned_unet_sharp(tmp_path):
    save_model(tmp_path / "model", *make_model(**SHARP))
    settings = {"model_dir": str(tmp_path / "model")}
    full = pack_model(PackConfig(**settings, output=str(tmp_path / "full.u2net")))
    pruned = pack_model(
        PackConfig(**settings, output=str(tmp_path / "pruned.u2net"), prune_to=1)
    )
    spec, network, _ = load_network(tmp_path / "model", prune_to=1)
    assert_computes_as(pruned, spec, network, [ONE.name, TWO.name], 1e-4)
    assert pruned.domains[0].spec.depth == 1
    assert [about.pruned_to for about in pruned.description.card.domains] == [1, 1]
    assert "Pruned to depth 1." in pruned.page
    assert pruned.path.stat().st_size < full.path.stat().st_size


@pytest.mark.slow
def test_independent_models(tmp_path):
    networks = {}
    for seed, domain in enumerate((ONE, TWO)):
        spec, network = make_model(domains=(domain,), adapter="none", seed=seed)
        save_model(tmp_path / "models" / domain.name, spec, network)
        networks[domain.name] = spec, network
    file = pack_model(
        PackConfig(model_dir=str(tmp_path / "models"), output=str(tmp_path / "x.u2net"))
    )
    for index, (name, (spec, network)) in enumerate(networks.items()):
        assert file.domains[index].name == name
        patches = draw_patches(spec, 0)
        expected = run_tensorflow(spec, network, 0, patches)
        found = run_onnxruntime(file, index, patches)
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-4)


# Builds each network only once.
load_once = functools.cache(load_network)


@pytest.fixture
def simple_graphs(monkeypatch):
    """Replaces the conversion of networks, which takes a second or two."""
    monkeypatch.setattr(export_model, "load_network", load_once)

    def convert(network, spec, index, *, fingerprint):
        found = make_graph((ONE.name, TWO.name).index(spec.plan.names[index]))
        found.doc_string = fingerprint
        return found

    monkeypatch.setattr(module, "to_onnx", convert)


@pytest.fixture(scope="module")
def trained_dir(model, tmp_path_factory):
    """Checkpoints of a run that trained only the first domain."""
    folder = tmp_path_factory.mktemp("trained")
    spec, network = model
    invariants = {
        "trained domains": [ONE.name],
        "shared variables": False,
        "precision": "mixed_float16",
        "fold": 2,
    }
    checkpoints = Checkpoints(folder, spec, network, {}, keep=2, invariants=invariants)
    for step in (5, 9):
        schedule = ScheduleState(0.1, epochs=step - 3, finished=step == 9)
        state = RunState(step=step, schedule=schedule)
        checkpoints.save(state)
    return folder


@pytest.mark.usefixtures("simple_graphs")
class TestSettings:
    def pack(self, folder, tmp_path, **changes):
        output = tmp_path / "x.u2net"
        config = {"model_dir": str(folder), "output": str(output), **changes}
        return pack_model(PackConfig(**config))

    def test_domains_and_their_order(self, model_dir, tmp_path):
        one = self.pack(model_dir, tmp_path, domains=(TWO.name,))
        assert one.plan.names == (TWO.name,)
        both = (TWO.name, ONE.name)
        swapped = self.pack(model_dir, tmp_path, domains=both, overwrite=True)
        assert swapped.plan.names == both
        assert [domain.graph for domain in swapped.description.domains] == [
            "domain-0.onnx",
            "domain-1.onnx",
        ]

    def test_precision(self, model_dir, tmp_path):
        single = self.pack(model_dir, tmp_path)
        half = self.pack(model_dir, tmp_path, precision="float16", overwrite=True)
        assert half.description.precision == "float16"
        fingerprints = [f.domains[0].fingerprint for f in (single, half)]
        assert fingerprints[1] == f"{fingerprints[0]} float16"
        assert fingerprints[1].encode() in half.onnx_model(0)

    def test_the_same_model_makes_the_same_file(self, model_dir, tmp_path):
        first = self.pack(model_dir, tmp_path).path.read_bytes()
        again = self.pack(model_dir, tmp_path, overwrite=True).path.read_bytes()
        assert first == again

    def test_checkpoint_and_training(self, trained_dir, tmp_path):
        newest = self.pack(trained_dir, tmp_path).description.card.domains[0]
        assert (newest.checkpoint, newest.training.finished) == ("step-9", True)
        file = self.pack(
            trained_dir, tmp_path, checkpoint=checkpoint_name(5), overwrite=True
        )
        first, second = file.description.card.domains
        assert first.checkpoint == second.checkpoint == "step-5"
        assert vars(first.training) == {
            "steps": 5,
            "epochs": 2,
            "finished": False,
            "trained": True,
            "shared_variables": False,
            "precision": "mixed_float16",
            "fold": 2,
        }
        assert not second.training.trained
        assert (
            "5 steps over all domains of the run; 2 epochs, not ended by the "
            "learning-rate schedule; shared "
            "weights frozen; computed in mixed_float16; validated on fold 2. step-5, "
            "written by u2net-tf "
        ) in file.page
        assert "this domain's weights unchanged" in file.page

    def test_missing_texts(self, model_dir, tmp_path):
        file = self.pack(model_dir, tmp_path)
        texts = vars(file.description.card.texts)
        assert texts.pop("data") == {}
        assert not any(texts.values())
        # Six headings; data and Dice of each domain.
        assert file.page.count("Not given.") == 6 + 2 * 2
        assert "Not recorded: the model was composed or ported." in file.page

    def test_texts(self, model_dir, tmp_path):
        card = tmp_path / "card.json"
        data = {TWO.name: "# Drawn | here."}
        card.write_text(json.dumps({"title": "Organs", "licence": None, "data": data}))
        file = self.pack(
            model_dir,
            tmp_path,
            card_fields=str(card),
            licence="CC-BY-4.0",
            intended_use="Research only.",
        )
        texts = file.description.card.texts
        assert (texts.title, texts.licence) == ("Organs", "CC-BY-4.0")
        assert (texts.intended_use, texts.data) == ("Research only.", data)
        assert file.page.startswith(
            "# Organs\n\n## Intended use\n\nResearch only.\n\n## Limitations\n\nNot"
        )
        assert "### Data\n\n\\# Drawn | here.\n\nCases: 2 for training" in file.page

    def test_regions_and_ignore_label(self, tmp_path):
        regions = (Region("all", ("rim", "core")), Region("inner", ("core",)))
        two = dataclasses.replace(TWO, regions=regions, ignore_label=9)
        save_model(tmp_path / "model", *make_model((ONE, two)))
        _, page = self.pack(tmp_path / "model", tmp_path).page.split(f"## {TWO.name}")
        assert "\n\nRegions: all (rim, core); inner (core).\n\n" in page
        assert "\n\nIn the reference label maps, voxels of the value 9 are not" in page
        one = self.pack(
            tmp_path / "model", tmp_path, domains=(ONE.name,), overwrite=True
        )
        _, page = one.page.split(f"## {ONE.name}")
        assert "Regions" not in page
        assert "label maps, voxels" not in page

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("[]", "card.json: expected a JSON object with texts for a model card"),
            ("{", "card.json: expected a JSON object with texts for a model card"),
            ('{"license": "x"}', "Did you mean 'licence'?"),
            ('{"title": ""}', "card.json: title: expected a non-empty string"),
            ('{"title": 5}', "card.json: title: expected a string. Received: 5"),
            ('{"data": {"x": "y"}}', "card.json: data: expected some of Task91_One, "),
            ('{"licence": "x"}', "`licence`: expected no value, as "),
        ],
    )
    def test_invalid_texts(self, model_dir, tmp_path, text, words):
        (tmp_path / "card.json").write_text(text)
        card = str(tmp_path / "card.json")
        with pytest.raises(InputError) as error:
            self.pack(model_dir, tmp_path, card_fields=card, licence="CC-BY-4.0")
        assert words in str(error.value)
        assert [path.name for path in tmp_path.iterdir()] == ["card.json"]

    def test_missing_file_of_texts(self, model_dir, tmp_path):
        with pytest.raises(InputError, match=r"none.json: .* Received: no such file"):
            self.pack(model_dir, tmp_path, card_fields=str(tmp_path / "none.json"))

    def write_summary(
        self,
        folder,
        domains=(ONE,),
        checkpoint="a/checkpoints/step-9",
        split="test",
        **fields,
    ):
        scores = [
            CaseScore(domain.name, case, dict.fromkeys(labels, dice), {})
            for domain in domains
            for labels in [[label.name for label in domain.labels[1:]]]
            for case, dice in (("secret_1", 0.5), ("secret_2", 0.7))
        ]
        rows = summarize(scores, domains)
        text = summary_to_json(
            Summary(
                split,
                checkpoint,
                mean_dice(rows),
                tuple(rows),
                {f"{domains[0].name}/secret_3": "secret"},
                **fields,
            )
        )
        folder.mkdir()
        (folder / "summary.json").write_text(text)
        return str(folder)

    def test_dice(self, trained_dir, tmp_path):
        folders = (
            self.write_summary(tmp_path / "a"),
            self.write_summary(tmp_path / "b", [TWO], "x, y/step-7, b/step-9"),
        )
        file = self.pack(trained_dir, tmp_path, evaluation=folders)
        first, second = (about.evaluation for about in file.description.card.domains)
        assert (first.split, first.checkpoint, first.num_skipped) == (
            "test",
            "step-9",
            1,
        )
        assert vars(first.classes[0]) == {
            "label": "organ",
            "mean": pytest.approx(0.6),
            "standard_deviation": pytest.approx(0.1),
            "num_cases": 2,
            "num_absent": 0,
        }
        assert [row.label for row in second.classes] == ["rim", "core"]
        assert "step-9 on the test cases; 1 case could not be scored" in file.page
        assert "| organ   | 60.0     | 10.0   | 2       | 0        |" in file.page
        assert b"secret" not in file.path.read_bytes()

    def test_dice_of_regions(self, trained_dir, tmp_path):
        row = ClassScore(TWO.name, "a|b", 0.625, 0.25, 3, 1)
        classes = {f"{TWO.name}/a|b": ("core", "rim"), f"{ONE.name}/a|b": ("organ",)}
        for name, recorded, cell in (
            ("new", classes, "core, rim"),
            ("old", None, "not recorded"),
        ):
            folder = self.write_summary(
                tmp_path / name, [ONE, TWO], regions=(row,), region_classes=recorded
            )
            file = self.pack(
                trained_dir, tmp_path, evaluation=(folder,), overwrite=True
            )
            first, second = (
                about.evaluation for about in file.description.card.domains
            )
            assert first.regions == ()
            (found,) = second.regions
            assert vars(found) == {
                "label": "a|b",
                "mean": 0.625,
                "standard_deviation": 0.25,
                "num_cases": 3,
                "num_absent": 1,
                "classes": None if recorded is None else ("core", "rim"),
            }
            (line,) = [line for line in file.page.splitlines() if "a\\|b" in line]
            cells = ["a\\|b", cell, "62.5", "25.0", "3", "1"]
            assert line.replace("\\|", "/").count("|") == 1 + len(cells)
            assert line.split() == ["|", *" | ".join(cells).split(), "|"]

    def test_an_undefined_dice(self, trained_dir, tmp_path):
        """Neither mask of any case contains the region."""
        row = ClassScore(ONE.name, "all", math.nan, math.nan, 0, 2)
        folder = self.write_summary(tmp_path / "a", regions=(row,))
        file = self.pack(trained_dir, tmp_path, evaluation=(folder,))
        (found,) = file.description.card.domains[0].evaluation.regions
        assert math.isnan(found.mean)
        (line,) = [line for line in file.page.splitlines() if line.startswith("| all")]
        assert line.split("|")[3:5] == [f" {'–':<8} ", f" {'–':<6} "]

    def test_invalid_dice_of_a_region(self, trained_dir, tmp_path):
        row = ClassScore(ONE.name, "all", 1.5, 0.0, 1, 0)
        folder = self.write_summary(tmp_path / "a", regions=(row,))
        words = "mean of all: expected a Dice from 0 to 1. Received: 1.5"
        with pytest.raises(InputError, match=words):
            self.pack(trained_dir, tmp_path, evaluation=(folder,))

    @pytest.mark.parametrize(
        ("unlisted", "split", "expected"),
        [
            (None, "test", None),
            ((), "test", True),
            ((ONE.name,), "test", False),
            ((ONE.name,), "train", False),
        ],
    )
    def test_unknown_training_cases(
        self, trained_dir, tmp_path, unlisted, split, expected
    ):
        folder = self.write_summary(
            tmp_path / "a", split=split, domains_with_unlisted_cases=unlisted
        )
        file = self.pack(trained_dir, tmp_path, evaluation=(folder,))
        about = file.description.card.domains[0].evaluation
        assert about.lists_training_cases is expected
        words = "so whether some of the test cases are among them is unknown."
        assert (words in file.page) == (expected is False and split == "test")
        assert "so whether some of the train cases" not in file.page

    def test_dice_of_other_weights(self, trained_dir, tmp_path):
        """The checkpoint of the scores has the same name, in another folder."""
        known = checkpoint_hash(str(trained_dir / "checkpoints" / "step-9"))
        for name, scored in (("a", known), ("b", "0" * 64)):
            hashes = {ONE.name: scored, TWO.name: known}
            folder = self.write_summary(tmp_path / name, checkpoint_hashes=hashes)
            if scored == known:
                self.pack(trained_dir, tmp_path, evaluation=(folder,))
                continue
            with pytest.raises(
                InputError,
                match=r"summary\.json: checkpoint: expected step-9, the packed "
                r"checkpoint\. Received: a/checkpoints/step-9, with another hash",
            ):
                self.pack(trained_dir, tmp_path, evaluation=(folder,), overwrite=True)

    def test_dice_of_label_maps_of_unknown_models(self, trained_dir, tmp_path):
        """As `score` writes it, here for label maps in a folder named like a step."""
        folder = self.write_summary(
            tmp_path / "a", checkpoint="label maps in a/step-9", checkpoint_hashes={}
        )
        with pytest.raises(InputError, match=r"label maps in a/step-9, without a hash"):
            self.pack(trained_dir, tmp_path, evaluation=(folder,))

    def test_dice_of_a_composed_model_without_a_hash(self, model_dir, tmp_path):
        folder = self.write_summary(tmp_path / "a", checkpoint="b/step-0")
        with pytest.raises(InputError, match=r"step-0, without a hash"):
            self.pack(model_dir, tmp_path, evaluation=(folder,))

    def test_dice_of_training_cases(self, trained_dir, tmp_path):
        folder = self.write_summary(
            tmp_path / "a",
            [ONE, TWO],
            training_cases=(f"{ONE.name}/one_0", f"{ONE.name}x/one_1"),
        )
        with pytest.raises(
            InputError,
            match=r"training_cases: expected no training cases in the split test\. "
            r"Received: Task91_One/one_0\. Evaluate with the plan",
        ):
            self.pack(trained_dir, tmp_path, evaluation=(folder,))
        self.pack(trained_dir, tmp_path, evaluation=(folder,), domains=(TWO.name,))

    def test_dice_with_other_postprocessing(self, trained_dir, tmp_path):
        folder = self.write_summary(
            tmp_path / "a", postprocessing={"keep_components": 2}
        )
        with pytest.raises(
            InputError,
            match=r"summary\.json: postprocessing: expected that of the model's plan, "
            "which predictions use by default. Received: keep_components=2",
        ):
            self.pack(trained_dir, tmp_path, evaluation=(folder,))

    def test_dice_with_other_settings_of_prediction(self, trained_dir, tmp_path):
        folder = self.write_summary(tmp_path / "a", prediction={"gate_threshold": 0.5})
        with pytest.raises(
            InputError,
            match=r"summary\.json: prediction: expected the default settings, .* "
            r"Received: gate_threshold=0\.5",
        ):
            self.pack(trained_dir, tmp_path, evaluation=(folder,))

    def test_dice_of_another_depth(self, trained_dir, tmp_path):
        folder = self.write_summary(tmp_path / "a", depths={ONE.name: 2})
        with pytest.raises(
            InputError,
            match=r"summary\.json: depth of Task91_One: expected none, that of the "
            "packed network. Received: 2. Evaluate again, with the same `prune_to`",
        ):
            self.pack(trained_dir, tmp_path, evaluation=(folder,))

    @pytest.mark.slow
    def test_dice_of_a_unet_sharp(self, tmp_path):
        save_model(tmp_path / "model", *make_model(**SHARP))
        checkpoint = str(tmp_path / "model" / "checkpoints" / "step-0")
        hashes = {ONE.name: checkpoint_hash(checkpoint)}
        for depths, prune_to, words in (
            ({ONE.name: 2}, None, None),
            ({ONE.name: 1}, 1, None),
            ({ONE.name: 2}, 1, "expected 1, that of the packed network. Received: 2"),
            ({}, None, "expected 2, that of the packed network. Received: no depth"),
            (None, None, "expected 2, .* Received: not recorded by an older version"),
        ):
            folder = self.write_summary(
                tmp_path / str((depths, prune_to)),
                checkpoint=checkpoint,
                depths=depths,
                checkpoint_hashes=hashes,
            )
            settings = {"evaluation": (folder,), "prune_to": prune_to}
            if words is None:
                self.pack(tmp_path / "model", tmp_path, **settings, overwrite=True)
                continue
            with pytest.raises(InputError, match=words):
                self.pack(tmp_path / "model", tmp_path, **settings, overwrite=True)

    def test_dice_of_some_domains(self, trained_dir, tmp_path):
        folder = self.write_summary(tmp_path / "a", [TWO])
        file = self.pack(trained_dir, tmp_path, evaluation=(folder,))
        assert file.description.card.domains[0].evaluation is None

    @pytest.mark.parametrize(
        ("domains", "checkpoint", "words"),
        [
            ([ONE], "a/step-8", "summary.json: checkpoint: expected step-9, the "),
            (
                [ONE.__class__(**{**vars(ONE), "name": "x"})],
                "a/step-9",
                "expected scores of Task91_One, Task92_Two. Received: scores of x",
            ),
            (
                [ONE.__class__(**{**vars(TWO), "name": ONE.name})],
                "a/step-9",
                "summary.json: classes: expected organ of Task91_One. Received: ",
            ),
        ],
    )
    def test_dice_of_another_model(
        self, trained_dir, tmp_path, domains, checkpoint, words
    ):
        folder = self.write_summary(tmp_path / "a", domains, checkpoint)
        with pytest.raises(InputError) as error:
            self.pack(trained_dir, tmp_path, evaluation=(folder,))
        assert words in str(error.value)

    def test_dice_that_is_given_twice(self, trained_dir, tmp_path):
        folders = [self.write_summary(tmp_path / name) for name in "ab"]
        with pytest.raises(
            InputError, match="expected a single one with scores of Task91_One"
        ):
            self.pack(trained_dir, tmp_path, evaluation=tuple(folders))

    def test_missing_dice(self, trained_dir, tmp_path):
        with pytest.raises(InputError, match=r"summary.json: .* no such file"):
            self.pack(trained_dir, tmp_path, evaluation=(str(tmp_path),))

    def test_overwrite(self, model_dir, tmp_path):
        output = tmp_path / "x.u2net"
        output.write_text("before")
        with pytest.raises(InputError, match=r"expected a new file.*: a file. Use `ov"):
            self.pack(model_dir, tmp_path)
        assert output.read_text() == "before"
        left = leave_temporary_file(output)
        self.pack(model_dir, tmp_path, overwrite=True)
        assert read_model_file(output)
        assert not left.exists()
        output.unlink()
        output.mkdir()
        with pytest.raises(InputError, match=r"expected a new file. Received: a fold"):
            self.pack(model_dir, tmp_path, overwrite=True)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"output": "x.zip"}, "`output`: expected a name that ends with .u2net"),
            ({"domains": ("x",)}, "`domains`: expected some of Task91_One, Task92"),
            ({"checkpoint": "step-7"}, "`checkpoint`: expected newest, best or one of"),
            ({"prune_to": 1}, "`prune_to`: expected no value, since only unet"),
            (
                {"model_dir": "none"},
                "none: expected a model written by `python -m u2net",
            ),
        ],
    )
    def test_invalid_settings(self, model_dir, tmp_path, changes, words):
        with pytest.raises(InputError) as error:
            self.pack(model_dir, tmp_path, **changes)
        assert words in str(error.value)
        assert not list(tmp_path.iterdir())

    def test_a_failure_leaves_nothing_behind(self, model_dir, tmp_path, monkeypatch):
        def fail(path, members):
            path.write_bytes(b"half")
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(module, "write_members", fail)
        with pytest.raises(OSError, match=r"No space left on device: .*x\.u2net"):
            self.pack(model_dir, tmp_path)
        assert not list(tmp_path.iterdir())


def test_weights_beyond_float16():
    graph = make_graph(0)
    tensor = graph.graph.initializer[1]
    array = np.frombuffer(tensor.raw_data, np.float32).copy()
    array[7] = 1e6
    tensor.raw_data = array.tobytes()
    with pytest.raises(
        InputError, match="weights of shared.* out of range for float16"
    ):
        SharedWeights("w", "float16").move(graph)
    SharedWeights("w", "float32").move(make_graph(0))
