import contextlib
import dataclasses
import gzip
import hashlib
import json
import math
import os
import pathlib
import shutil
import signal
import subprocess
import sys
import time

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf
from command_server import arguments_of, checked
from command_session import tensorflow_server
from in_process import InProcess
from killed_worker import end_process
from power_cuts import PowerCuts
from recorded_progress import RecordedProgress

from data_prep import verify
from data_prep.config import ConversionConfig
from data_prep.convert import __main__ as convert_command
from data_prep.convert import convert_domains, part_files, write_shards
from u2net_tf import files, locks
from u2net_tf.errors import InputError, StoppedError
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.labels import Label
from u2net_tf.plan.plan_file import plan_to_json
from u2net_tf.plan.plan_hash import plan_hash
from u2net_tf.plan.preprocessing import Preprocessing
from u2net_tf.progress import silent
from u2net_tf.shards import manifest, record_size, records
from u2net_tf.volumes import crop_and_resample, msd

ROOT = pathlib.Path(__file__).parent.parent.parent
ORGAN = Domain(
    name="Task90_Organ",
    raw_dir="set by the fixtures",
    modalities=("MRI",),
    labels=(Label("background", (0,)), Label("organ", (1, 2))),
    spacing_mm=(2.0, 1.0, 1.0),
    median_shape=(6, 10, 8),
    patch_size=(4, 8, 8),
    pools=(1, 2, 2),
    batch_size=2,
    preprocessing=Preprocessing(margin_voxels=1),
    train=("a", "b"),
    validation=("c",),
    test=("d",),
)
PROSTATE = dataclasses.replace(
    ORGAN,
    name="Task91_Prostate",
    modalities=("T2", "ADC"),
    labels=(Label("background", (0,)), Label("gland", (1,)), Label("rim", (2,))),
    train=("p", "q"),
    validation=(),
    test=("r",),
)
SHAPE = (6, 12, 10)


def draw_image(seed, num_modalities=1):
    """Draws an image that is non-zero in z 1–4, y 3–8, x 2–7, so that it is cropped."""
    generator = np.random.default_rng(seed)
    image = np.zeros((num_modalities, *SHAPE), np.float32)
    image[:, 1:5, 3:9, 2:8] = generator.normal(100, 10, (num_modalities, 4, 6, 6))
    return image if num_modalities > 1 else image[0]


def make_labels():
    labels = np.zeros(SHAPE, np.uint8)
    labels[2:4, 4:6, 3:6] = 1
    labels[4, 7, 6] = 2
    return labels


@pytest.fixture(scope="module")
def write_cases(write_nifti, write_dataset):
    """Writes the scans of a domain; returns the domain with its folder."""

    def write(raw_dir, domain, **keywords):
        cases = [*domain.train, *domain.validation, *domain.test]
        folder = raw_dir / domain.name
        for case in cases:
            image = draw_image(sum(map(ord, case)), domain.num_modalities)
            write_nifti(folder / "imagesTr" / f"{case}.nii.gz", image, (2, 1, 1))
            write_nifti(
                folder / "labelsTr" / f"{case}.nii.gz", make_labels(), (2, 1, 1)
            )
        labels = ("background", "organ", "more")
        write_dataset(folder, cases, labels, domain.modalities)
        return dataclasses.replace(domain, raw_dir=str(folder))

    return write


@pytest.fixture(scope="module")
def raw(tmp_path_factory, write_cases):
    """Folder and plan of two domains; must not be modified."""
    folder = tmp_path_factory.mktemp("raw")
    return folder, Plan((write_cases(folder, ORGAN), write_cases(folder, PROSTATE)))


@pytest.fixture
def one(tmp_path, write_cases):
    """Raw folder, plan file and data folder of one domain; may be modified."""
    domain = write_cases(tmp_path / "raw", ORGAN)
    return One(tmp_path / "raw" / ORGAN.name, domain, tmp_path / "data")


@pytest.fixture(scope="module")
def kept(tmp_path_factory, write_cases):
    folder = tmp_path_factory.mktemp("kept")
    domain = write_cases(folder / "raw", ORGAN)
    One(folder / "raw" / ORGAN.name, domain, folder / "data").convert()
    return folder


@pytest.fixture
def finished(kept, tmp_path):
    """Like `one`, after conversion."""
    folder = shutil.copytree(kept, tmp_path / "finished")
    for path in (folder / "data").rglob("*.json"):
        path.write_text(path.read_text().replace(str(kept), str(folder)))
    raw = folder / "raw" / ORGAN.name
    domain = dataclasses.replace(ORGAN, raw_dir=str(raw))
    return One(raw, domain, folder / "data")


@dataclasses.dataclass
class One:
    raw: pathlib.Path
    domain: Domain
    data_dir: pathlib.Path

    @property
    def plan_file(self):
        path = self.data_dir.parent / "plan.json"
        files.write_text(path, plan_to_json(Plan((self.domain,))))
        return path

    @property
    def flags(self):
        return {"plan": self.plan_file, "data_dir": self.data_dir, "num_workers": 1}

    def convert(self, **settings):
        settings = {"num_workers": 1} | settings
        return convert(Plan((self.domain,)), self.data_dir, **settings)[0]

    def image(self, case):
        return self.raw / "imagesTr" / f"{case}.nii.gz"

    def label(self, case):
        return self.raw / "labelsTr" / f"{case}.nii.gz"


def convert(
    plan,
    data_dir,
    names=(),
    *,
    in_workers=False,
    progress=silent,
    on_finished=None,
    **settings,
):
    values = {"data_dir": str(data_dir), "domains": tuple(names), **settings}
    arguments = (plan, ConversionConfig(**values))
    return convert_domains.convert(
        *arguments,
        executor=None if in_workers else InProcess(),
        progress=progress,
        on_finished=on_finished,
    )


def contents(data_dir):
    """Returns path -> bytes of all files in a folder, including hidden ones."""
    return {
        str(path.relative_to(data_dir)): path.read_bytes()
        for path in sorted(data_dir.rglob("*"))
        if path.is_file()
    }


def read_shard(path, compression=""):
    dataset = tf.data.TFRecordDataset(str(path), compression, buffer_size=1 << 20)
    return [serialized.numpy() for serialized in dataset]


def assert_nothing_half_written(data_dir):
    """Checks that there is no plan, manifest or shard; parts may exist."""
    left = {name for name in contents(data_dir) if ".parts/" not in name}
    assert left == set()


@pytest.fixture(scope="module")
def converted(raw, tmp_path_factory, run_command):
    folder, plan = raw
    data_dir = tmp_path_factory.mktemp("converted") / "made" / "data"
    plan_file = data_dir.parent.parent / "plan.json"
    plan_file.write_text(plan_to_json(plan))
    done = run_command(
        "data_prep.convert", plan=plan_file, data_dir=data_dir, num_workers=1
    )
    return data_dir, done


def test_conversion_writes_shards_manifests_and_the_plan(converted):
    data_dir, done = converted
    assert set(contents(data_dir)) == {
        "plan.json",
        "Task90_Organ/manifest.json",
        "Task90_Organ/train-00000-of-00001.tfrecord",
        "Task90_Organ/validation-00000-of-00001.tfrecord",
        "Task90_Organ/test-00000-of-00001.tfrecord",
        "Task91_Prostate/manifest.json",
        "Task91_Prostate/train-00000-of-00001.tfrecord",
        "Task91_Prostate/test-00000-of-00001.tfrecord",
    }
    lines = done.stdout.splitlines()
    assert f"{data_dir}/Task90_Organ: 2 train, 1 validation, 1 test case," in lines[0]
    assert "in 3 shards" in lines[0]
    assert f"{data_dir}/Task91_Prostate: 2 train, 1 test case, " in lines[1]
    assert done.stderr == "", "neither a progress bar nor TensorFlow's start"


def test_converted_folder_can_be_loaded(converted, raw):
    plan, manifests = manifest.load_converted(converted[0])
    assert plan == raw[1]
    assert [made.domain for made in manifests] == list(plan.names)


def test_entry_of_a_case(converted, raw):
    folder, _ = raw
    made = manifest.load_manifest(converted[0], "Task90_Organ")
    (entry,) = made.entries(ORGAN.validation)
    raw_files = [
        folder / "Task90_Organ" / kind / "c.nii.gz" for kind in ("imagesTr", "labelsTr")
    ]
    assert entry.case == "c"
    assert entry.shard == "validation-00000-of-00001.tfrecord"
    assert entry.files == [str(path) for path in raw_files]
    assert entry.raw_shape == list(SHAPE)
    assert entry.raw_spacing_mm == [2, 1, 1]
    assert entry.raw_orientation == "RAS"
    assert entry.raw_affine == np.diag([1.0, 1, 2, 1]).tolist()
    assert entry.crop_start == [0, 2, 1]
    assert entry.crop_shape == entry.shape == [6, 8, 8]
    assert entry.spacing_mm == [2, 1, 1]
    # 2 * 2 * 3 voxels of value 1 and one of value 2, which are merged by this plan.
    assert entry.label_voxels == [6 * 8 * 8 - 13, 13]
    (serialized,) = read_shard(converted[0] / "Task90_Organ" / entry.shard)
    assert entry.num_bytes == len(serialized)
    assert entry.checksum == hashlib.sha256(serialized).hexdigest()
    stats = [path.stat() for path in raw_files]
    assert made.raw_signatures["c"] == [[s.st_size, s.st_mtime_ns] for s in stats]
    assert made.skipped == {}


def test_record_of_a_case(converted):
    path = converted[0] / "Task91_Prostate" / "test-00000-of-00001.tfrecord"
    record = records.decode(read_shard(path)[0])
    domain = dataclasses.replace(PROSTATE, raw_dir="none")
    image, crop = crop_and_resample.preprocess_image(
        draw_image(ord("r"), 2), (2.0, 1.0, 1.0), domain
    )
    labels = crop_and_resample.preprocess_labels(make_labels(), crop)
    assert (record.domain, record.case) == ("Task91_Prostate", "r")
    np.testing.assert_array_equal(record.image, image.astype(np.float16))
    np.testing.assert_array_equal(record.labels, labels)
    assert record.label_counts.tolist() == [6 * 8 * 8 - 13, 12, 1]
    # The classes are so small that all their voxels are listed.
    assert record.coordinate_counts.tolist() == [0, 12, 1]
    found = record.labels[tuple(record.coordinates.T)]
    assert found.tolist() == [1] * 12 + [2]


def test_shards_do_not_depend_on_the_run(converted, raw, tmp_path):
    convert(raw[1], tmp_path / "again")
    assert contents(tmp_path / "again") == contents(converted[0])


def test_order_of_cases_depends_neither_on_their_names_nor_on_the_workers(
    write_cases, tmp_path
):
    names = tuple("abcdefgh")
    domain = dataclasses.replace(ORGAN, train=names, validation=(), test=())
    domain = write_cases(tmp_path / "raw", domain)
    plan = Plan((domain,))
    (made,) = convert(plan, tmp_path / "data", num_workers=2, in_workers=True)
    order = [entry.case for entry in made.cases]
    assert sorted(order) == list(names)
    assert order != list(names)
    convert(plan, tmp_path / "again")
    assert contents(tmp_path / "again") == contents(tmp_path / "data")


def test_resampling_to_the_spacing_of_the_plan(one):
    one.domain = dataclasses.replace(one.domain, spacing_mm=(1.0, 2.0, 1.0))
    entry = one.convert().cases[0]
    assert entry.raw_spacing_mm == [2, 1, 1]
    assert entry.crop_shape == [6, 8, 8]
    assert entry.shape == [12, 4, 8]
    assert entry.spacing_mm == [1, 2, 1]


@pytest.mark.parametrize("resample", [False, True])
def test_modalities_are_resampled_on_request(one, monkeypatch, resample):
    requested = []
    read = part_files.case_files.read_image

    def spy(paths, domain, **options):
        requested.append(options["resample_modalities"])
        return read(paths, domain, **options)

    monkeypatch.setattr(part_files.case_files, "read_image", spy)
    one.convert(resample_modalities=resample)
    assert requested == [resample] * 4


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_image_dtype(one, dtype):
    made = one.convert(image_dtype=dtype)
    assert made.image_dtype == dtype
    (entry,) = made.entries(ORGAN.test)
    (serialized,) = read_shard(one.data_dir / ORGAN.name / entry.shard)
    fields = records.parse(serialized, image_dtype=dtype)
    image, _ = crop_and_resample.preprocess_image(
        draw_image(ord("d"))[None], (2.0, 1.0, 1.0), one.domain
    )
    np.testing.assert_array_equal(fields["image"], image.astype(dtype), strict=True)


def test_intensities_beyond_the_range_of_float16_are_refused(one, write_nifti):
    """Statistics over positive voxels do not limit negative intensities."""
    preprocessing = Preprocessing(margin_voxels=1, statistics_over="positive")
    one.domain = dataclasses.replace(one.domain, preprocessing=preprocessing)
    image = draw_image(0)
    image[1, 3:9, 2:8] = -1e6
    write_nifti(one.image("d"), image, (2, 1, 1))
    words = r"d\.nii\.gz: expected .* up to 65504, .* Received: -\d+ to .*Use `image_"
    with pytest.raises(InputError, match=words):
        one.convert()
    made = one.convert(image_dtype="float32")
    path = one.data_dir / ORGAN.name / made.shards(ORGAN.test)[0]
    assert records.decode(read_shard(path)[0]).image.min() < -65504


def test_compression(one):
    made = one.convert(compression="gzip")
    assert made.compression == "gzip"
    path = one.data_dir / ORGAN.name / made.shards(ORGAN.train)[0]
    gzip.decompress(path.read_bytes())
    assert [records.decode(text).case for text in read_shard(path, "GZIP")] == [
        entry.case for entry in made.entries(ORGAN.train)
    ]


def test_shard_is_closed_once_it_is_large_enough(one):
    one.domain = dataclasses.replace(
        one.domain, train=("a", "b", "c", "d"), validation=(), test=()
    )
    size = one.convert().cases[0].num_bytes
    # A shard is closed once the size is reached: after the second of two cases.
    made = one.convert(shard_size_mb=1.5 * size / 1e6, overwrite=True)
    assert made.shards(one.domain.train) == [
        "train-00000-of-00002.tfrecord",
        "train-00001-of-00002.tfrecord",
    ]
    assert [entry.shard[:11] for entry in made.cases] == ["train-00000"] * 2 + [
        "train-00001"
    ] * 2
    folder = one.data_dir / ORGAN.name
    assert sorted(path.name for path in folder.iterdir()) == [
        "manifest.json",
        *made.shards(one.domain.train),
    ]
    cases = [
        records.decode(text).case
        for name in made.shards(one.domain.train)
        for text in read_shard(folder / name)
    ]
    assert cases == [entry.case for entry in made.cases]


def test_every_flag_reaches_the_conversion(raw, tmp_path, run_warm, write_nifti):
    moved = tmp_path / "moved"
    shutil.copytree(raw[0], moved)
    generator = np.random.default_rng(0)
    for case in ("p", "q"):
        large = generator.normal(100, 10, (2, 12, 100, 100)).astype(np.float32)
        write_nifti(moved / PROSTATE.name / f"imagesTr/{case}.nii.gz", large, (2, 1, 1))
        label = np.uint8(large[0] > 130)
        write_nifti(moved / PROSTATE.name / f"labelsTr/{case}.nii.gz", label, (2, 1, 1))
    bad = moved / PROSTATE.name / "imagesTr/r.nii.gz"
    bad.write_bytes(b"no image")
    plan_file = tmp_path / "plan.json"
    plan_file.write_text(plan_to_json(raw[1]))
    convert(raw[1], tmp_path / "data", [PROSTATE.name])
    done = run_warm(
        "data_prep.convert",
        plan=plan_file,
        data_dir=tmp_path / "data",
        overwrite=True,
        on_bad_case="skip",
        raw_dir=moved,
        domains=PROSTATE.name,
        num_workers=1,
        shard_size_mb=1,
        compression="gzip",
        image_dtype="float32",
    )
    assert f"  skipped r: {bad}: expected a readable NIfTI file" in done.stdout
    assert not (tmp_path / "data" / ORGAN.name).exists()
    _, (made,) = manifest.load_converted(tmp_path / "data", [PROSTATE.name])
    assert len(made.shards([c for c in PROSTATE.train if c != "r"])) == 2
    assert (made.compression, made.image_dtype) == ("gzip", "float32")
    assert made.cases[0].files[0].startswith(str(moved / PROSTATE.name))


def test_scans_that_have_moved(one):
    moved = one.raw.parent.rename(one.raw.parent.with_name("moved"))
    with pytest.raises(
        InputError, match="dataset.json: expected a file. Received: no such"
    ):
        one.convert()
    made = one.convert(raw_dir=str(moved))
    assert made.cases[0].files[0].startswith(str(moved / ORGAN.name))


def test_domain_that_is_not_in_the_plan(one, run_light):
    done = run_light("data_prep.convert", **one.flags, domains="Task92", status=1)
    assert "domain 'Task92': expected one of Task90_Organ" in done.stderr


@pytest.mark.parametrize("flag", ["plan", "data_dir"])
def test_required_flags(flag, run_light, tmp_path):
    flags = {"plan": tmp_path / "plan.json", "data_dir": tmp_path} | {flag: ""}
    done = run_light("data_prep.convert", **flags, status=1)
    assert f"--{flag}: expected a value" in done.stderr


def test_second_run_reports_that_it_is_done(finished, run_light):
    before = contents(finished.data_dir)
    done = run_light("data_prep.convert", **finished.flags)
    assert "(already converted)" in done.stdout
    assert contents(finished.data_dir) == before


def test_plan_changes_that_do_not_affect_shards_are_adopted(finished):
    finished.domain = dataclasses.replace(finished.domain, batch_size=7)
    finished.convert()
    plan, _ = manifest.load_converted(finished.data_dir)
    assert plan.domains[0].batch_size == 7


def touch_label(one):
    path = one.label("d")
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))


def rewrite_image(one):
    path = one.image("d")
    status = path.stat()
    image = nib.Nifti1Image(draw_image(99).T, np.diag([1, 1, 2, 1]))
    image.header["descrip"] = "Another size on disk, too"
    nib.save(image, path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size != status.st_size


def change_plan(one):
    one.domain = dataclasses.replace(one.domain, spacing_mm=(2.0, 2.0, 1.0))


@pytest.mark.parametrize(
    ("change", "settings", "message"),
    [
        (touch_label, {}, "expected .*labelsTr/d.nii.gz unchanged since the conv"),
        (rewrite_image, {}, "expected .*imagesTr/d.nii.gz unchanged since the conv"),
        (change_plan, {}, "of this plan. Received: shards of a different plan"),
        (
            None,
            {"image_dtype": "float32"},
            "`image_dtype`=float32. Received: `image_dtype`=float16",
        ),
        (
            None,
            {"compression": "gzip"},
            "`compression`=gzip. Received: `compression`=none",
        ),
        (
            None,
            {"shard_size_mb": 1},
            "`shard_size_mb`=1.0. Received: `shard_size_mb`=100.0",
        ),
    ],
)
def test_changes_since_the_conversion_are_detected_and_replaced(
    finished, change, settings, message
):
    before = contents(finished.data_dir)
    if change:
        change(finished)
    with pytest.raises(InputError, match=f"manifest.json: .*{message}.*`overwrite`"):
        finished.convert(**settings)
    assert contents(finished.data_dir) == before
    made = finished.convert(**settings, overwrite=True)
    assert made.plan_hash == plan_hash(finished.domain)
    assert finished.convert(**settings) == made
    manifest.load_converted(finished.data_dir)


def test_shards_of_earlier_conversions_are_removed(one):
    first = one.convert(shard_size_mb=1e-6)
    assert len(first.shards(ORGAN.train)) == 2
    # Left over from a killed run.
    (one.data_dir / ORGAN.name / ".partial-test-00007.tfrecord").write_bytes(b"half")
    made = one.convert(overwrite=True)
    left = sorted(path.name for path in (one.data_dir / ORGAN.name).iterdir())
    shards = {entry.shard for entry in made.cases}
    assert left == sorted(["manifest.json", *shards])


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (pathlib.Path.unlink, "expected a shard. Received: no such file"),
        (
            lambda path: path.write_bytes(b""),
            "Received: 0, truncated in the record of",
        ),
        (
            lambda path: path.write_bytes(path.read_bytes()[:-1]),
            "truncated in the record",
        ),
    ],
)
def test_missing_and_truncated_shards_are_written_again(finished, caplog, spoil, words):
    made = finished.convert()
    before = contents(finished.data_dir)
    path = finished.data_dir / ORGAN.name / made.shards(ORGAN.train)[0]
    spoil(path)
    assert finished.convert() == made
    assert contents(finished.data_dir) == before
    assert f"{ORGAN.name} is converted again: {path}: expected " in caplog.text
    assert words in caplog.text


def test_a_manifest_that_cannot_be_written_changes_nothing(finished, monkeypatch):
    before = contents(finished.data_dir)
    monkeypatch.setattr(write_shards, "to_json", lambda manifest: "\udcff")
    with pytest.raises(UnicodeEncodeError):
        finished.convert(compression="gzip", overwrite=True)
    after = contents(finished.data_dir)
    assert {name: after[name] for name in after if ".parts/" not in name} == before


def test_unreadable_manifest_is_replaced_on_request(finished):
    made = finished.convert()
    path = manifest.manifest_path(finished.data_dir, ORGAN.name)
    path.write_text("{")
    with pytest.raises(InputError, match="expected a manifest"):
        finished.convert()
    assert finished.convert(overwrite=True) == made


def part_times(data_dir):
    parts = data_dir / ORGAN.name / ".parts"
    return {path.stem: path.stat().st_mtime_ns for path in parts.glob("[!.]*.npz")}


def fail_at(one, case):
    """Interrupts a conversion when every case but this one is done."""
    content = one.image(case).read_bytes()
    one.image(case).write_bytes(content[:-20])
    with pytest.raises(InputError, match=f"{case}.nii.gz"):
        one.convert()
    one.image(case).write_bytes(content)


def last_case(one):
    """The case that is preprocessed last."""
    names = [*one.domain.train, *one.domain.validation, *one.domain.test]
    return max(names, key=lambda name: hashlib.sha256(name.encode()).digest())


def spy_on_parts(monkeypatch):
    """Records the times of the parts just before they are merged into shards."""
    seen = {}
    write_domain_shards = convert_domains.write_domain_shards

    def spy(settings, *arguments, **keywords):
        seen.update(part_times(pathlib.Path(settings.data_dir)))
        return write_domain_shards(settings, *arguments, **keywords)

    monkeypatch.setattr(convert_domains, "write_domain_shards", spy)
    return seen


def test_parts_of_an_interrupted_run_are_used(one, monkeypatch):
    last = last_case(one)
    fail_at(one, last)
    assert_nothing_half_written(one.data_dir)
    before = part_times(one.data_dir)
    assert set(before) == {"a", "b", "c", "d"} - {last}
    seen = spy_on_parts(monkeypatch)
    one.convert()
    assert set(seen) == {"a", "b", "c", "d"}
    assert {case: seen[case] for case in before} == before
    assert not (one.data_dir / ORGAN.name / ".parts").exists()


def test_two_conversions_do_not_share_their_parts(one):
    folder = one.data_dir / ORGAN.name
    with locks.locked(folder):
        with pytest.raises(InputError, match="expected a folder that no other run"):
            one.convert()
        assert {path.name for path in folder.iterdir()} == {locks.LOCK, locks.HOLDER}
    one.convert()
    assert not (folder / ".parts").exists()


def test_domains_can_be_converted_concurrently(raw, tmp_path):
    with locks.locked(tmp_path / ORGAN.name):
        convert(raw[1], tmp_path, [PROSTATE.name])
        with pytest.raises(InputError, match=f"{ORGAN.name}: expected a folder that"):
            convert(raw[1], tmp_path)
    convert(raw[1], tmp_path)


def test_after_a_power_cut_shards_match_their_manifest(finished, tmp_path):
    old = finished.convert()
    domain = finished.domain
    data_dir = finished.data_dir
    hidden = (".parts", ".lock", ".partial-")
    with PowerCuts(data_dir, ignored=hidden) as cuts:
        new = finished.convert(shard_size_mb=1e-6, overwrite=True)
    assert len(new.shards(domain.train)) == 2
    found = []
    for number, state in enumerate(cuts.states):
        after = cuts.restore(state, tmp_path / f"after_{number}")
        if manifest.manifest_path(after, domain.name).exists():
            # An existing manifest is intact, and so are its shards.
            plan, (made,) = manifest.load_converted(after)
            assert plan == Plan((domain,))
            assert not [
                problem
                for problem in verify.verify_domain(after, domain, made)
                # Left by the interrupted conversion; the next one removes it.
                if "one that it does not list" not in problem
            ]
            found.append(made)
    assert old in found
    assert new in found
    for number, state in enumerate(cuts.last):
        after = cuts.restore(state, tmp_path / f"last_{number}")
        assert manifest.load_converted(after)[1] == [new]


def test_parts_are_reused_when_the_plan_drops_the_bad_case(one, monkeypatch):
    last = last_case(one)
    fail_at(one, last)
    before = part_times(one.data_dir)
    one.domain = dataclasses.replace(
        one.domain,
        **{
            split: tuple(name for name in one.domain.cases(split) if name != last)
            for split in ("train", "validation", "test")
        },
    )
    seen = spy_on_parts(monkeypatch)
    one.convert()
    assert seen == before


CHANGES = ["plan", "file", "image_dtype", "resample_modalities", "version", "cut_short"]


@pytest.mark.parametrize("change", CHANGES)
def test_outdated_parts_are_written_again(one, monkeypatch, change):
    last = last_case(one)
    fail_at(one, last)
    before = part_times(one.data_dir)
    case = next(iter(before))
    settings = {}
    if change == "plan":
        change_plan(one)
    elif change == "file":
        status = one.label(case).stat()
        os.utime(one.label(case), ns=(0, status.st_mtime_ns + 1))
    elif change == "image_dtype":
        settings = {"image_dtype": "float32"}
    elif change == "resample_modalities":
        settings = {"resample_modalities": True}
    elif change == "version":
        monkeypatch.setattr(part_files, "PREPROCESSING_VERSION", 2)
    else:
        part = one.data_dir / ORGAN.name / ".parts" / f"{case}.npz"
        part.write_bytes(part.read_bytes()[:-30])
    seen = spy_on_parts(monkeypatch)
    one.convert(**settings)
    redone = {name for name in before if seen[name] != before[name]}
    assert redone == ({case} if change in ("file", "cut_short") else set(before))


@pytest.mark.parametrize("origin", ["[]", "{}", '{"case": "../x"}', "{", None])
def test_parts_with_an_invalid_origin_are_written_again(one, monkeypatch, origin):
    fail_at(one, last_case(one))
    case = next(iter(part_times(one.data_dir)))
    part = one.data_dir / ORGAN.name / ".parts" / f"{case}.npz"
    with np.load(part) as content:
        arrays = {**content, "origin": np.array(origin or "")}
    if origin is None:
        # Keeps only the key.
        arrays = {"key": arrays["key"]}
    np.savez(part, **arrays)
    before = part_times(one.data_dir)
    seen = spy_on_parts(monkeypatch)
    one.convert()
    assert {name for name in before if seen[name] != before[name]} == {case}


def make_job(one, case):
    return part_files.ConversionJob(
        domain=one.domain,
        case=msd.read_dataset(one.raw).case(case),
        group="train",
        image_dtype="float16",
        signatures=[None, None],
        part=one.data_dir / "a.npz",
    )


def test_damaged_parts_and_those_of_other_cases_are_reported(one):
    first, second = make_job(one, "a"), make_job(one, "b")
    assert part_files.write_part(first) is None
    part_files.load_part(first)
    assert part_files.write_part(second) is None
    words = "a.npz: expected the part file of case 'a'. Received: "
    with pytest.raises(InputError, match=f"{words}that of another case"):
        part_files.load_part(first)
    first.part.write_bytes(b"PK damaged")
    with pytest.raises(InputError, match=f"{words}This file"):
        part_files.load_part(first)


@pytest.fixture
def slow(tmp_path, write_nifti, write_cases):
    """Enough cases for a run to be killed before it has finished."""
    names = tuple(f"case_{number}" for number in range(24))
    domain = dataclasses.replace(ORGAN, train=names, validation=(), test=())
    domain = write_cases(tmp_path / "raw", domain)
    domain = dataclasses.replace(domain, spacing_mm=(0.25, 0.125, 0.1))
    return One(tmp_path / "raw" / ORGAN.name, domain, tmp_path / "data")


def start_and_wait_for_parts(one, count, **flags):
    flags = [f"--{name}={value}" for name, value in (one.flags | flags).items()]
    process = subprocess.Popen(
        [sys.executable, "-m", "data_prep.convert", *flags],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        start_new_session=True,
    )
    deadline = time.monotonic() + 60
    while len(part_times(one.data_dir)) < count:
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    return process


def count_workers(group):
    """Counts the multiprocessing workers in a process group."""
    count = 0
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if os.getpgid(int(path.name)) == group:
                count += b"spawn_main" in (path / "cmdline").read_bytes()
        except OSError:
            continue
    return count


def wait_until_group_is_gone(group):
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        try:
            os.killpg(group, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    raise AssertionError("workers are still running")


@pytest.mark.slow
def test_killed_run_leaves_no_workers_and_resumes(slow, monkeypatch):
    process = start_and_wait_for_parts(slow, 2, num_workers=3)
    assert count_workers(process.pid) == 3
    process.kill()
    process.wait()
    process.stderr.close()
    wait_until_group_is_gone(process.pid)
    before = part_times(slow.data_dir)
    assert 2 <= len(before) < 24
    seen = spy_on_parts(monkeypatch)
    made = slow.convert()
    assert len(made.cases) == 24
    assert {case: seen[case] for case in before} == before
    assert not list(slow.data_dir.rglob(".p*"))


@pytest.mark.slow
def test_ctrl_c_stops_at_once_with_one_line(slow):
    # Nothing is ever written to it, so that the run cannot finish before the signal.
    slow.image("case_23").unlink()
    os.mkfifo(slow.image("case_23"))
    process = start_and_wait_for_parts(slow, 1, num_workers=1)
    os.killpg(process.pid, signal.SIGINT)
    _, message = process.communicate(timeout=20)
    assert process.returncode == 130
    assert message.strip() == "interrupted; rerun the same command to resume"
    wait_until_group_is_gone(process.pid)
    assert_nothing_half_written(slow.data_dir)


@pytest.mark.parametrize(("num_workers", "num_threads"), [(1, 6), (3, 2), (9, 1)])
def test_workers_share_the_cores(one, monkeypatch, num_workers, num_threads):
    requested = []

    def worker_processes(num_workers, **options):
        requested.append((num_workers, options))
        return contextlib.nullcontext(InProcess())

    names = tuple(f"case_{number}" for number in range(9))
    for case in names:
        shutil.copy(one.image("a"), one.image(case))
        shutil.copy(one.label("a"), one.label(case))
    path = one.raw / "dataset.json"
    content = json.loads(path.read_text())
    content["training"] = [
        {"image": f"./imagesTr/{name}.nii.gz", "label": f"./labelsTr/{name}.nii.gz"}
        for name in names
    ]
    path.write_text(json.dumps(content))
    one.domain = dataclasses.replace(one.domain, train=names, validation=(), test=())
    monkeypatch.setattr(convert_domains.parallel.machine, "num_cores", lambda: 6)
    monkeypatch.setattr(convert_domains.parallel, "worker_processes", worker_processes)
    one.convert(in_workers=True, num_workers=num_workers)
    options = {"num_threads": num_threads, "verbosity": None, "where": ORGAN.name}
    assert requested == [(num_workers, options)]


def test_worker_killed_by_the_system_is_reported(one, monkeypatch):
    monkeypatch.setattr(convert_domains, "write_part", end_process)
    with pytest.raises(
        StoppedError,
        match=f"^{ORGAN.name}: a worker process was killed, .* `num_workers`=1",
    ):
        one.convert(in_workers=True)
    assert_nothing_half_written(one.data_dir)


def test_interruption_while_shards_are_replaced_leaves_no_manifest(
    finished, monkeypatch
):
    change_plan(finished)

    def interrupt(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(
            "data_prep.convert.write_shards._remove_stale_shards", interrupt
        )
        with pytest.raises(KeyboardInterrupt):
            finished.convert(overwrite=True)
    with pytest.raises(InputError, match="no such file"):
        manifest.load_converted(finished.data_dir, [ORGAN.name])
    finished.convert()
    manifest.load_converted(finished.data_dir)


# Bad input of every kind.


def cut_image_short(one, write_nifti):
    content = one.image("b").read_bytes()
    one.image("b").write_bytes(content[: len(content) // 2])


def remove_label(one, write_nifti):
    one.label("b").unlink()


def remove_image(one, write_nifti):
    one.image("b").unlink()


def shorten_label(one, write_nifti):
    write_nifti(one.label("b"), make_labels()[:-1], (2, 1, 1))


def move_label(one, write_nifti):
    affine = np.diag([1.0, 1, 2, 1])
    affine[0, 3] = 5
    write_nifti(one.label("b"), make_labels(), affine=affine)


def put_nan(one, write_nifti):
    image = draw_image(1)
    image[2, 5, 5] = np.nan
    write_nifti(one.image("b"), image, (2, 1, 1))


def put_unknown_label(one, write_nifti):
    labels = make_labels()
    labels[0, 0, :2] = 254
    write_nifti(one.label("b"), labels, (2, 1, 1))


def make_zero(one, write_nifti):
    write_nifti(one.image("b"), np.zeros(SHAPE, np.float32), (2, 1, 1))


def make_constant(one, write_nifti):
    write_nifti(one.image("b"), np.full(SHAPE, 7, np.float32), (2, 1, 1))


def make_almost_constant(one, write_nifti):
    image = np.full(SHAPE, 7, np.float32)
    image[3, 3, 3] = 8
    write_nifti(one.image("b"), image, (2, 1, 1))


def make_flat(one, write_nifti):
    write_nifti(one.image("b"), draw_image(1)[2], (2, 1, 1))


def add_modality(one, write_nifti):
    write_nifti(one.image("b"), draw_image(1, 2), (2, 1, 1))


BAD = [
    (remove_label, "labelsTr", "expected a file. Received: no such file"),
    (remove_image, "imagesTr", "expected a file. Received: no such file"),
    (shorten_label, "labelsTr", r"expected shape \(10, 12, 6\) .*\(10, 12, 5\)"),
    (move_label, "labelsTr", "expected the affine of .*imagesTr/b.*5 mm away"),
    (put_nan, "imagesTr", "expected finite voxels. Received: 1 NaN or inf"),
    (put_unknown_label, "labelsTr", r"among 0, 1, 2. Received: 254 in 2 voxels"),
    (make_zero, "imagesTr", "an image with non-zero voxels. Received: zeros only"),
    (make_constant, "imagesTr", "Received: the constant 7 in modality 0"),
    (
        make_almost_constant,
        "imagesTr",
        "les 2 and 98. Received: the constant 7",
    ),
    (make_flat, "imagesTr", r"expected a 3-D volume.*\(10, 12\)"),
    (cut_image_short, "imagesTr", "expected a readable NIfTI file"),
    (add_modality, "imagesTr", "expected 1 modality. Received: 2"),
]


@pytest.mark.parametrize(
    ("spoil", "folder", "message"), BAD, ids=[spoil.__name__ for spoil, *_ in BAD]
)
def test_error_of_a_bad_case_names_the_file(
    one, capfd, write_nifti, spoil, folder, message
):
    spoil(one, write_nifti)
    with pytest.raises(InputError, match=message) as error:
        one.convert()
    line = str(error.value)
    assert line.startswith(f"{one.raw / folder / 'b.nii.gz'}: ")
    assert line.count("\n") == 0
    assert capfd.readouterr() == ("", "")
    assert_nothing_half_written(one.data_dir)


def test_command_reports_a_bad_case_in_one_line(one, run_light):
    cut_image_short(one, None)
    done = run_light("data_prep.convert", **one.flags, status=1)
    (line,) = done.stderr.splitlines()
    expected = f"error: {one.image('b')}: expected a readable NIfTI file"
    assert line.startswith(expected)
    assert_nothing_half_written(one.data_dir)


def test_bad_cases_are_skipped_and_listed(one, capsys, write_nifti):
    remove_label(one, write_nifti)
    one.image("d").write_bytes(b"no image")
    made = one.convert(on_bad_case="skip")
    convert_command._report(one.data_dir, made, False)
    printed = capsys.readouterr().out
    assert sorted(entry.case for entry in made.cases) == ["a", "c"]
    reasons = {
        "b": f"{one.label('b')}: expected a file. Received: no such file",
        "d": f"{one.image('d')}: expected a readable NIfTI file",
    }
    assert set(made.skipped) == set(reasons)
    for case, reason in reasons.items():
        assert made.skipped[case].startswith(reason)
        assert f"  skipped {case}: {reason}" in printed
    assert "1 train, 1 validation case, " in printed
    # A skipped case is tried again when its files change.
    assert one.convert(on_bad_case="skip") == made
    write_nifti(one.label("b"), make_labels(), (2, 1, 1))
    with pytest.raises(InputError, match="expected .*labelsTr/b.nii.gz unchanged"):
        one.convert(on_bad_case="skip")
    made = one.convert(on_bad_case="skip", overwrite=True)
    assert set(made.skipped) == {"d"}
    with pytest.raises(InputError, match="Received: 1 skipped case, .* d: .*imagesTr"):
        one.convert()


def test_skipping_all_cases_is_an_error(one, run_light):
    for case in "abcd":
        one.image(case).write_bytes(b"no image")
    done = run_light("data_prep.convert", **one.flags, status=1, on_bad_case="skip")
    assert "Task90_Organ: expected at least one usable case. Rec" in done.stderr
    assert "imagesTr/" in done.stderr
    assert_nothing_half_written(one.data_dir)


def test_plan_without_cases_is_an_error(one):
    one.domain = dataclasses.replace(one.domain, train=(), validation=(), test=())
    with pytest.raises(InputError, match="The plan lists no cases"):
        one.convert()


def test_unknown_labels_become_background_if_planned(one, write_nifti):
    put_unknown_label(one, write_nifti)
    expected = one.convert(on_bad_case="skip").cases
    preprocessing = Preprocessing(margin_voxels=1, unknown_labels="background")
    one.domain = dataclasses.replace(one.domain, preprocessing=preprocessing)
    cases = {entry.case: entry for entry in one.convert(overwrite=True).cases}
    assert set(cases) == {"a", "b", "c", "d"}
    assert cases["b"].label_voxels == expected[0].label_voxels


def test_records_beyond_the_size_limit_are_an_error(one, monkeypatch):
    monkeypatch.setattr(record_size, "MAX_RECORD_BYTES", 6 * 8 * 8 * 3 - 1)
    job = make_job(one, "a")
    problem = part_files.write_part(job)
    message = str(problem)
    assert message.startswith(f"{one.image('a')}: expected at most 1151 bytes")
    assert "Received: 1152" in message
    assert not job.part.exists()
    monkeypatch.setattr(record_size, "MAX_RECORD_BYTES", 6 * 8 * 8 * 3)
    assert part_files.write_part(job) is None


def test_memory_of_a_case_is_limited(one):
    with pytest.raises(InputError, match=r"\.nii\.gz: .*`max_memory_gb`"):
        one.convert(max_memory_gb=1e-6)
    one.domain = dataclasses.replace(one.domain, spacing_mm=(0.01, 0.01, 0.01))
    with pytest.raises(InputError, match=r"resampled to 0\.01 × .*: shape \("):
        one.convert(max_memory_gb=0.1)


def test_case_listed_twice_is_converted_once(one):
    path = one.raw / "dataset.json"
    content = json.loads(path.read_text())
    content["training"] += content["training"][:2]
    path.write_text(json.dumps(content))
    made = one.convert()
    assert sorted(entry.case for entry in made.cases) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(("rows", "value"), [([0, 1], 0), ([4, 7], 1)])
def test_lost_annotation_is_reported(one, write_nifti, caplog, rows, value):
    labels = np.full(SHAPE, 9, np.uint8)
    # Rows 2 to 9 are in the crop, and 3, 5 and 8 nearest to a resampled one.
    labels[:, rows] = value
    write_nifti(one.label("a"), labels, (2, 1, 1))
    domain = dataclasses.replace(one.domain, ignore_label=9, spacing_mm=(2, 3, 1))
    dataclasses.replace(one, domain=domain).convert()
    assert caplog.text.count("annotated voxels are lost") == 1
    assert f"{one.label('a')}: all annotated voxels are lost" in caplog.text


@pytest.mark.parametrize("all_outside", [False, True])
def test_foreground_outside_the_crop_is_reported(one, write_nifti, caplog, all_outside):
    labels = make_labels() * np.uint8(not all_outside)
    labels[0, :2, 0] = 1
    write_nifti(one.label("a"), labels, (2, 1, 1))
    made = one.convert(on_bad_case="skip")
    count = "2 of 2" if all_outside else "2 of 15"
    text = f"{count} voxels outside the bounding box of the non-zero voxels of the imag"
    if all_outside:
        assert made.skipped["a"].startswith(f"{one.label('a')}: expected foreground")
        assert text in made.skipped["a"]
    else:
        assert made.skipped == {}
        assert f"{one.label('a')}: foreground with {text}" in caplog.text


@pytest.mark.parametrize("on_bad_case", ["fail", "skip"])
def test_case_missing_from_the_dataset_is_an_error(one, on_bad_case):
    one.domain = dataclasses.replace(one.domain, test=("d", "unlisted"))
    with pytest.raises(InputError, match="dataset.json: .*the case 'unlisted'"):
        one.convert(on_bad_case=on_bad_case)
    assert not one.data_dir.exists()


def test_missing_folder_is_reported(one, run_light):
    one.domain = dataclasses.replace(one.domain, raw_dir=str(one.raw / "gone"))
    done = run_light("data_prep.convert", **one.flags, status=1)
    assert f"{one.raw}/gone/dataset.json: expected a file. Received: " in done.stderr
    assert not one.data_dir.exists()


# A full disk is simulated by a limit on the size of files.


def run_with_file_limit(num_bytes, one, **flags):
    return tensorflow_server().run(
        "tests.data_prep.file_limit",
        num_bytes,
        "data_prep.convert",
        *arguments_of(one.flags | flags),
    )


@pytest.mark.parametrize("limit", ["part", "shard"])
def test_error_of_a_full_disk_names_the_folder(finished, write_nifti, limit):
    # Large enough that the overhead of a file, and the coverage file of the process,
    # are negligible.
    shape = (40, 96, 96)
    generator = np.random.default_rng(0)
    for case in "abcd":
        image = generator.normal(100, 10, shape).astype(np.float32)
        write_nifti(finished.image(case), image, (2, 1, 1))
        write_nifti(finished.label(case), np.uint8(image > 110), (2, 1, 1))
    finished.domain = dataclasses.replace(
        finished.domain, train=("a", "b", "c"), validation=()
    )
    before = contents(finished.data_dir)
    # A part is as large as a record, and a shard as large as three.
    num_bytes = int(math.prod(shape) * 3 * (0.5 if limit == "part" else 2.5))
    done = run_with_file_limit(num_bytes, finished, overwrite=True)
    checked(done, 1)
    # Log lines of TensorFlow may precede it.
    lines = done.stderr.splitlines()
    (line,) = [line for line in lines if line.startswith("error: ")]
    assert line == lines[-1]
    assert line.endswith("Received: file too large")
    assert ".partial" not in line
    folder = finished.data_dir / ORGAN.name
    assert (f"{folder}/.parts/" if limit == "part" else f"{folder}: ") in line
    # Existing files are unchanged; only finished parts were added.
    after = contents(finished.data_dir)
    assert {name: after[name] for name in after if ".parts/" not in name} == before
    assert not list(finished.data_dir.rglob(".partial*"))
    assert len(part_times(finished.data_dir)) == (0 if limit == "part" else 4)
    groups = {entry.group for entry in finished.convert(overwrite=True).cases}
    assert groups == {"train", "test"}


def test_progress_counts_cases_and_finished_domains_are_reported(one):
    finished, progress = [], RecordedProgress()
    arguments = {
        "progress": progress,
        "on_finished": lambda *arguments: finished.append(arguments),
    }
    for _ in range(2):
        made = one.convert(**arguments)
    assert finished == [(made, False), (made, True)]
    assert progress.counts == [
        (one.domain.name, "case", 4),
        (f"{one.domain.name}: shards", "case", 4),
    ]


def test_progress_of_a_resumed_run_starts_at_its_parts(one):
    fail_at(one, last_case(one))
    progress = RecordedProgress()
    one.convert(progress=progress)
    assert [bar.initial for bar in progress.bars] == [3, 0]
    assert [count for _, _, count in progress.counts] == [4, 4]
