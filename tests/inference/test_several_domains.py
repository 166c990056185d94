import csv
import dataclasses
import functools
import json
import os
from xml.etree import ElementTree

import nibabel as nib
import numpy as np
import pytest
import toy
from reading_ahead import PicklingExecutor

from u2net_tf import predict as predict_command
from u2net_tf.config.inference import PredictConfig, ReadingConfig
from u2net_tf.errors import InputError
from u2net_tf.inference import label_maps, organs, prepared_organs, several_domains
from u2net_tf.inference.backends import opening
from u2net_tf.inference.label_table import (
    LABEL_TABLE,
    merged_domain,
    number_classes,
)
from u2net_tf.inference.merging import LabelMapMerger
from u2net_tf.inference.organs import Organ
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.scans import FoundScans, Scan
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.anatomy import Anatomy, Code
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.labels import Label
from u2net_tf.plan.preprocessing import IntensityStatistics
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes.anatomy import ABNORMAL, find_anatomy
from u2net_tf.volumes.class_volumes import voxel_volume_ml

BOTH = dataclasses.replace(toy.TWO, name="Both")
# Preprocessed like the next one, but with other classes and patches.
LATTER = dataclasses.replace(
    toy.TWO,
    name="Latter",
    modalities=("ADC",),
    labels=(Label("background", (0,)), Label("core", (5,))),
)
ALIKE = dataclasses.replace(
    LATTER,
    name="Alike",
    labels=(Label("background", (0,)), Label("liver", (1,), keep_components=1)),
    patch_size=(4, 4, 8),
)
PLAN = Plan((BOTH, LATTER, ALIKE))
MODALITIES = ("T2", "ADC")


class Bright:
    """A backend without TensorFlow: the brighter a voxel, the higher its class.

    The last domain segments dark ones.
    """

    spec = ModelSpec(plan=PLAN, pools=(1, 1, 1))
    fingerprint, checkpoint, is_exported = "one", "step-3", False

    def __init__(self):
        self.num_calls = 0

    def predict_windows(self, windows, domain, *, few=False):
        self.num_calls += 1
        num_classes = PLAN.domains[domain].num_classes
        thresholds = 0.6 * domain + 0.5 * np.arange(num_classes - 1)
        values = windows[..., 0, np.newaxis]
        classes = (values < 0.25 if domain == 2 else values > thresholds).sum(axis=-1)
        return np.eye(num_classes, dtype=np.float32)[classes]


@pytest.fixture
def scans(tmp_path):
    (tmp_path / "raw").mkdir()
    found = []
    for number in range(2):
        generator = np.random.default_rng(number)
        noise = generator.normal(9, 1, (12, 13, 10, 2)).astype(np.float32)
        path = tmp_path / "raw" / f"two_{number}.nii.gz"
        nib.save(nib.Nifti1Image(noise, np.diag([1, 1, 2, 1])), path)
        found.append(Scan(f"scan_{number}", (path,)))
    return found


@pytest.fixture
def predict(scans, tmp_path):
    def call(
        names=PLAN.names,
        *,
        chosen=scans,
        output_dir=tmp_path / "out",
        modalities=MODALITIES,
        **options,
    ):
        call.backend = Bright()
        predictor = Predictor(call.backend)
        fields = ReadingConfig.model_fields.keys() & options.keys()
        reading = ReadingConfig(**{name: options.pop(name) for name in fields})
        return several_domains.predict_domains(
            [Organ(predictor, PLAN.index(name)) for name in names],
            FoundScans(tuple(chosen), {}),
            output_dir,
            modalities=modalities,
            reading=reading,
            **options,
        )

    return call


def predict_alone(scans, index, folder, **options):
    paths = scans
    if index:
        # The channels that the domain needs, in a separate file.
        folder.parent.mkdir(exist_ok=True)
        paths = []
        for scan in scans:
            image = nib.load(scan.paths[0])
            path = folder.parent / f"adc_{scan.name}.nii"
            nib.save(
                nib.Nifti1Image(np.asarray(image.dataobj)[..., 1], None, image.header),
                path,
            )
            paths.append(Scan(scan.name, (path,)))
    label_maps.predict_scans(
        Predictor(Bright()),
        index,
        FoundScans(tuple(paths), {}),
        folder,
        reading=ReadingConfig(),
        **options,
    )
    return [np.asarray(nib.load(folder / f"{s.name}.nii.gz").dataobj) for s in scans]


def test_one_label_map_merges_those_of_all_domains(predict, scans, tmp_path):
    alone = [
        predict_alone(scans, index, tmp_path / "alone" / name)
        for index, name in enumerate(PLAN.names)
    ]
    table = tmp_path / "volumes.csv"
    report = predict(priority=["Alike"], volumes_csv=table)
    assert (report.num_existing, report.skipped) == (0, {})
    for number, scan in enumerate(scans):
        both, latter, alike = (found[number] for found in alone)
        merged = nib.load(tmp_path / "out" / f"{scan.name}.nii.gz")
        # Rim 4 and core 2 of the first become 1 and 2.
        expected = np.select(
            [alike > 0, both == 4, both == 2, latter > 0], [4, 1, 2, 3], 0
        )
        np.testing.assert_array_equal(np.asarray(merged.dataobj), expected)
        assert set(np.unique(expected)) == {0, 1, 2, 3, 4}
        content = json.loads(
            (tmp_path / "out" / f"{scan.name}_labels.json").read_text()
        )
        assert content["case"] == scan.name
        assert content["priority"] == ["Alike", "Both", "Latter"]
        # Two classes are called core.
        assert [list(row.values()) for row in content["labels"]] == [
            [1, "rim", "Both", "rim"],
            [2, "core (Both)", "Both", "core"],
            [3, "core (Latter)", "Latter", "core"],
            [4, "liver", "Alike", "liver"],
        ]
        voxels = {
            ("Alike", "Both"): ((alike > 0) & (both > 0)).sum(),
            ("Alike", "Latter"): ((alike > 0) & (latter > 0)).sum(),
            ("Both", "Latter"): ((both > 0) & (latter > 0) & (alike == 0)).sum(),
        }
        received = {
            (one["domain"], one["hidden"]): one["voxels"] for one in content["overlaps"]
        }
        assert received == {pair: count for pair, count in voxels.items() if count}
        voxel_ml = voxel_volume_ml(case_files.check_headers(scan.paths, BOTH))
        for one in report.overlaps[scan.name]:
            assert one.volume_ml == pytest.approx(one.voxels * voxel_ml, abs=1e-6)
        (extension,) = merged.header.extensions
        root = ElementTree.fromstring(extension.content.rstrip(b"\0"))
        names = {int(row.get("Key")): row.text for row in root.iter("Label")}
        assert names[2] == "core (Both)"
        assert len(names) == 5
        path = tmp_path / "out" / f"{scan.name}_labels.json"
        assert LABEL_TABLE.load(path).overlaps == report.overlaps[scan.name]
        with table.open() as stream:
            rows = {
                (row["domain"], row["class"]): float(row["volume_ml"])
                for row in csv.DictReader(stream)
                if row["case"] == scan.name
            }
        assert rows == {
            ("Both", "rim"): pytest.approx((expected == 1).sum() * voxel_ml),
            ("Both", "core"): pytest.approx((expected == 2).sum() * voxel_ml),
            ("Latter", "core"): pytest.approx((expected == 3).sum() * voxel_ml),
            ("Alike", "liver"): pytest.approx((expected == 4).sum() * voxel_ml),
        }


def test_separate_files_equal_those_of_single_domain_calls(predict, scans, tmp_path):
    options = {"save_probabilities": True, "volumes_csv": tmp_path / "v.csv"}
    report = predict(separate_files=True, **options)
    assert report.overlaps == {"scan_0": (), "scan_1": ()}
    for index, name in enumerate(PLAN.names):
        predict_alone(scans, index, tmp_path / "alone" / name, save_probabilities=True)
        for scan in scans:
            for ending in (".nii.gz", "_probabilities.nii.gz"):
                one, other = (
                    nib.load(tmp_path / folder / name / f"{scan.name}{ending}")
                    for folder in ("out", "alone")
                )
                np.testing.assert_array_equal(one.dataobj, other.dataobj)
    # A call for one domain recognizes these files as its own.
    existing = label_maps.predict_scans(
        Predictor(Bright()),
        0,
        FoundScans(tuple(scans), {}),
        tmp_path / "out" / "Both",
        reading=ReadingConfig(),
        save_probabilities=True,
    )
    assert existing.num_existing == 2
    with (tmp_path / "v.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert {row["domain"] for row in rows} == set(PLAN.names)
    # Only what is missing is predicted.
    (tmp_path / "out" / "Latter" / "scan_1.nii.gz").unlink()
    assert predict(separate_files=True, **options).num_existing == 5
    assert 0 < predict.backend.num_calls < 100
    with (tmp_path / "v.csv").open() as stream:
        assert list(csv.DictReader(stream)) == rows


def test_a_label_map_that_cannot_be_read_hides_no_other(predict, tmp_path):
    """Neither its scan's volumes of other domains nor a prediction that is missing."""
    options = {"separate_files": True, "volumes_csv": tmp_path / "v.csv"}
    assert predict(**options).num_written == 6
    with (tmp_path / "v.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    (tmp_path / "out" / "Both" / "scan_1.nii.gz").write_bytes(b"edited")
    (tmp_path / "out" / "Latter" / "scan_1.nii.gz").unlink()
    report = predict(**options)
    assert (report.num_written, report.num_existing, report.num_edited) == (1, 5, 1)
    assert list(report.skipped) == ["scan_1"]
    assert "out/Both/scan_1.nii.gz: expected" in str(report.skipped["scan_1"])
    with (tmp_path / "v.csv").open() as stream:
        assert list(csv.DictReader(stream)) == [
            row for row in rows if (row["domain"], row["case"]) != ("Both", "scan_1")
        ]


def test_a_scan_is_read_once_and_preprocessed_once_per_preprocessing(
    predict, monkeypatch
):
    read, prepared = [], []
    reads, prepares = case_files.read_image, prepared_organs.prepare_scan

    def read_image(paths, domain, **options):
        read.append(paths)
        return reads(paths, domain, **options)

    def prepare_scan(image, domain, **options):
        prepared.append(domain.name)
        return prepares(image, domain, **options)

    monkeypatch.setattr(case_files, "read_image", read_image)
    monkeypatch.setattr(prepared_organs, "prepare_scan", prepare_scan)
    predict(num_workers=0)
    assert len(read) == 2
    assert sorted(prepared) == ["Both", "Both", "Latter", "Latter"]


def test_existing_outputs_are_kept(predict, tmp_path):
    assert predict().num_existing == 0
    assert predict().num_existing == 2
    assert predict.backend.num_calls == 0
    # Another order of priority is another label map, and so are other values.
    assert predict(priority=["Latter"]).num_existing == 0
    assert predict(PLAN.names[::-1], priority=["Latter"]).num_existing == 0
    assert predict(PLAN.names[:2]).num_existing == 0
    assert predict(PLAN.names[:2], overwrite=True).num_existing == 0
    edited = tmp_path / "out" / "scan_0_labels.json"
    edited.write_text("{}")
    assert predict(PLAN.names[:2]).num_edited == 1
    with pytest.raises(InputError, match="labels.json: .* edited since"):
        predict()
    predict(overwrite=True)
    # With another format, the label map and its table are replaced.
    predict(output_format="nrrd")
    names = sorted(path.name for path in (tmp_path / "out").glob("scan_0*"))
    assert names == ["scan_0.nrrd", "scan_0_labels.json"]


@pytest.mark.parametrize("separate_files", [False, True])
def test_other_modalities_are_another_prediction(predict, separate_files):
    names = ["Latter", "Alike"]
    assert predict(names, separate_files=separate_files).num_existing == 0
    options = {"separate_files": separate_files, "modalities": MODALITIES[::-1]}
    assert predict(names, **options).num_existing == 0
    assert predict(names, **options).num_existing == (4 if separate_files else 2)


def test_an_executor_may_read(predict, tmp_path):
    with PicklingExecutor() as executor:
        predict(executor=executor)
    assert executor.num_calls == 2
    assert executor.largest < 20_000
    assert len(list((tmp_path / "out").glob("*.nii.gz"))) == 2


def test_memory_is_limited(predict):
    report = predict(max_memory_gb=1e-6)
    assert sorted(report.skipped) == ["scan_0", "scan_1"]
    assert "Of 1e-06 GB, the program and the network take" in str(
        report.skipped["scan_0"]
    )
    with pytest.raises(InputError, match="max_memory_gb"):
        predict(max_memory_gb=1e-6, on_bad_case="fail")


def test_a_preview_shows_all_domains(predict, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the extra `pictures`")
    predict(preview=True)
    assert (tmp_path / "out" / "scan_0_preview.png").is_file()


def test_a_name_need_not_be_utf8(predict, scans, tmp_path):
    pytest.importorskip("matplotlib", reason="pictures need the extra `pictures`")
    scan = Scan(os.fsdecode(b"scan_\xff"), scans[0].paths)
    table = tmp_path / "volumes.csv"
    predict(chosen=[scan], preview=True, volumes_csv=table)
    out = tmp_path / "out"
    assert (out / f"{scan.name}_preview.png").is_file()
    labels = json.loads((out / f"{scan.name}_labels.json").read_text("utf-8"))
    assert labels["case"] == r"scan_\udcff"
    assert r",scan_\udcff," in table.read_text("utf-8")
    assert predict(chosen=[scan], preview=True).num_existing == 1
    predict(chosen=[scan], output_format="nrrd")
    names = {path.name for path in out.iterdir()}
    assert names == {".predicted", f"{scan.name}.nrrd", f"{scan.name}_labels.json"}


class TestLabelMapMerger:
    def test_the_first_domain_takes_precedence(self):
        merger = LabelMapMerger((1, 1, 4), {"a": [0, 1], "b": [0, 2, 3], "c": [0, 255]})
        merger.add("b", np.array([[[1, 2, 0, 0]]], np.uint8))
        merger.add("a", np.array([[[0, 1, 1, 0]]], np.uint8))
        merger.add("c", np.array([[[1, 1, 1, 1]]], np.uint8))
        assert merger.classes.tolist() == [[[2, 3, 1, 255]]]
        assert merger.overlaps == {
            ("b", "a"): 1,
            ("a", "c"): 1,
            ("b", "c"): 2,
        }


class TestChoice:
    @pytest.mark.parametrize(
        ("names", "expected"),
        [(("all",), ["a", "b"]), (("b",), ["b"]), (("b", "a"), ["b", "a"])],
    )
    def test_domains(self, names, expected):
        assert organs.choose_domains(names, ["a", "b"]) == expected

    def test_unknown_domain(self):
        with pytest.raises(InputError, match="`domains`: expected one of a. .* b$"):
            organs.choose_domains(["a", "b"], ["a"])

    def test_priority(self):
        assert organs.order_by_priority("abc", "ca") == ["c", "a", "b"]
        with pytest.raises(InputError, match="`priority`: expected some of a, b"):
            organs.order_by_priority("ab", "c")
        with pytest.raises(InputError, match="`priority`: expected distinct values"):
            organs.order_by_priority("ab", "aa")

    def test_modalities_are_those_of_the_domain_with_most(self):
        assert organs.scan_modalities([LATTER, BOTH]) == MODALITIES
        given = ("ADC", "x", "T2")
        assert organs.scan_modalities([LATTER, BOTH], given) == given
        assert organs.channels_of(BOTH, given) == (2, 0)
        with pytest.raises(InputError, match="`modalities`: expected distinct values"):
            organs.scan_modalities([BOTH], ["T2", "T2"])

    def test_a_missing_modality_is_reported_with_the_domain(self):
        with pytest.raises(
            InputError,
            match="scans have: CT. Received: Both, which needs T2, ADC. Use `modalit",
        ):
            organs.scan_modalities([toy.ONE, BOTH], ["CT"])

    @pytest.mark.parametrize(
        ("resampled", "expected"),
        [((), False), ((False,), False), ((True,), True), ((True, False), False)],
    )
    def test_modalities_are_resampled_if_all_domains_of_several_are(
        self, resampled, expected
    ):
        domains = [toy.ONE, LATTER]
        for number, resample in enumerate(resampled):
            preprocessing = dataclasses.replace(
                BOTH.preprocessing, resample_modalities=resample
            )
            name = f"Both{number}"
            domains.append(
                dataclasses.replace(BOTH, name=name, preprocessing=preprocessing)
            )
        found = organs.scan_domain(domains, ("CT", *MODALITIES))
        assert found.preprocessing.resample_modalities is expected

    def test_scans_may_have_more_modalities_than_a_domain_with_statistics(self):
        statistics = IntensityStatistics(low=-50, high=200, mean=90, std=30)
        ct = dataclasses.replace(
            toy.ONE,
            preprocessing=dataclasses.replace(
                toy.ONE.preprocessing, intensity_statistics=(statistics,)
            ),
        )
        found = organs.scan_domain([ct, BOTH], ("CT", *MODALITIES))
        assert found.modalities == ("CT", *MODALITIES)

    def test_channels_are_chosen_by_name(self, scans):
        given = ("ADC", "T2")
        scan = case_files.read_image(
            scans[0].paths, organs.scan_domain([LATTER, BOTH], given)
        )
        np.testing.assert_array_equal(
            organs.image_for_domain(scan, BOTH, given).data, scan.data[::-1]
        )
        assert organs.image_for_domain(scan, LATTER, given).data.base is not None

    def test_too_many_classes_for_one_label_map(self):
        labels = tuple(Label(f"{value}", (value,)) for value in range(200))
        many = [dataclasses.replace(LATTER, name=name, labels=labels) for name in "ab"]
        with pytest.raises(InputError, match=r"at most 255 classes .* 398\. Use `sepa"):
            number_classes(many)

    def test_merged_classes_have_distinct_names(self):
        def rename(name, *classes):
            labels = tuple(Label(text, (value,)) for value, text in enumerate(classes))
            return dataclasses.replace(LATTER, name=name, labels=labels)

        # Also a class that is called like the background of the first domain.
        domains = [rename("A", "rest", "lung"), rename("B", "air", "rest", "lung")]
        merged = merged_domain(domains, number_classes(domains))
        names = [label.name for label in merged.labels]
        assert names == ["rest", "lung (A)", "rest (B)", "lung (B)"]
        domains.append(rename("C", "rest", "lung (A)"))
        with pytest.raises(
            InputError, match=r"^`domains`: .* named 'lung \(A\)'\. Use"
        ):
            number_classes(domains)

    def test_merged_classes_keep_their_codes(self):
        liver = Label("liver", (1,))
        cyst = Anatomy(category=ABNORMAL, kind=Code("1", "99LAB", "cyst"))
        domains = [
            dataclasses.replace(
                PLAN.domains[index],
                labels=(Label("background", (0,)), liver, *more),
            )
            for index, more in enumerate(((), (Label("PZ", (2,), anatomy=cyst),)))
        ]
        merged = merged_domain(domains, number_classes(domains))
        assert merged.labels[1].name == f"liver ({domains[0].name})"
        codes = [find_anatomy(label).kind.meaning for label in merged.labels[1:]]
        assert codes == ["Liver", "Liver", "cyst"]

    @pytest.mark.parametrize(
        ("values", "words"),
        [
            ({}, "`domain`: expected a value here or for `domains`. .* neither"),
            ({"domain": "a", "domains": ("b",)}, "`domain`: .* Received: both"),
            ({"domains": ("a", "a")}, "`domains`: expected distinct values"),
            ({"domain": "a", "priority": ("a",)}, "`priority`: .* without `domains`"),
            ({"domain": "a", "separate_files": True}, "`separate_files`: expected no"),
            ({"domain": "a", "modalities": ("a",)}, "`modalities`: expected no value"),
            (
                {"domains": ("a",), "priority": ("a",), "separate_files": True},
                "`priority`: expected no value with `separate_files`",
            ),
            (
                {"domains": ("a", "b"), "save_probabilities": True},
                "`save_probabilities`: expected one domain, or `separate_files`",
            ),
        ],
    )
    def test_contradictory_settings(self, values, words):
        config = PredictConfig(model=("m",), output="o", **values)
        with pytest.raises(InputError, match=words):
            organs.require_choice(config)


def test_the_command(scans, tmp_path, monkeypatch, capsys):
    """Each model is loaded once, and overlaps are printed."""
    loaded = []
    models = {"Both": "B", "Latter": "B", "Alike": "A"}

    @functools.cache
    def load(model):
        loaded.append(model)
        return Predictor(Bright())

    model = opening.OpenedModel(
        "m", "tensorflow", PLAN.names, lambda name: load(models[name])
    )
    monkeypatch.setattr(opening, "open_ensemble", lambda *arguments, **options: model)
    values = {
        "model": ("m",),
        "domains": ("all",),
        "priority": ("Alike",),
        "input": (str(scans[0].paths[0]),),
        "output": str(tmp_path / "out"),
    }
    predict_command.main(PredictConfig.from_flat(values))
    assert loaded == ["B", "A"]
    first, *others = capsys.readouterr().out.splitlines()
    assert first == (
        f"1 label map of Both and Latter and Alike in {values['output']}, predicted by "
        "step-3"
    )
    assert others[0].startswith("two_0: Alike hides ")
    assert others[0].endswith(" ml) of Both")
    received = {}

    def predict_domains(chosen, found, output, **options):
        received.update(options)
        return label_maps.Report(1, 2, 0, {})

    monkeypatch.setattr(several_domains, "predict_domains", predict_domains)
    more = {"separate_files": True, "save_probabilities": True, "preview": True}
    more |= {"overwrite": True, "output_format": "mha", "volumes_csv": "v.csv"}
    more |= {"modalities": MODALITIES, "priority": (), "num_workers": 4}
    predict_command.main(PredictConfig.from_flat(values | more))
    reading = received.pop("reading")
    assert reading.num_workers == 4
    assert str(received.pop("volumes_csv")) == "v.csv"
    del received["progress"]
    assert received == {name: value for name, value in more.items() if name in received}
    assert len(received) == 7
    assert capsys.readouterr().out.startswith("3 label maps of Both and Latter")
