import dataclasses
import re
import types

import numpy as np
import pytest
import toy

from tools.compare_gates import CompareGatesConfig, main, measure
from u2net_tf.errors import InputError
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.loading import save_model

# XLA would compile a network for each patch size.
pytestmark = pytest.mark.usefixtures("plain_implementation_in_module")

# Voxels of 0.05 ml, patches of four.
DOMAIN = dataclasses.replace(
    toy.ONE, spacing_mm=(2.0, 5.0, 5.0), patch_size=(1, 1, 4), pools=(0, 0, 1)
)
PREDICTOR = types.SimpleNamespace(
    spec=types.SimpleNamespace(plan=types.SimpleNamespace(domains=(DOMAIN,))),
    # Predicts the class wherever the image is bright.
    classes=lambda image, index: (image[..., 0] > 0.5).astype(np.uint8),
)


def record(labels, image):
    shape = (1, 1, len(labels))
    return types.SimpleNamespace(
        labels=np.array(labels, np.uint8).reshape(shape),
        image=np.array(image, np.float32).reshape(*shape, 1),
    )


def test_patches_and_scans_with_and_without_the_class():
    with_class = record([1, 1, 0, 0, 0, 0, 0, 0, 1], [1, 0, 0, 0, 0, 1, 1, 0, 0])
    without = record([0] * 4, [0, 0, 0, 1])
    (found,) = measure(PREDICTOR, 0, [with_class, without])
    # The last patch is flush with the border: voxels 5 to 8.
    assert found.patch_fp_ml == pytest.approx([0.1, 0.05])
    assert found.is_missed == [False, False]
    assert found.scan_fp_ml == pytest.approx([0.05])
    assert found.dice == pytest.approx([2 / 6])


def test_a_patch_in_which_no_class_voxel_is_predicted_is_missed():
    (found,) = measure(PREDICTOR, 0, [record([1, 0, 0], [0, 0, 0])])
    assert (found.is_missed, found.patch_fp_ml) == ([True], [])
    assert found.cells() == ("0", "–", "1", "1", "0", "–", "1", "0.00")


@pytest.fixture(scope="module")
def model(tiny_data):
    return toy.make_model(
        domains=tiny_data.plan.domains,
        architecture="unet_sharp",
        depth=1,
        pools=(1, 1, 1),
        gates="top",
    )


@pytest.fixture(scope="module")
def model_dir(model, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gated") / "model"
    save_model(folder, *model)
    return folder


@pytest.mark.slow
class TestCommand:
    def run(self, model_dir, data_dir, **settings):
        main(
            CompareGatesConfig(
                model_dir=str(model_dir), data_dir=str(data_dir), **settings
            )
        )

    def test_a_row_for_each_class_and_threshold(self, model_dir, tiny_data, capsys):
        self.run(model_dir, tiny_data.data_dir, thresholds=(1.0,), prune_to=1)
        _, _, *rows = capsys.readouterr().out.splitlines()
        cells = [re.split(r" {2,}", row) for row in rows]
        assert [row[:3] for row in cells] == [
            [domain, label, threshold]
            for domain, label in (
                ("Task91_One", "organ"),
                ("Task92_Two", "rim"),
                ("Task92_Two", "core"),
            )
            for threshold in ("no gates", "1.0")
        ]
        # No probability reaches 1, so every class is missed in all patches with it.
        for row in cells[1::2]:
            assert row[5] == row[6] != "0"
            assert row[-1] == "0.00"

    @pytest.mark.parametrize(
        ("settings", "words"),
        [
            ({"prune_to": 2}, "`prune_to`: expected at most 1, the depth of the mod"),
            ({"thresholds": (0.5, 0.5)}, "`thresholds`: expected each number once"),
            ({"split": "validation"}, "`split`: expected cases of Task92_Two in 'val"),
        ],
    )
    def test_settings_that_do_not_fit(self, model_dir, tiny_data, settings, words):
        with pytest.raises(InputError, match=words):
            self.run(model_dir, tiny_data.data_dir, **settings)

    def test_cases_that_the_model_does_not_list_are_those_of_the_shards(
        self, model, tiny_data, tmp_path, capsys
    ):
        spec, network = model
        spec = without_case_names(spec, [toy.TWO.name])
        save_model(tmp_path / "a", spec, network)
        self.run(tmp_path / "a", tiny_data.data_dir, thresholds=())
        assert capsys.readouterr().out.count("no gates") == 3
        # Those of the other domain are still the model's.
        one = dataclasses.replace(spec.plan.domains[0], test=())
        plan = dataclasses.replace(spec.plan, domains=(one, spec.plan.domains[1]))
        save_model(tmp_path / "b", dataclasses.replace(spec, plan=plan), network)
        with pytest.raises(InputError, match="expected cases of Task91_One in 'test'"):
            self.run(tmp_path / "b", tiny_data.data_dir, thresholds=())

    def test_a_model_without_gates(self, tiny_data, tmp_path):
        save_model(tmp_path / "a", *toy.make_model(domains=tiny_data.plan.domains))
        with pytest.raises(InputError, match="`thresholds`: expected none, as the mod"):
            self.run(tmp_path / "a", tiny_data.data_dir)

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            (
                {"spacing_mm": (3.0, 3.0, 3.0)},
                "Task91_One/manifest.json: expected shards of the plan of ",
            ),
            (
                {"test": ("one_5", "other")},
                "Task91_One/manifest.json: expected other, as in ",
            ),
        ],
    )
    def test_shards_of_another_plan(self, model, tiny_data, tmp_path, changes, words):
        spec, network = model
        first, *others = spec.plan.domains
        domains = (dataclasses.replace(first, **changes), *others)
        plan = dataclasses.replace(spec.plan, domains=domains)
        save_model(tmp_path / "a", dataclasses.replace(spec, plan=plan), network)
        with pytest.raises(InputError, match=words):
            self.run(tmp_path / "a", tiny_data.data_dir)

    @pytest.mark.parametrize("threshold", [1.1, -0.1, float("nan")])
    def test_thresholds_out_of_range(self, threshold):
        with pytest.raises(ValueError, match="thresholds"):
            CompareGatesConfig(model_dir="a", data_dir="b", thresholds=(threshold,))
