"""Domains of models as adapter files: added in any order, removed, refused."""

import dataclasses
import functools
import re
import shutil

import numpy as np
import pytest
import tensorflow as tf
import toy
from killed_writer import leave_temporary_file

from u2net_tf.config.adapter_files import (
    AdapterAddConfig,
    AdapterExportConfig,
    AdapterRemoveConfig,
)
from u2net_tf.errors import InputError
from u2net_tf.models import (
    adapter_files,
    adapter_models,
    adapters,
    checksums,
    composition,
)
from u2net_tf.models.adapter_files import AdapterFile
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.checkpoint_paths import checkpoint_folder
from u2net_tf.models.checkpoints import Checkpoints
from u2net_tf.models.composed_models import is_same_model
from u2net_tf.models.loading import load_network, load_spec_and_state, save_model
from u2net_tf.models.run_state import RunState, SeenCases
from u2net_tf.models.variables import own_by_name, shared_by_path

pytestmark = pytest.mark.usefixtures("plain_implementation")

ONE, TWO = toy.ONE, toy.TWO
THREE = dataclasses.replace(TWO, name="Task93_Three")
FOUR = dataclasses.replace(ONE, name="Task94_Four", modalities=("T1", "T2", "T3"))
SHARP = {"architecture": "unet_sharp", "depth": 1}
NETWORKS = {
    "u2net, separable": {},
    "u2net, none": {"adapter": "none"},
    "u2net, series": {"adapter": "series"},
    "u2net, parallel": {"adapter": "parallel"},
    "unet_sharp, separable": SHARP,
    "unet_sharp, none": {**SHARP, "adapter": "none"},
}


# The smallest one: building networks takes most of the time of these tests.
DEFAULT = "unet_sharp, none"


@functools.cache
def base(name):
    return toy.make_model((ONE,), **NETWORKS[name])


def base_of(name=DEFAULT):
    return base(name)


def other_base(**changes):
    return toy.make_model((ONE,), seed=1, **{**NETWORKS[DEFAULT], **changes})


def lab_of(domain, name=DEFAULT):
    return lab(domain, name)


@functools.cache
def lab(domain, name):
    """Returns a model that a lab made from the base by adding a domain."""
    spec, network = composition.extend(*base_of(name), domain, init="mean")
    for index, variable in enumerate(network.domain_variables(1)):
        variable.assign(variable + 0.1 * (index + 1))
    return spec, network


def write(path, model, name, precision="float32"):
    adapter = adapters.of_domain(*model, name)
    path.write_bytes(adapter_files.to_bytes(adapter, precision))
    return AdapterFile(path)


@pytest.mark.parametrize(
    "name",
    [
        DEFAULT,
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in NETWORKS
            if name != DEFAULT
        ),
    ],
)
def test_trunk_and_adapters_are_the_composed_model(name, tmp_path):
    """Bit for bit; the order of files does not change any domain."""
    parent, labs = base_of(name), {d.name: lab_of(d, name) for d in (THREE, FOUR)}
    files = [write(tmp_path / n, model, n) for n, model in labs.items()]
    assert files[0].metadata.trunk_sha256 == checksums.of_trunk(parent[1])
    composed = composition.compose({"base": parent, **labs})
    added = adapters.with_adapters(*parent, files, model="base")
    assert is_same_model(added, composed)
    other = parent
    for file in reversed(files):
        other = adapters.with_adapters(*other, [file], model="base")
    assert other[0].plan.names == (ONE.name, FOUR.name, THREE.name)
    for spec, network in (added, other):
        for file in files:
            index = spec.plan.index(file.name)
            found = checksums.of_domain_variables(network, index)
            assert found == file.metadata.variables_sha256


def test_names_have_no_index_and_paths_have_one():
    _, network = lab_of(FOUR)
    paths = network.variables_by_path()
    shared = shared_by_path(network)
    assert set(shared) <= set(paths)
    for domain in (0, 1):
        own = own_by_name(network, domain)
        assert {f"{name}_{domain}" for name in own} <= set(paths)
        assert list(own) == list(own_by_name(network, 0))
        toy.assert_identical(
            toy.values_of(own.values()), toy.values_of(network.domain_variables(domain))
        )
    assert len(paths) == len(shared) + 2 * len(own)


def test_float16_is_close(tmp_path):
    lab = lab_of(FOUR)
    file = write(tmp_path / "x", lab, FOUR.name, "float16")
    exact = write(tmp_path / "y", lab, FOUR.name)
    assert (tmp_path / "x").stat().st_size < (tmp_path / "y").stat().st_size
    spec, network = adapters.with_adapters(*base_of(), [file], model="base")
    images = np.random.default_rng(0).standard_normal((1, 4, 4, 4, 3))
    images = tf.constant(images, tf.float32)
    logits = [model(images, domain=1).numpy() for model in (network, lab[1])]
    np.testing.assert_allclose(*logits, rtol=0.02, atol=0.02)
    assert not np.array_equal(*logits)
    found = checksums.of_domain_variables(network, 1)
    assert found == file.metadata.variables_sha256 != exact.metadata.variables_sha256
    assert spec == without_case_names(lab[0])


class TestRefused:
    def test_another_trunk(self, tmp_path):
        file = write(tmp_path / "x", lab_of(FOUR), FOUR.name)
        other = other_base()
        trunks = [checksums.of_trunk(other[1]), file.metadata.trunk_sha256]
        with pytest.raises(
            InputError, match=r"x: .*{}.* Received: .*{}$".format(*trunks)
        ):
            adapters.with_adapters(*other, [file], model="base")

    def test_another_network(self, tmp_path):
        file = write(tmp_path / "x", lab_of(FOUR), FOUR.name)
        other = other_base(base_channels=4)
        words = "base_channels is 2 in the file and 4 in the model"
        with pytest.raises(InputError, match=f"{words}$"):
            adapters.with_adapters(*other, [file], model="base")

    def test_the_same_variables_with_other_settings(self, tmp_path):
        """Like the number of poolings, they do not affect the shape of any variable."""
        file = write(tmp_path / "x", lab_of(FOUR), FOUR.name)
        spec, network = base_of()
        spec = dataclasses.replace(spec, resize_method="cubic")
        words = "resize_method is linear in the file and cubic in the model"
        with pytest.raises(InputError, match=words):
            adapters.with_adapters(spec, network, [file], model="base")

    def test_another_domain_with_the_same_name(self, tmp_path):
        file = write(tmp_path / "x", lab_of(FOUR), FOUR.name)
        spec, network = adapters.with_adapters(*base_of(), [file], model="base")
        again = adapters.with_adapters(spec, network, [file, file], model="base")
        assert again == (spec, network)
        rounded = write(tmp_path / "y", lab_of(FOUR), FOUR.name, "float16")
        with pytest.raises(
            InputError, match="y: expected the same domain Task94_Four as in b"
        ):
            adapters.with_adapters(spec, network, [rounded], model="base")
        with pytest.raises(
            InputError, match="y: expected the same domain .* as in .*x. Rec"
        ):
            adapters.with_adapters(*base_of(), [file, rounded], model="base")

    def test_a_plan_that_does_not_match(self, tmp_path):
        adapter = adapters.of_domain(*lab_of(FOUR), FOUR.name)

        def written(domain):
            plan = dataclasses.replace(adapter.spec.plan, domains=(domain,))
            counts = adapter.spec.case_counts
            spec = dataclasses.replace(adapter.spec, plan=plan, case_counts=counts)
            other = dataclasses.replace(adapter, spec=spec)
            (tmp_path / "x").write_bytes(adapter_files.to_bytes(other))
            return [AdapterFile(tmp_path / "x")]

        (domain,) = adapter.spec.plan.domains
        fewer = dataclasses.replace(domain, modalities=("T1",))
        with pytest.raises(
            InputError, match="x: expected stem.*, according to its plan"
        ):
            adapters.with_adapters(*base_of(), written(fewer), model="base")
        odd = dataclasses.replace(domain, patch_size=(7, 8, 8), pools=(0, 1, 1))
        with pytest.raises(InputError, match="x: patch_size: expected sizes divisible"):
            adapters.with_adapters(*base_of(), written(odd), model="base")


@pytest.fixture
def quick_checksums(monkeypatch):
    """Computing logits takes most of the time of changing small models."""
    monkeypatch.setattr(
        checksums,
        "of_domains",
        lambda spec, network: dict.fromkeys(spec.plan.names, "0"),
    )


def contents(folder):
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("saved")
    save_model(folder / "base", *base_of())
    save_model(folder / "lab", *lab_of(FOUR))
    export(folder)
    return folder


@pytest.fixture
def folders(saved, tmp_path):
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path


def export(folder, **options):
    given = {"model_dir": str(folder / "lab"), "domain": FOUR.name}
    given["output"] = str(folder / "x.safetensors")
    return adapter_models.export_adapter(AdapterExportConfig(**{**given, **options}))


def add(folder, model="base", **options):
    given = {"model_dir": str(folder / model)}
    given["input"] = (str(folder / "x.safetensors"),)
    return adapter_models.add_adapters(AdapterAddConfig(**{**given, **options}))


@pytest.mark.usefixtures("quick_checksums")
class TestFolders:
    def test_added_to_a_new_folder(self, folders):
        before = contents(folders / "base")
        found = add(folders, output_dir=str(folders / "new"))
        assert found.domains == (ONE.name, FOUR.name)
        assert found.checksums.count("identical") == 1
        composed = composition.compose({"base": base_of(), "lab": lab_of(FOUR)})
        assert is_same_model(load_network(folders / "new")[:2], composed)
        assert contents(folders / "base") == before
        assert add(folders, output_dir=str(folders / "new")) == found

    def test_added_and_removed_in_place(self, folders):
        path = add(folders).checkpoint
        assert path == str(checkpoint_folder(folders / "base") / "step-1")
        written = contents(folders / "base")
        assert len(written) == 2
        # Adding it again changes nothing.
        assert add(folders).checkpoint == path
        assert contents(folders / "base") == written
        config = AdapterRemoveConfig(
            model_dir=str(folders / "base"), domains=(ONE.name,)
        )
        elsewhere = config.with_changes(output_dir=str(folders / "fewer"))
        # The trunk has still been trained on the domain.
        for each, name in ((elsewhere, "fewer"), (config, "base")):
            assert adapter_models.remove_adapters(each).domains == (FOUR.name,)
            _, state = load_spec_and_state(folders / name)
            assert state.initial_cases == (SeenCases(ONE.name, (), False),)
        assert len(contents(folders / "base")) == 2
        with pytest.raises(InputError, match="`domains`: expected some of Task94_Four"):
            adapter_models.remove_adapters(config)
        last = config.with_changes(domains=(FOUR.name,))
        with pytest.raises(InputError, match="expected fewer than the 1 of the model"):
            adapter_models.remove_adapters(last)

    def test_a_killed_run_leaves_a_model(self, folders, monkeypatch):
        """The old and the new checkpoint are left, and the new one is used."""

        def interrupt(*arguments):
            raise KeyboardInterrupt

        def remove(name):
            config = AdapterRemoveConfig(
                model_dir=str(folders / "base"), domains=(name,)
            )
            return adapter_models.remove_adapters(config)

        def kill(run, *arguments):
            with monkeypatch.context() as patch:
                patch.setattr(Checkpoints, "_remove_others", interrupt)
                with pytest.raises(KeyboardInterrupt):
                    run(*arguments)
            assert len(contents(folders / "base")) == 4

        kill(add, folders)
        added = add(folders)
        assert added.domains == (ONE.name, FOUR.name)
        assert len(contents(folders / "base")) == 2
        # Only domains of the model before the change are compared.
        assert "identical" in added.checksums
        assert FOUR.name not in added.checksums

        kill(remove, ONE.name)
        with pytest.raises(InputError, match="expected fewer than the 1 of the model"):
            remove(FOUR.name)
        assert remove(ONE.name).domains == (FOUR.name,)
        assert len(contents(folders / "base")) == 2

    def test_a_trained_model_is_not_changed(self, folders):
        spec, trainer = toy.make_trainer()
        variables = trainer.variables_by_path()
        saver = Checkpoints(folders / "t", spec, trainer.network, variables, keep=1)
        saver.save(RunState(step=3))
        with pytest.raises(InputError, match="Set `output_dir` to a new folder"):
            adapter_models._require_untrained(saver.newest())

    def test_a_refused_file_leaves_nothing(self, folders):
        save_model(folders / "other", *other_base())
        before = contents(folders)
        for options in ({}, {"output_dir": str(folders / "new")}):
            with pytest.raises(InputError, match="expected an adapter for the trunk"):
                add(folders, "other", **options)
        assert contents(folders) == before
        assert not (folders / "new").exists()

    def test_independent_models(self, folders):
        with pytest.raises(InputError, match="independent models: base, lab. Adapters"):
            adapter_models.load_model(str(folders))


class TestExport:
    def test_texts_and_precision(self, folders):
        (folders / "card.md").write_text("# Card\n")
        more = {"licence": "MIT", "card": str(folders / "card.md")}
        more |= {
            "precision": "float16",
            "output": str(folders / "new" / "y.safetensors"),
        }
        file, checkpoint = export(folders, checkpoint="step-0", **more)
        assert (file.metadata.licence, file.metadata.card) == ("MIT", "# Card\n")
        assert (file.precision, file.name) == ("float16", FOUR.name)
        assert checkpoint.endswith("lab/checkpoints/step-0")

    def test_an_existing_file(self, folders):
        before = contents(folders)
        export(folders)
        with pytest.raises(InputError, match="x.safetensors: expected a new file"):
            export(folders, licence="MIT")
        assert contents(folders) == before
        assert export(folders, licence="MIT", overwrite=True).file.metadata.licence

    def test_outputs_that_cannot_be_written(self, folders):
        with pytest.raises(InputError, match="`output`: .* ends with .safetensors"):
            export(folders, output=str(folders))
        path = folders / "y.safetensors"
        path.mkdir()
        with pytest.raises(InputError, match="y.safetensors: .* Received: a folder"):
            export(folders, output=str(path))

    def test_what_killed_runs_left_is_removed(self, folders):
        left = leave_temporary_file(folders / "y.safetensors")
        export(folders, output=str(folders / "y.safetensors"))
        assert not left.exists()

    @pytest.mark.parametrize(
        ("options", "words"),
        [
            ({"domain": "x"}, "`domain`: expected one of Task91_One, Task94_Four. Rec"),
            ({"checkpoint": "step-7"}, "`checkpoint`: expected newest, best or one of"),
            ({"licence": "a\nb"}, "`licence`: expected one line"),
            ({"card": "lab"}, "lab"),
        ],
    )
    def test_invalid_options(self, folders, options, words, monkeypatch):
        monkeypatch.chdir(folders)
        with pytest.raises((InputError, OSError), match=re.escape(words)):
            export(folders, **{**options, "output": "y.safetensors"})
        assert not (folders / "y.safetensors").exists()
