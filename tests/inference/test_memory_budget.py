import dataclasses
import logging
import math
import pickle
import tracemalloc

import nibabel as nib
import numpy as np
import pytest
import toy

from u2net_tf import machine
from u2net_tf.config.inference import ReadingConfig
from u2net_tf.inference import case_memory
from u2net_tf.inference.memory_budget import MemoryBudget, Need
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.prepared_scan import prepare_scan
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Plan
from u2net_tf.plan.labels import Label
from u2net_tf.plan.preprocessing import Preprocessing
from u2net_tf.volumes.crop_and_resample import preprocess_volume, resampling_bytes
from u2net_tf.volumes.grid import Grid, Volume
from u2net_tf.volumes.memory import MemoryLimitError, require_memory
from u2net_tf.volumes.preparation_memory import uncropped

NUM_CLASSES = 12
MANY = dataclasses.replace(
    toy.ONE,
    labels=tuple(Label(f"class {value}", (value,)) for value in range(NUM_CLASSES)),
    patch_size=(16, 32, 32),
    spacing_mm=(1.0, 1.5, 2.0),
)


class Bright:
    """A backend without TensorFlow whose probabilities follow the intensities."""

    spec = ModelSpec(plan=Plan((MANY,)), pools=(1, 1, 1))
    fingerprint, checkpoint, is_exported = "", "", False

    def predict_windows(self, windows, domain, *, few=False):
        rises = np.arange(NUM_CLASSES, dtype=np.float32) / NUM_CLASSES
        values = np.exp(windows * rises)
        values /= values.sum(axis=-1, keepdims=True)
        return values


def make_grid(shape, spacing_mm=(1.0, 1.0, 1.0)):
    """The grid of a scan; arguments are in the order x, y, z."""
    affine = np.diag([*spacing_mm, 1])
    header = nib.Nifti1Image(np.zeros((1, 1, 1)), affine).header
    return Grid("scan.nii", shape, affine, header, nib.Nifti1Image)


def make_scan():
    grid = make_grid((80, 70, 60))
    data = np.random.default_rng(0).normal(9, 1, (1, 60, 70, 80)).astype(np.float32)
    return Volume(data, grid.spacing_mm(), grid)


@pytest.mark.parametrize("with_probabilities", [False, True])
def test_a_case_takes_no_more_than_estimated_and_not_much_less(with_probabilities):
    scan = make_scan()
    predictor = Predictor(Bright())
    need = Need.of_scan(scan.grid, MANY, with_probabilities=with_probabilities)
    # Memory of the windows in NumPy; this network needs nothing else.
    windows = 5 * 4 * NUM_CLASSES * math.prod(MANY.patch_size)
    tracemalloc.start()
    predictor.predict(scan, 0, with_probabilities=with_probabilities)
    peak = tracemalloc.get_traced_memory()[1] + scan.data.nbytes
    tracemalloc.stop()
    # ITK's volumes and the file are not counted here.
    assert 0.3 * need.prediction < peak < need.prediction + windows


@pytest.mark.parametrize(
    ("shape", "spacing_mm"),
    [
        # Fewer voxels in plane, more slices; more voxels; fewer; as many.
        ((200, 180, 16), (0.8, 0.8, 6.0)),
        ((50, 60, 40), (4.0, 3.0, 2.0)),
        ((130, 120, 90), (1.0, 0.7, 0.5)),
        ((80, 70, 60), (2.0, 1.5, 1.0)),
    ],
)
@pytest.mark.parametrize("statistics_over", ["all", "positive"])
def test_preprocessing_takes_no_more_than_estimated(shape, spacing_mm, statistics_over):
    settings = Preprocessing(statistics_over=statistics_over)
    domain = dataclasses.replace(MANY, preprocessing=settings)
    grid = make_grid(shape, spacing_mm)
    data = np.random.default_rng(0).normal(9, 1, (1, *shape[::-1])).astype(np.float32)
    scan = Volume(data, grid.spacing_mm(), grid)
    crop = uncropped(grid, MANY)
    tracemalloc.start()
    preprocess_volume(scan, domain)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    estimated = resampling_bytes(crop, 1)
    # Matrices of earlier tests and of this one stay in a cache.
    assert 0.5 * estimated < peak < 1.02 * estimated


def test_a_case_by_its_header_is_uncropped():
    """The shape is permuted according to its orientation."""
    grid = make_grid((80, 70, 60), (1.0, 2.0, 3.0))
    crop = uncropped(grid, MANY)
    assert crop.raw_shape == crop.crop_shape == (60, 70, 80)
    assert crop.shape == (180, 93, 40)
    rotated = dataclasses.replace(
        grid, shape=(60, 70, 80), affine=np.eye(4)[[2, 1, 0, 3]] @ np.diag([3, 2, 1, 1])
    )
    assert uncropped(rotated, MANY).raw_shape == (80, 70, 60)[::-1]


def test_an_absurd_header_is_left_to_the_reader():
    assert Need.of_scan(make_grid((9, 9, 9), (1e9, 1e9, 1e9)), MANY) == Need()


def test_network_memory_grows_with_batch_classes_and_channels():
    spec = Bright.spec
    one = case_memory.network_bytes(spec, 0, 1)
    assert case_memory.network_bytes(spec, 0, 2) > 1.8 * one
    wide = dataclasses.replace(spec, base_channels=32)
    assert case_memory.network_bytes(wide, 0, 1) > 1.5 * one
    by_depth = [
        case_memory.network_bytes(
            dataclasses.replace(spec, architecture="unet_sharp", depth=depth), 0, 1
        )
        for depth in (1, 3, 4)
    ]
    assert one == by_depth[0] < by_depth[1] < by_depth[2]
    assert by_depth[2] > 2 * one
    exported = case_memory.network_bytes(
        dataclasses.replace(spec, architecture="unet_sharp", depth=4),
        0,
        1,
        is_exported=True,
    )
    assert exported > 2.5 * by_depth[2]
    assert case_memory.network_bytes(spec, 0, 1, is_exported=True) == one
    few = dataclasses.replace(
        spec, plan=Plan((dataclasses.replace(MANY, labels=MANY.labels[:2]),))
    )
    assert case_memory.network_bytes(few, 0, 1) < one


def test_program_and_network_count(monkeypatch):
    monkeypatch.setattr(machine, "resident_bytes", lambda: 2 * 10**9)
    monkeypatch.setattr(machine, "memory_bytes", lambda: 12 * 10**9)
    predictor = Predictor(Bright(), batch_size=3)
    network = case_memory.network_bytes(Bright.spec, 0, 3)
    budget = MemoryBudget.of_process([(predictor, 0)], ReadingConfig(max_memory_gb=3))
    assert budget.remaining_gb == pytest.approx(1 - network / 1e9)
    assert budget.of_scans(ReadingConfig()).max_memory_gb == budget.remaining_gb
    # Half of the machine's memory.
    assert MemoryBudget.of_process([(predictor, 0)], ReadingConfig()).limit_gb == 6
    assert MemoryBudget(1, 2).remaining_gb == 0


def test_an_exported_graph_leaves_less_memory():
    class Folder(Bright):
        spec = dataclasses.replace(Bright.spec, architecture="unet_sharp", depth=4)

    class Exported(Folder):
        is_exported = True

    reading = ReadingConfig(max_memory_gb=1000)
    folder, exported = (
        MemoryBudget.of_process([(Predictor(backend), 0)], reading).taken_gb
        for backend in (Folder(), Exported())
    )
    network = case_memory.network_bytes(Folder.spec, 0, 1) / 1e9
    assert exported - folder > 1.5 * network


def test_the_exported_networks_of_all_domains_count(monkeypatch):
    """A network of a model folder, in contrast, frees its memory for the next one."""
    monkeypatch.setattr(machine, "resident_bytes", lambda: 0)

    class Exported(Bright):
        is_exported = True

    reading = ReadingConfig(max_memory_gb=1000)
    network = case_memory.network_bytes(Bright.spec, 0, 1) / 1e9
    for kind, number in ((Bright, 1), (Exported, 3)):
        networks = [(Predictor(kind()), 0) for _ in range(3)]
        taken = MemoryBudget.of_process(networks, reading).taken_gb
        assert taken == pytest.approx(number * network)


def test_resident_memory_is_known_on_linux(monkeypatch, tmp_path):
    assert machine.resident_bytes() > 10**7
    monkeypatch.setattr(machine, "_STATM", tmp_path / "none")
    assert machine.resident_bytes() == 0


def test_read_ahead_fits_into_the_budget(caplog):
    budget = MemoryBudget(limit_gb=10, taken_gb=4)
    reading = ReadingConfig(num_workers=3)
    with caplog.at_level(logging.INFO, "absl"):
        for prediction, expected in ((0, 3), (2, 2), (3, 1), (5, 0), (7, 0)):
            needs = [Need(2e9, prediction * 1e9), Need(1e9, 0)] + 2 * [Need()]
            assert budget.of_workers(reading, needs).num_workers == expected
    words = "reading 2 scans ahead instead of 3, to stay within 10 GB (`max_memory_gb`)"
    assert words in caplog.messages
    assert budget.of_workers(reading, []).num_workers == 0
    assert budget.of_workers(ReadingConfig(num_workers=0), needs).num_workers == 0


def test_errors_of_the_limit_explain_the_rest():
    budget = MemoryBudget(limit_gb=10, taken_gb=4)

    def read(case):
        require_memory(
            case, 7e9, content="shape (9,)", max_memory_gb=budget.remaining_gb
        )

    with pytest.raises(MemoryLimitError) as caught:
        budget.call(read, "a.nii")
    assert str(caught.value) == (
        "a.nii: expected at most 6 GB of memory (`max_memory_gb`). Received: 7 GB for "
        "shape (9,). Of 10 GB, the program and the network take 4"
    )
    assert str(pickle.loads(pickle.dumps(caught.value))) == str(caught.value)
    assert budget.call(len, "abc") == 3


def test_a_scan_that_does_not_fit_is_refused_before_it_is_preprocessed():
    scan = make_scan()
    need = Need.of_scan(scan.grid, MANY).prediction / 1e9
    with pytest.raises(MemoryLimitError, match=r"60, 70, 80.* 12 classes of shape"):
        prepare_scan(scan, MANY, max_memory_gb=0.99 * need)
    prepare_scan(scan, MANY, max_memory_gb=1.01 * need)
