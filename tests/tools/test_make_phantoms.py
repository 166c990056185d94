"""Phantoms: their files, geometry, labels, difficulty, and every flag."""

import dataclasses
import errno
import json
import os
import pathlib
import subprocess
import sys

import nibabel as nib
import numpy as np
import pytest

from tools import make_phantoms, phantom_domains, phantoms

CT, MR, PROSTATE = phantom_domains.DOMAINS
# The geometry of MR alternates from case to case.
NUM_CASES = {CT: 2, MR: 4, PROSTATE: 1}


def _files(folder):
    """Bytes of every file in a folder, by relative path."""
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def _write(folder, *, num_cases=1, seed=0, domains=(CT,)):
    make_phantoms.write_phantoms(
        folder, num_cases=num_cases, seed=seed, domains=domains
    )
    return _files(folder)


@pytest.fixture
def quick_drawing(monkeypatch):
    """Replaces the anatomies by eight voxels, enough for tests of files."""

    def draw(rng, case):
        image = rng.normal(size=(2, 2, 2)).astype(np.float32) + case
        return phantoms.Phantom(image, np.ones((2, 2, 2), np.uint8), np.eye(4))

    for key, domain in phantom_domains.DOMAINS.items():
        quick = dataclasses.replace(domain, draw=draw)
        monkeypatch.setitem(phantom_domains.DOMAINS, key, quick)


def _run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "tools.make_phantoms", *arguments],
        capture_output=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(scope="module")
def raw_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("raw")
    for name, num_cases in NUM_CASES.items():
        make_phantoms.write_phantoms(
            folder, num_cases=num_cases, seed=3, domains=(name,)
        )
    return folder


@pytest.fixture(params=[CT, MR, PROSTATE])
def domain_dir(request, raw_dir):
    return raw_dir / request.param


def _load_cases(folder):
    dataset = json.loads((folder / "dataset.json").read_text())
    return [
        (nib.load(folder / entry["image"]), nib.load(folder / entry["label"]))
        for entry in dataset["training"]
    ]


def test_dataset_json_describes_the_files(domain_dir):
    dataset = json.loads((domain_dir / "dataset.json").read_text())
    assert {"name", "description", "modality", "labels", "training"} <= set(dataset)
    num_cases = NUM_CASES[domain_dir.name]
    assert dataset["numTraining"] == len(dataset["training"]) == num_cases
    assert dataset["training"][0]["image"].startswith("./imagesTr/")
    for image, label in _load_cases(domain_dir):
        num_modalities = image.shape[3] if image.ndim == 4 else 1
        assert num_modalities == len(dataset["modality"])
        assert label.shape == image.shape[:3]
        # Every class of every case, and enough of it to be worth learning.
        counts = np.bincount(np.asarray(label.dataobj).ravel())
        assert len(counts) == len(dataset["labels"])
        assert counts.min() > 100


def test_image_and_labels_share_a_valid_geometry(domain_dir):
    for image, label in _load_cases(domain_dir):
        np.testing.assert_array_equal(image.affine, label.affine)
        # Other programs may read the quaternion form instead.
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-4)
        np.testing.assert_allclose(
            image.header.get_zooms()[:3], nib.affines.voxel_sizes(image.affine), 1e-5
        )
        assert np.isfinite(image.get_fdata()).all()


def test_ct_is_in_hounsfield_units_with_thick_slices(raw_dir):
    spacings = set()
    for image, _ in _load_cases(raw_dir / CT):
        array = np.asarray(image.dataobj)
        assert array.dtype == np.int16
        # Air fills the corner above the patient.
        assert abs(np.mean(array[:3, -3:]) + 1000) < 20
        in_plane, _, through = (float(zoom) for zoom in image.header.get_zooms())
        assert 1.4 <= in_plane <= 1.65
        assert 3.6 <= through <= 4.4
        spacings.add((in_plane, through))
    assert len(spacings) == NUM_CASES[CT]


def test_a_full_disk_names_the_file(tmp_path, quick_drawing, monkeypatch):
    def fill_the_disk(image, path):
        pathlib.Path(path).write_bytes(b"a part")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(nib, "save", fill_the_disk)
    with pytest.raises(OSError, match="No space left") as caught:
        _write(tmp_path)
    assert caught.value.filename.endswith("imagesTr/phantomct_000.nii.gz")
    assert not list(tmp_path.iterdir())


def test_mr_has_upright_tilted_and_flipped_scans(raw_dir):
    cases = [image for image, _ in _load_cases(raw_dir / MR)]
    assert [nib.aff2axcodes(image.affine) for image in cases] == [
        *(tuple("RAS"), tuple("RAS"), tuple("LPS"), tuple("LPS"))
    ]
    tilts = [np.rad2deg(nib.affines.obliquity(image.affine)).max() for image in cases]
    assert tilts[0] < 1e-3
    assert tilts[2] < 1e-3
    assert tilts[1] > 5
    assert tilts[3] > 5


def test_mr_scale_is_arbitrary_and_the_outside_is_zero(raw_dir):
    scales = []
    for image, _ in _load_cases(raw_dir / MR):
        array = np.asarray(image.dataobj)
        assert (array == 0).mean() > 0.1
        scales.append(np.median(array[array > 0]))
    assert max(scales) > 1.5 * min(scales)


def test_prostate_has_two_modalities_and_a_thin_peripheral_zone(raw_dir):
    for image, label in _load_cases(raw_dir / PROSTATE):
        assert image.shape[3] == 2
        assert image.get_data_dtype() == np.float32
        labels = np.asarray(label.dataobj)
        # The peripheral zone is behind the transition zone; y runs to the front.
        peripheral, transition = ((labels == k).nonzero()[1].mean() for k in (1, 2))
        assert peripheral < transition - 2
        adc = np.asarray(image.dataobj)[..., 1]
        assert adc[labels == 1].mean() > adc[labels == 2].mean() + 100


def test_a_threshold_does_not_segment_the_organ(raw_dir):
    for image, label in _load_cases(raw_dir / CT):
        array, organ = np.asarray(image.dataobj), np.asarray(label.dataobj) == 1
        lows = np.percentile(array[organ], (1, 5, 10, 20, 30))
        highs = np.percentile(array[organ], (70, 80, 90, 95, 99))
        for found in [(low <= array) & (array <= h) for low in lows for h in highs]:
            dice = 2 * (found & organ).sum() / (found.sum() + organ.sum())
            assert dice < 0.8


def test_files_depend_on_the_seed_alone(tmp_path):
    first = _write(tmp_path / "a")
    again = _write(tmp_path / "b")
    other = _write(tmp_path / "c", seed=1)
    assert first == again
    assert first.keys() == other.keys()
    assert all(first[name] != other[name] for name in first)


def test_cases_are_independent(quick_drawing, tmp_path):
    few = _write(tmp_path / "few", num_cases=1)
    more = _write(tmp_path / "more", num_cases=2, domains=(MR, CT))
    name = f"{CT}/imagesTr/phantomct_000.nii.gz"
    assert few[name] == more[name]
    assert f"{CT}/imagesTr/phantomct_001.nii.gz" in more
    assert f"{MR}/labelsTr/phantommr_001.nii.gz" in more


def test_a_second_run_keeps_matching_domains_and_replaces_others(
    quick_drawing, tmp_path
):
    before = _write(tmp_path)
    image = tmp_path / CT / "imagesTr" / "phantomct_000.nii.gz"
    written = image.stat().st_mtime_ns
    assert _write(tmp_path) == before
    assert image.stat().st_mtime_ns == written
    image.unlink()
    assert _write(tmp_path) == before
    assert _write(tmp_path, seed=1) != before
    # Leftovers of a killed run are removed, not mistaken for a domain.
    (tmp_path / f".{CT}.partial" / "imagesTr").mkdir(parents=True)
    assert _write(tmp_path) == before
    assert [path.name for path in tmp_path.iterdir()] == [CT]


def test_a_folder_of_something_else_is_not_touched(tmp_path):
    (tmp_path / MR).mkdir()
    (tmp_path / MR / "dataset.json").write_text('{"name": "real"}')
    with pytest.raises(ValueError, match="Task02_PhantomMR.*something else"):
        _write(tmp_path, domains=(CT, MR))
    assert list(_files(tmp_path)) == [f"{MR}/dataset.json"]


def test_a_foreign_file_among_phantoms_is_not_deleted(quick_drawing, tmp_path):
    _write(tmp_path)
    mine = tmp_path / CT / "imagesTr" / "mine.nii.gz"
    mine.write_bytes(b"mine")
    with pytest.raises(ValueError, match="mine"):
        _write(tmp_path, seed=1)
    assert mine.read_bytes() == b"mine"


def test_unknown_domain_is_reported(tmp_path):
    with pytest.raises(ValueError, match="Received: 'Task09'"):
        _write(tmp_path, domains=("Task09",))
    assert not list(tmp_path.iterdir())


def test_a_failing_case_leaves_nothing_behind(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(make_phantoms, "_write_case", fail)
    with pytest.raises(OSError, match="disk full"):
        _write(tmp_path)
    assert not list(tmp_path.iterdir())


def test_flags_reach_the_writer(tmp_path):
    done = _run(
        *(f"--output_dir={tmp_path}/raw", "--cases=1", "--seed=5", f"--domains={CT}")
    )
    assert done.returncode == 0, done.stderr
    assert "wrote 1 case with seed 5" in done.stdout
    expected = _write(tmp_path / "direct", num_cases=1, seed=5, domains=(CT,))
    assert _files(tmp_path / "raw") == expected


def test_a_bad_flag_exits_with_a_one_line_error(tmp_path):
    done = _run(f"--output_dir={tmp_path}/raw", "--domains=nonsense")
    assert done.returncode != 0
    assert "--domains" in done.stderr
    assert "nonsense" in done.stderr
    assert "Traceback" not in done.stderr


def test_rotation_turns_about_x_then_y_then_z():
    for degrees, point, rotated in [
        ((90, 0, 0), (0, 1, 0), (0, 0, 1)),
        ((0, 90, 0), (0, 0, 1), (1, 0, 0)),
        ((0, 0, 90), (1, 0, 0), (0, 1, 0)),
        ((90, 0, 90), (0, 0, 1), (1, 0, 0)),
    ]:
        found = phantoms.rotation(degrees) @ point
        np.testing.assert_allclose(found, rotated, atol=1e-12)


def test_scan_averages_inside_a_voxel():
    # An edge at x = 0.1 mm runs through the voxel at 0, just right of its centre.
    tissues = [
        phantoms.Tissue(phantoms.everywhere, (0.0,)),
        phantoms.Tissue(lambda points: points[..., 0] > 0.1, (10.0,), label=1),
    ]
    signal, labels = phantoms.scan(tissues, (3, 1, 1), np.diag([1.0, 1, 1, 1]))
    np.testing.assert_array_equal(signal[:, 0, 0, 0], (5, 10, 10))
    np.testing.assert_array_equal(labels[1:, 0, 0], (1, 1))


def test_waves_stay_within_their_bound():
    rng = np.random.default_rng(0)
    waves = phantoms.draw_waves(rng, wavelength=10.0, amplitude=0.5)
    values = waves(rng.uniform(-50, 50, (20000, 3)))
    assert np.abs(values).max() <= waves.bound
    assert abs(values.std() - 0.5) < 0.1
    flat = phantoms.draw_waves(rng, wavelength=1e6, amplitude=0.5)
    assert flat(rng.uniform(-50, 50, (100, 3))).std() < 0.01
