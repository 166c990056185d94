import logging
import shutil
import sys

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import toy
import tqdm
from reading_ahead import PicklingExecutor, count_live_scans
from recorded_progress import RecordedProgress

from tests.volumes import dicom_files
from u2net_tf import machine
from u2net_tf.config.inference import ReadingConfig
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.inference import case_memory, label_maps, prepared_organs, usable_cases
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.scans import FoundScans, Scan
from u2net_tf.models.spec import ModelSpec
from u2net_tf.volumes import dicom_segments


class Foreground:
    """A backend without TensorFlow that predicts class 1 everywhere."""

    spec = ModelSpec(plan=toy.PLAN, pools=(1, 1, 1))
    fingerprint, checkpoint, is_exported = "one", "", False

    def predict_windows(self, windows, domain, *, few=False):
        num_classes = self.spec.plan.domains[domain].num_classes
        return np.broadcast_to(
            np.eye(num_classes, dtype=np.float32)[1], (*windows.shape[:4], num_classes)
        )


@pytest.fixture
def scans(tiny_data):
    folder = tiny_data.raw_dir / "Task92_Two" / "imagesTr"
    return [Scan(f"scan_{i}", (folder / f"two_{i}.nii.gz",)) for i in range(3)]


@pytest.fixture
def predict(scans, tmp_path):
    def call(
        chosen=scans,
        *,
        others=(),
        overlap=0.5,
        incomplete=None,
        output_dir=tmp_path / "out",
        **options,
    ):
        predictor = Predictor(Foreground(), overlap=overlap)
        names = ReadingConfig.model_fields.keys() & options.keys()
        reading = ReadingConfig(**{name: options.pop(name) for name in names})
        report = label_maps.predict_scans(
            predictor,
            1,
            FoundScans(tuple(chosen), incomplete or {}, tuple(others)),
            output_dir,
            reading=reading,
            **options,
        )
        counts = report.num_existing, report.num_edited
        return (*counts, report.skipped) if report.skipped else counts

    return call


def times(folder):
    return {path.name: path.stat().st_mtime_ns for path in folder.glob("*.nii.gz")}


def test_label_maps_have_raw_values_on_the_grid_of_the_scan(predict, scans, tmp_path):
    assert predict() == (0, 0)
    assert set(times(tmp_path / "out")) == {f"scan_{i}.nii.gz" for i in range(3)}
    found, scan = nib.load(tmp_path / "out" / "scan_1.nii.gz"), scans[1].paths[0]
    assert np.unique(found.dataobj).tolist() == [4]
    np.testing.assert_array_equal(found.affine, nib.load(scan).affine)
    assert found.shape == nib.load(scan).shape[:3]


@pytest.mark.parametrize(
    ("source", "output_format", "suffix"),
    [
        (".nrrd", "input", ".nrrd"),
        (".mha", "input", ".mha"),
        (".nii", "input", ".nii.gz"),
        (".nrrd", "nii.gz", ".nii.gz"),
        (".nii.gz", "mha", ".mha"),
    ],
)
def test_label_maps_have_the_format_of_the_scan_or_another(
    predict, scans, tmp_path, source, output_format, suffix
):
    array = sitk.ReadImage(scans[0].paths[0])
    parts = [
        sitk.Extract(array, (*array.GetSize()[:3], 0), (0, 0, 0, i)) for i in (0, 1)
    ]
    paths = tuple(tmp_path / f"scan_{i}{source}" for i in (0, 1))
    for part, path in zip(parts, paths, strict=True):
        sitk.WriteImage(part, path)
    options = {"output_format": output_format, "save_probabilities": True}
    assert predict([Scan("scan", paths)], **options) == (0, 0)
    assert predict([Scan("scan", paths)], **options) == (1, 0)
    written = sitk.ReadImage(tmp_path / "out" / f"scan{suffix}")
    assert np.unique(sitk.GetArrayFromImage(written)).tolist() == [4]
    np.testing.assert_allclose(written.GetOrigin(), parts[0].GetOrigin(), atol=1e-5)
    assert written.GetSize() == parts[0].GetSize()
    assert (tmp_path / "out" / f"scan_probabilities{suffix}").is_file()


@pytest.fixture
def series(tmp_path):
    """A case of two DICOM series with the UIDs that other objects refer to."""
    folders = tmp_path / "t2", tmp_path / "adc"
    for number, folder in enumerate(folders):
        slices = dicom_files.make_series(series=f"1.2.3.{number + 14}")
        for dataset in slices:
            dataset.StudyInstanceUID = "1.2.3.4"
            dataset.FrameOfReferenceUID = "1.2.3.5"
        dicom_files.save(folder, slices)
    return Scan("series", folders)


def names_of(folder):
    return {path.name for path in folder.iterdir() if path.name[0] != "."}


def test_label_maps_of_dicom_are_dicom(predict, series, tmp_path, caplog):
    pytest.importorskip("highdicom", reason="the extra dicom_seg")
    options = {"output_format": "dicom_seg", "save_probabilities": True}
    assert predict([series], **options) == (0, 0)
    assert predict([series], **options) == (1, 0)
    out = tmp_path / "out"
    assert names_of(out) == {"series.dcm", "series_probabilities.nii.gz"}
    counts = dicom_segments.count_voxels(out / "series.dcm", toy.TWO)
    assert counts[1] == 6 * 8 * 8
    assert "Task92_Two: no anatomy code for" in caplog.text
    # If the format changes, only the newer label map is kept, as if the model changes.
    assert predict([series], output_format="seg_nrrd") == (0, 0)
    assert names_of(out) == {"series.seg.nrrd"}


def test_label_maps_in_the_folder_of_a_series_are_kept(predict, series):
    folder = series.paths[0]
    assert predict([series], output_dir=folder) == (0, 0)
    assert (folder / "series.nii.gz").is_file()
    assert predict([series], output_dir=folder) == (1, 0)


def test_only_dicom_becomes_dicom(predict, scans, series, tmp_path):
    pytest.importorskip("highdicom", reason="the extra dicom_seg")
    with pytest.raises(InputError, match="`output_format`: expected DICOM scans for"):
        predict([series, scans[0]], output_format="dicom_seg")
    assert not (tmp_path / "out").exists()


def test_a_series_without_required_uids_is_skipped(predict, series, tmp_path):
    pytest.importorskip("highdicom", reason="the extra dicom_seg")
    slices = dicom_files.make_series(series="1.2.3.14")
    dicom_files.save(series.paths[0], slices)
    *_, skipped = predict([series], output_format="dicom_seg")
    assert "StudyInstanceUID" in str(skipped["series"])
    assert not (tmp_path / "out").exists()


def test_a_segmentation_is_not_written_among_slices(predict, series):
    pytest.importorskip("highdicom", reason="the extra dicom_seg")
    scan = Scan("0", series.paths)
    options = {"output_format": "dicom_seg", "overwrite": True}
    with pytest.raises(InputError, match="`output`: .*0.dcm, in the folder of"):
        predict([scan], output_dir=series.paths[0], **options)


def test_pictures_are_next_to_the_label_maps(predict, scans, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra pictures")
    assert predict(scans[:1]) == (0, 0)
    assert predict(scans[:1], preview=True) == (0, 0)
    assert predict(scans[:1], preview=True) == (1, 0)
    assert names_of(tmp_path / "out") == {"scan_0.nii.gz", "scan_0_preview.png"}
    # The picture of a replaced label map is removed.
    assert predict(scans[:1], overlap=0.25) == (0, 0)
    assert names_of(tmp_path / "out") == {"scan_0.nii.gz"}


def test_pictures_need_matplotlib(predict, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(StoppedError, match=r"pip install 'u2net-tf\[pictures\]'"):
        predict(preview=True)
    assert not (tmp_path / "out").exists()


class TestVolumes:
    @pytest.fixture
    def table(self, tmp_path):
        return tmp_path / "volumes.csv"

    def rows(self, table):
        return [line.split(",") for line in table.read_text().splitlines()]

    def test_of_every_case_and_class(self, predict, scans, table):
        predict(scans[:1])
        # One exists already, the other is predicted now.
        predict(scans[:2], volumes_csv=table)
        header, *rows = self.rows(table)
        assert header == ["domain", "case", "class", "volume_ml"]
        names = [label.name for label in toy.TWO.labels[1:]]
        assert [row[:3] for row in rows] == [
            ["Task92_Two", f"scan_{i}", name] for i in (0, 1) for name in names
        ]
        before = table.read_bytes()
        for row, scan in zip(rows[:: len(names)], scans, strict=False):
            image = nib.load(scan.paths[0])
            voxel = np.prod(image.header.get_zooms()[:3])
            expected = np.prod(image.shape[:3]) * voxel / 1000
            assert float(row[3]) == pytest.approx(expected, abs=1e-5)
        assert {row[3] for row in rows if row[2] == names[-1]} == {"0.000000"}
        # All of them exist already.
        predict(scans[:2], volumes_csv=table)
        assert table.read_bytes() == before

    def test_of_a_dicom_segmentation(self, predict, series, table):
        pytest.importorskip("highdicom", reason="the extra dicom_seg")
        options = {"output_format": "dicom_seg", "volumes_csv": table}
        predict([series], **options)
        before = table.read_bytes()
        assert float(self.rows(table)[1][3]) == pytest.approx(
            6 * 8 * 8 * 3 * 0.75 * 1.25 / 1000
        )
        assert predict([series], **options) == (1, 0)
        assert table.read_bytes() == before

    def test_of_a_label_map_that_is_too_large(self, predict, scans, table):
        predict(scans[:1])
        options = {"volumes_csv": table, "max_memory_gb": 1e-6}
        *_, skipped = predict(scans[:1], **options)
        words = "scan_0.nii.gz: expected at most"
        assert words in str(skipped["scan_0"])
        with pytest.raises(InputError, match=words):
            predict(scans[:1], on_bad_case="fail", **options)

    def test_without_label_maps_that_cannot_be_read(
        self, predict, scans, table, tmp_path
    ):
        """They are reported like scans that cannot be used; other rows are written."""
        predict(scans[:2])
        edited = tmp_path / "out" / "scan_0.nii.gz"
        edited.write_bytes(b"edited")
        num_existing, num_edited, skipped = predict(volumes_csv=table)
        assert (num_existing, num_edited) == (2, 1)
        assert list(skipped) == ["scan_0"]
        assert str(skipped["scan_0"]).startswith(f"{edited}: expected a readable NIfTI")
        assert {row[1] for row in self.rows(table)[1:]} == {"scan_1", "scan_2"}
        assert edited.read_bytes() == b"edited"

    @pytest.mark.parametrize(
        ("name", "words"),
        [
            ("volumes.txt", "volumes.txt: expected a name ending in .csv"),
            ("folder.csv", "folder.csv: expected a path for a file"),
            ("file/volumes.csv", "expected a file that can be written"),
            (
                "other.csv",
                "expected no file, or a table of volumes. Received: a different",
            ),
        ],
    )
    def test_an_unusable_path_is_rejected(self, predict, tmp_path, name, words):
        (tmp_path / "folder.csv").mkdir()
        (tmp_path / "file").touch()
        (tmp_path / "other.csv").write_text("case,dice\n")
        with pytest.raises(InputError, match=words):
            predict(volumes_csv=tmp_path / name)
        assert not (tmp_path / "out").exists() or not names_of(tmp_path / "out")
        assert (tmp_path / "other.csv").read_text() == "case,dice\n"

    def test_another_file_is_replaced_with_overwrite(self, predict, scans, table):
        table.write_text("case,dice\n")
        predict(scans[:1], volumes_csv=table, overwrite=True)
        assert self.rows(table)[0][-1] == "volume_ml"

    def test_never_replaces_a_scan(self, predict, scans, tmp_path):
        path = tmp_path / "scan.csv"
        path.symlink_to(scans[0].paths[0])
        with pytest.raises(InputError, match="scan.csv: expected a separate file"):
            predict(volumes_csv=path, overwrite=True)


@pytest.mark.parametrize("num_workers", [0, 1, 3])
def test_results_do_not_depend_on_num_workers(predict, tmp_path, num_workers):
    predict(num_workers=num_workers)
    label_map = nib.load(tmp_path / "out" / "scan_2.nii.gz")
    assert (np.asarray(label_map.dataobj) == 4).sum() > 0
    assert len(times(tmp_path / "out")) == 3


@pytest.mark.parametrize("num_workers", [0, 2])
def test_num_workers_scans_are_read_ahead(predict, monkeypatch, num_workers):
    received = []
    original = usable_cases.parallel.map_ahead

    def spy(function, cases, *, num_workers, executor):
        received.append((len(cases), num_workers))
        return original(function, cases, num_workers=num_workers)

    monkeypatch.setattr(usable_cases.parallel, "map_ahead", spy)
    predict(num_workers=num_workers)
    assert received == [(3, num_workers)]


def test_scans_are_read_by_an_executor_without_the_predictor(predict, tmp_path):
    with PicklingExecutor() as executor:
        predict(num_workers=2, executor=executor)
    # The predictor is not pickled.
    assert executor.num_calls == 3
    assert executor.largest < 10_000
    assert len(times(tmp_path / "out")) == 3


def test_a_scan_is_freed_before_the_next_one_is_read(predict, monkeypatch):
    alive = count_live_scans(monkeypatch, prepared_organs)
    predict(num_workers=0, progress=tqdm.tqdm)
    assert alive == [0, 0, 0]


def test_complete_outputs_are_kept(predict, scans, tmp_path):
    predict(scans[:1])
    before = times(tmp_path / "out")
    assert predict() == (1, 0)
    after = times(tmp_path / "out")
    assert after["scan_0.nii.gz"] == before["scan_0.nii.gz"]
    assert predict(overwrite=True) == (0, 0)
    assert times(tmp_path / "out")["scan_0.nii.gz"] > before["scan_0.nii.gz"]
    assert predict(overlap=0.25) == (0, 0)


def test_edited_files_are_kept_and_counted(predict, tmp_path, caplog):
    predict()
    path = tmp_path / "out" / "scan_0.nii.gz"
    path.write_bytes(b"edited")
    with caplog.at_level(logging.WARNING):
        assert predict() == (3, 1)
    assert f"{path}: edited since it was predicted" in caplog.text
    with pytest.raises(InputError, match="scan_0.nii.gz: .* edited since"):
        predict(overlap=0.25)
    assert path.read_bytes() == b"edited"
    # Found before the first scan is predicted.
    assert predict() == (3, 1)


def test_probabilities_are_next_to_the_label_map(predict, scans, tmp_path):
    predict(scans[:1])
    assert predict(scans[:1], save_probabilities=True) == (0, 0)
    assert predict(scans[:1], save_probabilities=True) == (1, 0)
    found = nib.load(tmp_path / "out" / "scan_0_probabilities.nii.gz").get_fdata()
    np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-6)
    assert found[..., 1].max() == pytest.approx(1)


def test_a_scan_is_never_replaced(predict, scans, tmp_path):
    folder = scans[0].paths[0].parent
    with pytest.raises(InputError, match="`output`: expected a folder other than"):
        label_maps.predict_scans(
            Predictor(Foreground()),
            1,
            FoundScans((Scan("two_0", scans[0].paths),), {}),
            folder,
            reading=ReadingConfig(),
            overwrite=True,
        )
    (tmp_path / "out").write_text("a file")
    with pytest.raises(InputError, match="`output`: expected a folder"):
        predict()


@pytest.mark.parametrize("chosen", [0, 1])
def test_a_file_of_another_part_is_never_replaced(chosen, predict, scans, tmp_path):
    """Both may be predicted at the same time, when neither file exists."""
    both = [scans[0], Scan("scan_0_probabilities", scans[1].paths)]
    options = {"others": both[1 - chosen :][:1], "save_probabilities": True}
    with pytest.raises(InputError, match="expected the output of a single scan"):
        predict([both[chosen]], **options)
    assert not (tmp_path / "out").exists()


def test_a_part_is_predicted_like_all_scans_together(predict, scans, monkeypatch):
    """Whether few windows are predicted decides how a network is executed."""
    given = []
    original = Foreground.predict_windows

    def predict_windows(self, windows, domain, *, few=False):
        given.append(few)
        return original(self, windows, domain)

    monkeypatch.setattr(Foreground, "predict_windows", predict_windows)
    predict(scans[:1], others=scans[1:])
    assert set(given) == {True}
    given.clear()
    others = [Scan(f"other_{i}", scans[1].paths) for i in range(5000)]
    predict(scans[1:2], others=others)
    assert set(given) == {False}


def test_a_scan_of_another_part_is_never_replaced(predict, scans, tmp_path):
    other = Scan("other", (tmp_path / "scan_0_probabilities.nii.gz",))
    shutil.copyfile(scans[1].paths[0], other.paths[0])
    options = {"save_probabilities": True, "overwrite": True, "output_dir": tmp_path}
    with pytest.raises(InputError, match="scan_0_probabilities.* be overwritten"):
        predict(scans[:1], others=[other], **options)
    predict(scans[:1], others=[scans[2]], **options)


def test_progress_counts_the_scans_that_are_predicted(predict, scans):
    progress = RecordedProgress()
    predict(scans[:1])
    predict(progress=progress)
    assert progress.counts == [("predicting", "case", 2)]


@pytest.fixture
def bad(scans, tmp_path):
    """Scans, one of which has an unreadable header and one invalid voxels."""
    header, voxels = tmp_path / "header.nii.gz", tmp_path / "voxels.nii.gz"
    header.write_bytes(b"no scan")
    nib.save(nib.Nifti1Image(np.zeros((4, 4, 4, 2), np.uint8), np.eye(4)), voxels)
    return [scans[0], Scan("voxels", (voxels,)), Scan("header", (header,)), scans[1]]


@pytest.mark.parametrize("num_workers", [0, 2])
def test_unusable_scans_are_skipped(predict, bad, tmp_path, num_workers):
    without = {"b": InputError("folder", expected="b_0001", received="b_0000")}
    progress = RecordedProgress()
    *_, skipped = predict(
        bad, incomplete=without, num_workers=num_workers, progress=progress
    )
    assert set(times(tmp_path / "out")) == {"scan_0.nii.gz", "scan_1.nii.gz"}
    # In the order of their names.
    assert list(skipped) == ["b", "header", "voxels"]
    assert "header.nii.gz: expected a readable NIfTI file" in str(skipped["header"])
    assert "expected an image with non-zero voxels" in str(skipped["voxels"])
    assert progress.counts == [("predicting", "case", 3)]


@pytest.mark.parametrize("on_bad_case", ["skip", "fail"])
def test_a_scan_without_finite_probabilities(
    predict, tmp_path, monkeypatch, on_bad_case
):
    calls, original = [], Foreground.predict_windows

    def predict_windows(self, windows, domain, *, few=False):
        calls.append(domain)
        predicted = original(self, windows, domain, few=few)
        return predicted * np.nan if len(calls) == 1 else predicted

    monkeypatch.setattr(Foreground, "predict_windows", predict_windows)
    if on_bad_case == "fail":
        with pytest.raises(InputError, match=r"two_0.nii.gz: expected finite class"):
            predict(on_bad_case="fail")
        return
    *_, skipped = predict()
    assert list(skipped) == ["scan_0"]
    assert set(times(tmp_path / "out")) == {"scan_1.nii.gz", "scan_2.nii.gz"}


def test_a_bad_header_is_an_error_before_the_first_prediction(predict, bad, tmp_path):
    with pytest.raises(InputError, match="header.nii.gz: expected a readable NIfTI"):
        predict(bad, on_bad_case="fail")
    assert not times(tmp_path / "out")
    with pytest.raises(InputError, match="voxels.nii.gz: expected an image with non-z"):
        predict([*bad[:2], bad[3]], on_bad_case="fail", num_workers=0)
    assert set(times(tmp_path / "out")) == {"scan_0.nii.gz"}


def test_two_outputs_with_the_same_name(predict, scans, tmp_path):
    other = Scan("scan_0_probabilities", scans[1].paths)
    with pytest.raises(InputError, match="of 'scan_0' and 'scan_0_probabilities'"):
        predict([scans[0], other], save_probabilities=True)
    assert not (tmp_path / "out").exists()
    predict([scans[0], other])


@pytest.mark.parametrize(
    ("name", "words"),
    [
        (
            "x" * 240,
            "expected a file that can be written. Received: File name too long",
        ),
        ("folder", "folder.nii.gz: expected a path for a file"),
    ],
)
def test_unwritable_outputs_are_found_first(predict, scans, tmp_path, name, words):
    (tmp_path / "out" / "folder.nii.gz").mkdir(parents=True)
    with pytest.raises(InputError, match=words):
        predict(
            [scans[0], Scan(name, scans[1].paths)],
            save_probabilities=True,
            overwrite=True,
        )
    assert not list((tmp_path / "out").glob("scan_0*"))


def test_a_name_of_full_length_can_be_written(predict, scans, tmp_path):
    name = "x" * (255 - len(".nii.gz"))
    predict([Scan(name, scans[0].paths)])
    assert set(times(tmp_path / "out")) == {f"{name}.nii.gz"}


def test_modalities_are_resampled_on_request(predict, scans, tmp_path):
    image = nib.load(scans[0].paths[0])
    paths = (tmp_path / "t2.nii", tmp_path / "adc.nii")
    for path, channel, size in zip(paths, (0, 1), (1, 2), strict=True):
        array = np.asarray(image.dataobj)[::size, ::size, ::size, channel]
        nib.save(nib.Nifti1Image(array, np.diag([size, size, size, 1])), path)
    *_, skipped = predict([Scan("two", paths)])
    assert "With `resample_modalities` it is resampled" in str(skipped["two"])
    assert predict([Scan("two", paths)], resample_modalities=True) == (0, 0)
    assert nib.load(tmp_path / "out" / "two.nii.gz").shape == image.shape[:3]


def test_an_implausible_scan_is_reported_and_predicted(
    predict, scans, tmp_path, caplog
):
    path = tmp_path / "slipped.nii.gz"
    image = nib.load(scans[0].paths[0])
    nib.save(nib.Nifti1Image(image.dataobj, np.diag([1, 1, 100, 1])), path)
    with caplog.at_level(logging.WARNING):
        predict([scans[1]])
        assert not caplog.records
        predict([Scan("slipped", (path,))])
    words = f"{path}: does not look like a scan of Task92_Two: voxels of 100 mm along z"
    assert caplog.messages[0].startswith(words)
    assert "slipped.nii.gz" in times(tmp_path / "out")


@pytest.mark.parametrize("num_workers", [0, 2])
def test_memory_of_a_scan_is_limited(predict, scans, tmp_path, num_workers):
    """Its header is checked before any scan is read."""
    *_, skipped = predict(max_memory_gb=1e-6, num_workers=num_workers)
    assert len(skipped) == 3
    words = f"{scans[0].paths[0]}: expected at most 0 GB of memory (`max_memory_gb`)"
    assert str(skipped["scan_0"]).startswith(words)
    assert "Of 1e-06 GB, the program and the network take " in str(skipped["scan_0"])
    assert not times(tmp_path / "out")
    # The limit does not invalidate existing predictions.
    predict()
    assert predict(max_memory_gb=100) == (3, 0)


def test_memory_of_probabilities_is_limited(predict, scans, tmp_path, monkeypatch):
    """They take more memory than the scan, known once it has been read."""
    monkeypatch.setattr(machine, "resident_bytes", lambda: 0)
    monkeypatch.setattr(case_memory, "network_bytes", lambda *_, **options: 0)
    raw_voxels = np.prod(nib.load(scans[0].paths[0]).shape[:3])
    num_classes = toy.PLAN.domains[1].num_classes
    limit = 3 * 4 * raw_voxels * num_classes / 1e9
    *_, skipped = predict(max_memory_gb=limit, save_probabilities=True)
    assert f"probabilities of {num_classes} classes" in str(skipped["scan_0"])
    predict(max_memory_gb=3 * limit, save_probabilities=True)
    assert len(times(tmp_path / "out")) == 6


def test_a_damaged_slice_is_found_before_the_first_prediction(predict, scans, tmp_path):
    folder = dicom_files.save(tmp_path / "series", dicom_files.make_series(4))
    (folder / "2.dcm").unlink()
    with pytest.raises(InputError, match=r"series: expected evenly spaced slices"):
        predict([scans[0], Scan("z", (folder, folder))], on_bad_case="fail")
    assert not times(tmp_path / "out")


def test_a_format_that_cannot_store_the_grid_is_found_first(predict, scans, tmp_path):
    image = nib.load(scans[0].paths[0])
    affine = image.affine.copy()
    affine[0, 2] += 0.5
    path = tmp_path / "sheared.nii.gz"
    nib.Nifti1Image(np.asarray(image.dataobj), affine).to_filename(path)
    with pytest.raises(InputError, match=r"out/s\.mha: expected perpendicular axes"):
        predict([scans[1], Scan("s", (path,))], on_bad_case="fail", output_format="mha")
    assert not list((tmp_path / "out").glob("*.mha"))
    assert predict([Scan("s", (path,))], output_format="nrrd") == (0, 0)


def test_an_unreadable_scan_is_skipped(predict, scans, tmp_path, monkeypatch):
    def read_image(paths, *arguments, **options):
        if paths == scans[1].paths:
            raise PermissionError(13, "Permission denied", str(paths[0]))
        return original(paths, *arguments, **options)

    original = label_maps.case_files.read_image
    monkeypatch.setattr(label_maps.case_files, "read_image", read_image)
    *_, skipped = predict(num_workers=0)
    assert set(times(tmp_path / "out")) == {"scan_0.nii.gz", "scan_2.nii.gz"}
    words = f"{scans[1].paths[0]}: expected a file that can be read. Received: Permis"
    assert str(skipped["scan_1"]).startswith(words)
