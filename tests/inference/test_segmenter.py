"""`u2net_tf.load`: a model that segments files and arrays from Python."""

import inspect
import shutil
import subprocess
import sys
import threading

import nibabel as nib
import numpy as np
import pytest
import toy

pytest.importorskip("onnx", reason="needs the extra `export`")
pytest.importorskip("openvino", reason="needs the extra `export`")
# `packed` imports onnx itself.
import packed  # noqa: E402
import SimpleITK as sitk  # noqa: E402

import u2net_tf  # noqa: E402
from u2net_tf.config.inference import ReadingConfig, WindowConfig  # noqa: E402
from u2net_tf.errors import InputError  # noqa: E402
from u2net_tf.inference.backends.opening import open_model  # noqa: E402
from u2net_tf.inference.label_maps import predict_scans  # noqa: E402
from u2net_tf.inference.mirroring import MirroredBackend  # noqa: E402
from u2net_tf.inference.opened_model import OpenedModel  # noqa: E402
from u2net_tf.inference.predictor import Predictor  # noqa: E402
from u2net_tf.inference.scans import find_scans  # noqa: E402
from u2net_tf.inference.segmenter import Segmenter  # noqa: E402

ONE, TWO = toy.ONE.name, toy.TWO.name
# Axes of the array in another order and direction, and 0.5 × 1 × 2 mm voxels.
AFFINE = np.array([[0, -1, 0, 9], [0, 0, 2, -4], [0.5, 0, 0, 3], [0, 0, 0, 1]], float)


def draw_image(shape=(10, 12, 11), seed=0):
    """(x, y, z) intensities between zeros, brighter in a box."""
    draw = np.random.default_rng(seed)
    image = np.zeros(shape, np.float32)
    image[1:, :-1, 1:] = draw.uniform(1, 50, image[1:, :-1, 1:].shape)
    image[3:7, 4:9, 2:8] += 200
    return image


@pytest.fixture(scope="module")
def model_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("packed") / "organs.u2net"
    return packed.write(path, packed.make_members())


@pytest.fixture(scope="module")
def model(model_file):
    return u2net_tf.load(model_file)


@pytest.fixture(scope="module")
def scan(tmp_path_factory):
    path = tmp_path_factory.mktemp("scans") / "scan.nii.gz"
    nib.save(nib.Nifti1Image(draw_image(), AFFINE), path)
    return path


@pytest.fixture(scope="module")
def segmentation(model, scan):
    return model(scan, ONE, with_probabilities=True)


def test_the_model(model, model_file):
    assert model.domains == (ONE, TWO)
    assert (model.path, model.runtime) == (str(model_file), "openvino")
    assert model.plan.domains[1].labels == toy.TWO.labels
    assert repr(model) == (
        f"<Segmenter of {ONE}, {TWO} in {model_file}, run by openvino>"
    )


def test_the_working_directory_may_change(model_file, monkeypatch):
    """Domains are loaded when they are first used, from an absolute path."""
    monkeypatch.chdir(model_file.parent)
    assert u2net_tf.load(model_file.name).path == str(model_file)
    with pytest.raises(InputError, match="^nowhere: expected"):
        u2net_tf.load("nowhere")


def test_a_file_is_segmented_as_by_the_command(
    model_file, scan, segmentation, tmp_path
):
    predictor = open_model(model_file).predictor(ONE)
    index = predictor.plan.index(ONE)
    domain = predictor.plan.domains[index]
    found = find_scans([str(scan)], domain)
    predict_scans(
        predictor,
        index,
        found,
        tmp_path / "expected",
        reading=ReadingConfig(),
        save_probabilities=True,
    )
    segmentation.save(tmp_path / "scan.nii.gz")
    expected = nib.load(tmp_path / "expected" / "scan.nii.gz")
    saved = nib.load(tmp_path / "scan.nii.gz")
    assert len(np.unique(expected.dataobj)) > 1
    np.testing.assert_array_equal(saved.dataobj, expected.dataobj)
    np.testing.assert_array_equal(saved.affine, expected.affine)
    probabilities = nib.load(tmp_path / "expected" / "scan_probabilities.nii.gz")
    np.testing.assert_array_equal(
        segmentation.probabilities.transpose(2, 1, 0, 3), probabilities.dataobj
    )


def test_arrays_are_aligned_with_the_file(scan, segmentation, tmp_path):
    path = tmp_path / "scan.nrrd"
    segmentation.save(path)
    labels = segmentation.labels
    assert labels.dtype == np.int32
    stored = sitk.GetArrayFromImage(sitk.ReadImage(str(scan)))
    assert labels.shape == stored.shape == (11, 12, 10)
    np.testing.assert_array_equal(
        labels, sitk.GetArrayFromImage(sitk.ReadImage(str(path)))
    )
    segmentation.save(tmp_path / "scan.nii.gz")
    np.testing.assert_array_equal(labels.T, nib.load(tmp_path / "scan.nii.gz").dataobj)
    np.testing.assert_array_equal(segmentation.affine, AFFINE)


def test_volumes_and_values(model, scan, segmentation):
    assert segmentation.class_values == {"organ": 1}
    # Voxels of 0.5 × 1 × 2 mm.
    count = int((segmentation.labels == 1).sum())
    assert count
    assert segmentation.volumes_ml == {"organ": pytest.approx(count / 1000)}
    # The first of the values that a class was merged from.
    two = model([scan, scan], domain=TWO)
    assert two.class_values == {"rim": 4, "core": 2}
    assert set(np.unique(two.labels)) <= {0, 2, 4}


def test_probabilities_only_on_request(model, scan, segmentation):
    assert model(scan, domain=ONE).probabilities is None
    probabilities = segmentation.probabilities
    assert probabilities.shape == (*segmentation.labels.shape, 2)
    np.testing.assert_allclose(probabilities.sum(axis=-1), 1, atol=1e-5)


def test_an_array_with_an_affine_is_as_the_file(model, segmentation):
    found = model(draw_image().T, domain=ONE, affine=AFFINE)
    np.testing.assert_array_equal(found.labels, segmentation.labels)
    np.testing.assert_array_equal(found.affine, AFFINE)
    assert found.volumes_ml == pytest.approx(segmentation.volumes_ml)


def test_an_array_with_spacing_and_orientation(model, segmentation):
    # The axes of AFFINE: x increases upwards, y to the left, z to the front.
    found = model(draw_image().T, domain=ONE, spacing_mm=(2, 1, 0.5), orientation="SLA")
    np.testing.assert_array_equal(found.labels, segmentation.labels)
    np.testing.assert_array_equal(found.affine[:3, :3], AFFINE[:3, :3])
    # Each of both counts.
    for changed in (
        {"spacing_mm": (1, 1, 1), "orientation": "SLA"},
        {"spacing_mm": (2, 1, 0.5), "orientation": "ILA"},
    ):
        other = model(draw_image().T, domain=ONE, **changed)
        assert not np.array_equal(other.affine[:3, :3], AFFINE[:3, :3])


def test_an_array_of_several_modalities(model, scan, tmp_path):
    second = draw_image(seed=1)
    nib.save(nib.Nifti1Image(second, AFFINE), tmp_path / "second.nii.gz")
    expected = model([scan, tmp_path / "second.nii.gz"], domain=TWO)
    array = np.stack([draw_image().T, second.T], axis=-1)
    found = model(array, domain=TWO, affine=AFFINE)
    assert found.labels.any()
    np.testing.assert_array_equal(found.labels, expected.labels)


def test_integers_are_as_floats(model):
    image = draw_image().T.astype(np.int16)
    found = [
        model(each, domain=ONE, affine=AFFINE).labels
        for each in (image, image.astype(np.float64))
    ]
    np.testing.assert_array_equal(*found)


def test_the_only_domain_may_be_omitted(model_file, scan, segmentation):
    load = open_model(model_file).predictor
    alone = Segmenter(OpenedModel("organ.onnx", "openvino", (ONE,), load))
    np.testing.assert_array_equal(alone(scan).labels, segmentation.labels)


def test_warnings_name_what_is_unusual(model, segmentation):
    assert segmentation.warnings == ()
    found = model(draw_image().T, domain=ONE, affine=np.diag([9.0, 9.0, 9.0, 1]))
    assert "voxels of 9 mm along z, not 1 mm" in found.warnings


def test_a_warning_names_what_float32_loses(model):
    image = draw_image().T.astype(np.float64) + 2**24
    (warning, *_) = model(image, domain=ONE, affine=AFFINE).warnings
    assert warning.startswith("`image`: intensities from 1.67772e+07")


def test_resampled_modalities(model, scan, tmp_path):
    shifted = AFFINE.copy()
    shifted[0, 3] += 3
    nib.save(nib.Nifti1Image(draw_image(seed=1), shifted), tmp_path / "second.nii.gz")
    paths = [scan, tmp_path / "second.nii.gz"]
    with pytest.raises(InputError, match=r"second\.nii\.gz"):
        model(paths, domain=TWO)
    found = model(paths, domain=TWO, resample_modalities=True)
    assert found.labels.shape == (11, 12, 10)


def test_threads_share_a_model(model, scan, segmentation):
    found, errors = {}, []

    def segment(number):
        try:
            name = (ONE, TWO)[number % 2]
            found[number] = model([scan] * (1 + number % 2), domain=name).labels
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=segment, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    expected = model([scan, scan], domain=TWO).labels
    for number, labels in found.items():
        np.testing.assert_array_equal(
            labels, expected if number % 2 else segmentation.labels
        )


def test_the_network_never_runs_twice_at_once(model, scan, monkeypatch):
    inside, most = [], []
    predict = Predictor.predict_prepared

    def watched(self, *args, **options):
        inside.append(1)
        most.append(len(inside))
        try:
            return predict(self, *args, **options)
        finally:
            inside.pop()

    monkeypatch.setattr(Predictor, "predict_prepared", watched)
    threads = [threading.Thread(target=model, args=(scan, ONE)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert most == [1] * 4


def test_it_is_silent_and_needs_no_tensorflow(model_file, scan):
    source = (
        "import sys, u2net_tf\n"
        "model = u2net_tf.load(sys.argv[1])\n"
        "print(model(sys.argv[2], domain=sys.argv[3]).labels.any())\n"
        "print('tensorflow' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", source, str(model_file), str(scan), ONE],
        capture_output=True,
        text=True,
        check=True,
    )
    assert (done.stdout, done.stderr) == ("True\nFalse\n", "")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"domain": "heart"}, f"`domain`: expected one of {ONE}, {TWO}. Received: hea"),
        ({"domain": None}, f"`domain`: expected one of {ONE}, {TWO}. Received: none"),
        ({"image": 3}, "`image`: expected a path, one path per modality, or a NumPy"),
        ({"image": None}, "`image`: expected a path.* Received: NoneType"),
        ({"image": 0}, "`image`: expected a path.* Received: int"),
        ({"image": []}, "`image`: expected a path.* Received: no path"),
        ({"image": "missing.nii.gz"}, r"missing\.nii\.gz"),
        ({"spacing_mm": (1, 1, 1)}, "`spacing_mm`: expected none"),
        ({"orientation": "RAS"}, "`orientation`: expected none"),
        ({"affine": np.eye(4)}, "`affine`: expected none"),
        ({"domain": TWO}, r"scan\.nii\.gz: expected 2 modalities. Received: 1"),
        ({"max_memory_gb": 1e-6}, r"scan\.nii\.gz.*GB"),
        ({"max_memory_gb": 0}, "`max_memory_gb`: expected a number above 0"),
        ({"max_memory_gb": float("nan")}, "`max_memory_gb`.* Received: nan"),
        ({"max_memory_gb": "4"}, "`max_memory_gb`.* Received: 4"),
    ],
)
def test_bad_arguments(model, scan, arguments, message):
    with pytest.raises(InputError, match=message):
        model(**{"image": scan, "domain": ONE, **arguments})


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "`spacing_mm`: expected a value, as `image` is an array"),
        ({"spacing_mm": (1, 1, 1)}, "`orientation`: expected a value"),
        ({"orientation": "RAS"}, "`spacing_mm`: expected a value"),
        ({"affine": np.eye(4), "spacing_mm": (1, 1, 1)}, "`spacing_mm`: expected none"),
        ({"affine": np.eye(4), "orientation": "RAS"}, "`orientation`: expected none"),
        ({"affine": np.eye(3)}, "`affine`: expected an invertible \\(4, 4\\)"),
        ({"affine": np.ones((4, 4))}, "`affine`: expected an invertible \\(4, 4\\)"),
        ({"affine": np.diag([1, 0, 1, 1])}, "`affine`: expected an invertible"),
        ({"affine": [[1, 2], [3]]}, "`affine`: expected an invertible \\(4, 4\\)"),
        (
            {"affine": np.full((4, 4), "a")},
            "`affine`: expected an invertible \\(4, 4\\)",
        ),
        *(
            ({"spacing_mm": value, "orientation": "RAS"}, "`spacing_mm`: expected thr")
            for value in ((1, 1), (1, 1, 0), (1, 1, np.nan), "abc", 1, [1, [2, 3], 1])
        ),
        *(
            ({"spacing_mm": (1, 1, 1), "orientation": value}, "`orientation`: expect")
            for value in ("RA", "RLS", "RASR", "XYZ", 7, "")
        ),
    ],
)
def test_bad_positions_of_arrays(model, arguments, message):
    with pytest.raises(InputError, match=message):
        model(draw_image().T, domain=ONE, **arguments)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda image: image[0], "shape"),
        (lambda image: image[:0], "shape"),
        (lambda image: image > 0, "real numbers. Received: bool"),
        (lambda image: image * 1j, "real numbers"),
        (lambda image: image.astype(object), "real numbers"),
        (lambda image: np.where(image > 0, np.nan, image), "finite voxels"),
        (lambda image: 0 * image, "non-zero voxels"),
        (lambda image: 0 * image + 7, "the constant 7"),
        (lambda image: image.astype(float) * 1e300, "finite voxels"),
        (lambda image: np.ma.masked_less(image, 9), "without a mask"),
        (lambda image: np.stack([image] * 3, -1), "1 modality. Received: 3"),
    ],
)
def test_bad_arrays(model, change, message, recwarn):
    with pytest.raises(InputError, match=f"`image`: .*{message}"):
        model(change(draw_image().T), domain=ONE, affine=AFFINE)
    assert not recwarn.list


@pytest.mark.parametrize("array", [False, True])
def test_files_that_cannot_be_written(model, scan, array, tmp_path):
    found = model(
        draw_image().T if array else scan, ONE, affine=AFFINE if array else None
    )
    with pytest.raises(InputError, match=r"labels\.png: expected a suffix among"):
        found.save(tmp_path / "labels.png")
    with pytest.raises(InputError, match="`path`: expected a different suffix"):
        found.save(tmp_path / "labels.dcm")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("ending", [".nii", ".nii.gz", ".nrrd", ".mha", ".seg.nrrd"])
def test_formats(model, segmentation, ending, tmp_path):
    path = tmp_path / "new" / f"labels{ending}"
    for _ in range(2):
        segmentation.save(path)
    np.testing.assert_array_equal(
        sitk.GetArrayFromImage(sitk.ReadImage(str(path))), segmentation.labels
    )


def test_settings_of_load(model_file):
    model = u2net_tf.load(
        model_file,
        runtime="openvino",
        overlap=0.25,
        batch_size=3,
        skip_empty=False,
        test_time_mirroring=True,
    )
    predictor = model._model.predictor(ONE)
    assert (predictor.overlap, predictor.batch_size, predictor.skip_empty) == (
        0.25,
        3,
        False,
    )
    assert isinstance(predictor.backend, MirroredBackend)


def test_a_list_of_models_is_an_ensemble(model_file, tmp_path):
    other = packed.write(tmp_path / "other.u2net", packed.make_members("float16"))
    model = u2net_tf.load([model_file, other])
    assert model.path == f"{model_file}, {other}"
    assert len(model._model.predictor(ONE).backend.members) == 2
    copy = shutil.copy(model_file, tmp_path / "copy.u2net")
    with pytest.raises(InputError, match=f"^{copy}: expected another model than"):
        _ = u2net_tf.load([model_file, copy]).plan


def test_load_accepts_the_models_of_a_glob(model_file, tmp_path):
    """An iterator, which can be read only once."""
    for name in ("one", "two"):
        (tmp_path / f"{name}.u2net").write_bytes(model_file.read_bytes())
    model = u2net_tf.load(tmp_path.glob("*.u2net"))
    assert model.domains == u2net_tf.load(model_file).domains
    assert sorted(model.path.split(", ")) == [
        str(tmp_path / f"{name}.u2net") for name in ("one", "two")
    ]


def test_defaults_of_load_are_those_of_the_command():
    parameters = inspect.signature(u2net_tf.load).parameters
    defaults = {
        name: parameter.default
        for name, parameter in parameters.items()
        if name not in ("path", "runtime")
    }
    assert defaults == WindowConfig().flat()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"runtime": "torch"}, "`runtime`"),
        ({"runtime": "tensorflow"}, "`runtime`"),
        ({"overlap": 1.0}, "`overlap`"),
        ({"batch_size": 0}, "`batch_size`"),
        ({"skip_empty": 2}, "`skip_empty`"),
        ({"test_time_mirroring": 2}, "`test_time_mirroring`"),
        ({"precision": "float16"}, "`precision`"),
        ({"precision": "mixed_float16"}, "`precision`"),
        ({"checkpoint": "best"}, "`checkpoint`"),
        ({"prune_to": 9}, "`prune_to`"),
        ({"prune_to": 2}, "`prune_to`"),
        ({"gate_threshold": 0.5}, "`gate_threshold`"),
        ({"keep_components": -1}, "`keep_components`"),
        ({"keep_foreground_components": -1}, "`keep_foreground_components`"),
        ({"path": "missing.u2net"}, r"missing\.u2net"),
        ({"path": []}, "^`path`: expected paths of distinct models. Received: none"),
        ({"path": ["a", "a"]}, "^`path`: expected paths of distinct models"),
    ],
)
def test_bad_settings_of_load(model_file, arguments, message):
    with pytest.raises(InputError, match=message):
        u2net_tf.load(**{"path": model_file, **arguments})
