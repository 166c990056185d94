import dataclasses
import weakref

import nibabel as nib
import numpy as np
import pytest
import tensorflow as tf

from u2net_tf.errors import InputError
from u2net_tf.inference import predictor as predictor_module
from u2net_tf.inference.backends.keras import KerasBackend
from u2net_tf.inference.predictor import Predictor
from u2net_tf.inference.prepared_scan import prepare_scan
from u2net_tf.models.spec import ModelSpec
from u2net_tf.plan.domains import Domain, Plan
from u2net_tf.plan.labels import Label
from u2net_tf.plan.preprocessing import Preprocessing
from u2net_tf.progress import silent
from u2net_tf.volumes import case as case_files
from u2net_tf.volumes import case_labels, nifti
from u2net_tf.volumes.grid import Grid, Volume

ORGAN = Domain(
    name="organ",
    raw_dir="unset",
    modalities=("CT",),
    labels=(Label("background", (0,)), Label("organ", (4, 7))),
    spacing_mm=(1.0, 1.0, 1.0),
    median_shape=(8, 8, 8),
    patch_size=(4, 4, 4),
    pools=(1, 1, 1),
    batch_size=1,
    preprocessing=Preprocessing(margin_voxels=1, clip_percentiles=(0.0, 100.0)),
)
PAIR = dataclasses.replace(
    ORGAN,
    name="pair",
    modalities=("T2", "ADC"),
    labels=(Label("background", (0,)), Label("a", (300,)), Label("b", (2,))),
    patch_size=(2, 4, 4),
)
# An oblique grid: about 30° around an axis that is not one of the three.
OBLIQUE = nib.affines.from_matvec(
    nib.eulerangles.euler2mat(0.3, -0.4, 0.2) @ np.diag([1.0, 1.0, 1.0]), [7, -20, 3]
)


def scan_of(data):
    """(C, z, y, x) voxels of 1 mm, as if they came from a file."""
    affine = np.eye(4)
    header = nib.Nifti1Image(data[0].T, affine).header
    grid = Grid("scan.nii", data.shape[:0:-1], affine, header, nib.Nifti1Image)
    return Volume(data, (1.0, 1.0, 1.0), grid)


class Threshold:
    """A network that predicts class 1 for bright voxels of the first modality, and
    class 2 for those of the second."""

    def __init__(self):
        self.calls = []

    def __call__(self, patches, *, domain, training):
        self.calls.append((domain, training, tuple(patches.shape[1:])))
        return tf.concat([tf.zeros_like(patches[..., :1]), 40 * (patches - 1)], -1)


def make_predictor(domain=ORGAN, *, plan=None, options=None, **changes):
    spec = ModelSpec(plan=plan or Plan((domain,)), pools=(1, 1, 1), **changes)
    return Predictor(KerasBackend(Threshold(), spec), **(options or {}))


def make_content():
    """(x, y, z) intensities and a mask of bright voxels, different along every axis."""
    image = np.zeros((11, 9, 8), np.float32)
    image[2:, 1:8, 1:7] = 100 + np.random.default_rng(0).normal(size=(9, 7, 6))
    bright = np.zeros(image.shape, bool)
    bright[3:7, 2:4, 2:5] = True
    bright[9:11, 6, 5] = True
    return np.where(bright, 200, image).astype(np.float32), bright


def write(path, image, affine, *, codes=(1, 1)):
    nifti_image = nib.Nifti1Image(image, affine)
    nifti_image.set_qform(affine, code=codes[0])
    nifti_image.set_sform(affine, code=codes[1])
    nib.save(nifti_image, path)
    return path


def predict_file(predictor, path, domain=0, **options):
    """Predicts as `u2net_tf.predict` does; returns the written label map as well."""
    settings = predictor.spec.plan.domains[domain]
    paths = path if isinstance(path, list) else [path]
    image = case_files.read_image(paths, settings)
    prediction = predictor.predict(image, domain, **options)
    output = paths[0].with_name("predicted.nii.gz")
    labels = case_labels.raw_labels(prediction.classes, settings)
    nifti.save_labels(output, labels, image.grid)
    return nib.load(output), prediction


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_probabilities_that_are_not_finite(tmp_path, value):
    """A network can overflow in half precision."""

    class Overflowing(Threshold):
        def __call__(self, patches, **options):
            scores = super().__call__(patches, **options)
            return tf.where(scores > 0, value, scores)

    image, _ = make_content()
    path = write(tmp_path / "scan.nii", image, np.eye(4))
    spec = ModelSpec(plan=Plan((ORGAN,)), pools=(1, 1, 1))
    predictor = Predictor(KerasBackend(Overflowing(), spec))
    with pytest.raises(InputError) as caught:
        predict_file(predictor, path)
    assert str(caught.value).startswith(
        f"{path}: expected finite class probabilities. Received: NaN or infinite values"
    )


class TestOrientation:
    @pytest.mark.parametrize("affine", [np.diag([1, 1, 1, 1]), OBLIQUE])
    @pytest.mark.parametrize("codes", ["RAS", "LPS", "LAS", "RAI", "PIR", "SLA"])
    def test_the_same_content_has_the_same_labels_in_world_space(
        self, tmp_path, codes, affine
    ):
        image, bright = make_content()
        upright = nib.Nifti1Image(image, affine)
        reoriented = upright.as_reoriented(
            nib.orientations.ornt_transform(
                nib.io_orientation(affine), nib.orientations.axcodes2ornt(codes)
            )
        )
        path = write(tmp_path / "scan.nii.gz", reoriented.dataobj, reoriented.affine)
        predicted, _ = predict_file(make_predictor(), path)
        # On the grid of its image, …
        assert nib.aff2axcodes(predicted.affine) == tuple(codes)
        assert predicted.shape == reoriented.shape
        np.testing.assert_allclose(predicted.affine, reoriented.affine, atol=1e-6)
        # … and at the world coordinates of the bright voxels.
        canonical = nib.as_closest_canonical(predicted)
        np.testing.assert_array_equal(np.asarray(canonical.dataobj), 4 * bright)
        np.testing.assert_allclose(canonical.affine, upright.affine, atol=1e-6)


class TestHeader:
    @pytest.mark.parametrize("codes", [(1, 1), (2, 0), (0, 3), (1, 4)])
    def test_is_the_image_s(self, tmp_path, codes):
        image, _ = make_content()
        path = write(tmp_path / "scan.nii.gz", image, OBLIQUE, codes=codes)
        predicted, _ = predict_file(make_predictor(), path)
        given, written = nib.load(path).header, predicted.header
        assert (int(written["qform_code"]), int(written["sform_code"])) == codes
        for field in ("dim", "pixdim", "srow_x", "srow_y", "srow_z", "xyzt_units"):
            np.testing.assert_array_equal(written[field], given[field])
        np.testing.assert_array_equal(predicted.affine, nib.load(path).affine)

    def test_the_type_is_the_smallest_integer_that_fits_the_labels(self, tmp_path):
        image, _ = make_content()
        path = write(tmp_path / "scan.nii.gz", image, np.eye(4))
        assert predict_file(make_predictor(), path)[0].get_data_dtype() == np.uint8
        pair = write(tmp_path / "pair.nii.gz", np.stack([image] * 2, -1), np.eye(4))
        predicted, _ = predict_file(make_predictor(PAIR), pair)
        assert predicted.get_data_dtype() == np.int16
        assert predicted.shape == image.shape


class TestLabels:
    def test_are_the_raw_values(self, tmp_path):
        image, bright = make_content()
        other = np.roll(image, 1, axis=0)
        path = write(tmp_path / "a.nii.gz", np.stack([image, other], -1), np.eye(4))
        predicted, prediction = predict_file(make_predictor(PAIR), path)
        assert np.unique(predicted.dataobj).tolist() == [0, 2, 300]
        assert prediction.classes.dtype == np.uint8
        assert np.unique(prediction.classes).tolist() == [0, 1, 2]
        first = bright & ~np.roll(bright, 1, axis=0)
        np.testing.assert_array_equal(np.asarray(predicted.dataobj)[first], 300)

    def test_one_file_per_modality_gives_the_same_as_one_file(self, tmp_path):
        image, _ = make_content()
        other = np.roll(image, 1, axis=0)
        path = write(tmp_path / "a.nii.gz", np.stack([image, other], -1), OBLIQUE)
        paths = [
            write(tmp_path / f"a_{i}.nii.gz", part, OBLIQUE)
            for i, part in enumerate((image, other))
        ]
        results = [
            np.asarray(predict_file(make_predictor(PAIR), p)[0].dataobj)
            for p in (path, paths)
        ]
        np.testing.assert_array_equal(*results)

    def test_belong_to_the_requested_domain(self, tmp_path):
        image, bright = make_content()
        path = write(tmp_path / "a.nii.gz", image, np.eye(4))
        predictor = make_predictor(plan=Plan((PAIR, ORGAN)))
        predicted, _ = predict_file(predictor, path, domain=1)
        np.testing.assert_array_equal(np.asarray(predicted.dataobj), 4 * bright)
        assert predictor.backend.network.calls == [(1, False, (4, 4, 4, 1))]


class TestKeepComponents:
    @pytest.mark.parametrize(("keep", "parts"), [(0, 2), (1, 1), (2, 2)])
    def test_keeps_the_largest(self, tmp_path, keep, parts):
        image, bright = make_content()
        labels = (ORGAN.labels[0], Label("organ", (4,), keep_components=keep))
        domain = dataclasses.replace(ORGAN, labels=labels)
        path = write(tmp_path / "a.nii.gz", image, np.eye(4))
        predicted, _ = predict_file(make_predictor(domain), path)
        expected = bright.copy()
        if parts == 1:
            expected[9:] = False
        np.testing.assert_array_equal(np.asarray(predicted.dataobj) > 0, expected)

    @pytest.mark.parametrize(
        ("of_plan", "settings", "parts"),
        [
            ({"keep_foreground_components": 1}, {}, 1),
            ({}, {"keep_foreground_components": 1}, 1),
            (
                {"keep_foreground_components": 1},
                {"keep_foreground_components": 0},
                2,
            ),
            ({}, {"keep_components": 1}, 1),
            ({"labels": 1}, {"keep_components": 0}, 2),
            ({"keep_foreground_components": 1}, {"keep_components": 0}, 2),
            ({"keep_foreground_components": 1}, {"keep_components": 2}, 1),
        ],
    )
    def test_settings_override_the_plan(self, tmp_path, of_plan, settings, parts):
        image, bright = make_content()
        if keep := of_plan.pop("labels", 0):
            labels = (ORGAN.labels[0], Label("organ", (4,), keep_components=keep))
            of_plan = {"labels": labels}
        domain = dataclasses.replace(ORGAN, **of_plan)
        path = write(tmp_path / "a.nii.gz", image, np.eye(4))
        predictor = make_predictor(domain, options=settings)
        predicted, _ = predict_file(predictor, path)
        expected = bright.copy()
        if parts == 1:
            expected[9:] = False
        np.testing.assert_array_equal(np.asarray(predicted.dataobj) > 0, expected)


class TestProbabilities:
    @pytest.mark.parametrize("spacing", [1.0, 1.4, 0.6])
    def test_sum_to_one_on_the_raw_grid(self, tmp_path, spacing):
        image, bright = make_content()
        path = write(tmp_path / "a.nii.gz", image, np.eye(4))
        domain = dataclasses.replace(ORGAN, spacing_mm=(1.0, spacing, 1.2))
        _, prediction = predict_file(
            make_predictor(domain), path, with_probabilities=True
        )
        found = prediction.probabilities
        assert found.shape == (*image.T.shape, 2)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)
        assert found.min() >= 0

    def test_are_certain_background_outside_the_crop(self, tmp_path):
        image, _ = make_content()
        path = write(tmp_path / "a.nii.gz", image, np.eye(4))
        domain = dataclasses.replace(
            ORGAN,
            preprocessing=dataclasses.replace(ORGAN.preprocessing, margin_voxels=0),
        )
        _, prediction = predict_file(
            make_predictor(domain), path, with_probabilities=True
        )
        outside = np.ones(image.T.shape, bool)
        outside[1:7, 1:8, 2:] = False
        np.testing.assert_array_equal(prediction.probabilities[outside, 0], 1)
        np.testing.assert_array_equal(prediction.probabilities[outside, 1:], 0)
        assert (prediction.probabilities[~outside, 1] > 0).all()

    def test_are_those_before_the_clean_up(self, tmp_path):
        image, bright = make_content()
        labels = (ORGAN.labels[0], Label("organ", (4,), keep_components=1))
        path = write(tmp_path / "a.nii.gz", image, np.eye(4))
        predictor = make_predictor(dataclasses.replace(ORGAN, labels=labels))
        _, prediction = predict_file(predictor, path, with_probabilities=True)
        assert (prediction.probabilities[bright.T, 1] > 0.5).all()

    def test_are_not_kept_by_default(self, tmp_path):
        path = write(tmp_path / "a.nii.gz", make_content()[0], np.eye(4))
        assert predict_file(make_predictor(), path)[1].probabilities is None


class TestWindows:
    IMAGE = np.random.default_rng(0).normal(size=(4, 8, 8, 1)).astype(np.float32)

    def test_are_of_the_domain_s_patch_size(self):
        predictor = make_predictor()
        assert predictor.probabilities(self.IMAGE, 0).shape == (4, 8, 8, 2)
        assert predictor.backend.network.calls == [(0, False, (4, 4, 4, 1))]

    def test_are_resized_to_the_network_s_and_back(self):
        predictor = make_predictor(patch_size=(8, 4, 6))
        smooth = np.linspace(-3, 3, 8, dtype=np.float32)
        image = np.broadcast_to(smooth[:, None], (4, 8, 8))[..., None]
        found = predictor.probabilities(image, 0)
        assert predictor.backend.network.calls == [(0, False, (8, 4, 6, 1))]
        plain = make_predictor().probabilities(image, 0)
        np.testing.assert_array_equal(found.argmax(-1), plain.argmax(-1))
        np.testing.assert_allclose(found.sum(axis=-1), 1, atol=1e-5)

    def test_the_resize_method_matters(self):
        linear, cubic = (
            make_predictor(patch_size=(8, 8, 8), resize_method=method).probabilities(
                self.IMAGE, 0
            )
            for method in ("linear", "cubic")
        )
        assert np.abs(linear - cubic).max() > 0.1
        # Probabilities are resized linearly either way.
        assert cubic.min() >= 0

    def test_overlap(self, monkeypatch):
        seen = []
        monkeypatch.setattr(
            predictor_module,
            "predict_volume",
            lambda image, predict, **options: seen.append(options) or (image, image),
        )
        make_predictor(options={"overlap": 0.25, "batch_size": 3}).probabilities(
            self.IMAGE, 0
        )
        make_predictor().probabilities(self.IMAGE, 0)
        common = {
            "patch_size": (4, 4, 4),
            "num_classes": 2,
            "with_probabilities": True,
            "progress": silent,
        }
        assert seen == [
            {**common, "overlap": 0.25, "batch_size": 3},
            {**common, "overlap": 0.5, "batch_size": 1},
        ]

    def test_a_batch_of_windows_gives_the_same(self):
        found = make_predictor(options={"batch_size": 4}).probabilities(self.IMAGE, 0)
        np.testing.assert_allclose(
            found, make_predictor().probabilities(self.IMAGE, 0), atol=1e-6
        )

    def test_are_traced_once_for_many_volumes(self):
        predictor = make_predictor()
        for size in (4, 5, 9):
            predictor.probabilities(np.zeros((4, size, 4, 1), np.float32), 0)
        assert len(predictor.backend.network.calls) == 1


class TestEmptyWindows:
    """With a network that predicts class 1 everywhere, for any input."""

    def planes_of_class_1(self, data, domain=ORGAN, **options):
        """Returns the class of each plane, in which all voxels have the same class."""

        def network(patches, *, domain, training):
            logits = tf.one_hot(1, len(plan.domains[0].labels), on_value=40.0)
            return tf.zeros_like(patches[..., :1]) + logits

        plan = Plan((domain,))
        spec = ModelSpec(plan=plan, pools=(1, 1, 1))
        predictor = Predictor(KerasBackend(network, spec), overlap=0, **options)
        image = scan_of(data)
        prediction = predictor.predict(image, 0, with_probabilities=True)
        np.testing.assert_array_equal(
            prediction.classes, predictor.predict(image, 0).classes
        )
        empty = prediction.classes == 0
        assert (prediction.probabilities[empty, 0] > 0.5).all()
        planes = prediction.classes[:, 0, 0]
        assert (prediction.classes == planes[:, None, None]).all()
        return planes.tolist()

    def make_data(self, num_planes=12, num_modalities=1):
        """Returns an image in which only the first and the last plane are not 0."""
        data = np.zeros((num_modalities, num_planes, 4, 4), np.float32)
        data[0, 0], data[0, -1] = 1, -2
        data[1:, 0] = 3
        return data

    def test_are_background(self):
        found = self.planes_of_class_1(self.make_data())
        assert found == [1] * 4 + [0] * 4 + [1] * 4

    def test_are_predicted_on_request(self):
        assert self.planes_of_class_1(self.make_data(), skip_empty=False) == [1] * 12

    @pytest.mark.parametrize("voxel", [(4, 0, 0), (7, 3, 3), (5, 2, 1)])
    def test_one_voxel_makes_a_window_non_empty(self, voxel):
        data = self.make_data()
        data[(0, *voxel)] = -0.1
        assert self.planes_of_class_1(data) == [1] * 12

    def test_one_modality_makes_a_window_non_empty(self):
        data = self.make_data(6, num_modalities=2)
        assert self.planes_of_class_1(data, PAIR) == [1, 1, 0, 0, 1, 1]
        data[1, 2, 0, 0] = 1
        assert self.planes_of_class_1(data, PAIR) == [1] * 6

    def test_air_of_a_ct_is_not_empty(self):
        data = self.make_data()
        data[data == 0] = -1000
        assert self.planes_of_class_1(data) == [1] * 12

    def test_are_found_in_the_raw_scan(self):
        # Resampling halves the number of planes, and none depends on plane 9 alone.
        domain = dataclasses.replace(ORGAN, spacing_mm=(2.0, 1.0, 1.0))
        data = self.make_data(24)
        found = self.planes_of_class_1(data, domain)
        assert found == [1] * 8 + [0] * 8 + [1] * 8
        data[0, 9, 1, 2] = 1
        assert self.planes_of_class_1(data, domain) == [1] * 24

    def test_are_found_within_the_crop(self):
        data = np.pad(self.make_data(10), [(0, 0), (7, 1), (0, 0), (0, 0)])
        # Planes 6 to 17 with the margin.
        assert self.planes_of_class_1(data) == [0] * 6 + [1] * 4 + [0] * 4 + [1] * 4


class TestPreparedScan:
    def test_image_can_be_taken_once(self):
        data = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3)
        scan = prepare_scan(scan_of(data), ORGAN)
        assert scan.take_image().shape == (3, 3, 3, 1)
        assert scan.image is None
        with pytest.raises(ValueError, match="expected an image. Received: one that"):
            scan.take_image()

    def test_image_is_freed_before_the_label_map_is_restored(self, monkeypatch):
        """The scan is kept: the label map is written with its grid."""
        data = np.arange(27, dtype=np.float32).reshape(1, 3, 3, 3)
        scan = prepare_scan(scan_of(data), ORGAN)
        image = weakref.ref(scan.image)
        freed = []

        def clean(classes, counts, **options):
            freed.append(image() is None)
            return classes

        monkeypatch.setattr(predictor_module, "clean_labels", clean)
        make_predictor().predict_prepared(scan, 0)
        assert freed == [True]


def test_key_changes_whenever_the_prediction_would(monkeypatch, tmp_path):
    two = Plan((ORGAN, dataclasses.replace(ORGAN, name="Task02_Other")))
    spec = ModelSpec(plan=two, pools=(1, 1, 1))
    scan = tmp_path / "scan.nii.gz"

    def key(fingerprint="one", domain=0, path=scan, **options):
        backend = KerasBackend(Threshold(), spec, fingerprint=fingerprint)
        return Predictor(backend, **options).key(domain, [path])

    scan.write_bytes(b"scan")
    (tmp_path / "other.nii.gz").write_bytes(b"scan")
    first = key()
    assert key() == first
    monkeypatch.chdir(tmp_path)
    assert key(path=scan.name) == first
    others = [
        key(fingerprint="two"),
        key(domain=1),
        key(path=tmp_path / "other.nii.gz"),
        key(overlap=0.25),
        key(skip_empty=False),
        key(keep_foreground_components=1),
        key(keep_components=1),
    ]
    scan.write_bytes(b"another scan")
    others.append(key())
    # A DICOM folder, and the same one after a slice has changed.
    slices = tmp_path / "dicom"
    slices.mkdir()
    for content in (b"1", b"12"):
        (slices / "1.dcm").write_bytes(bytes(128) + b"DICM" + content)
        others.append(key(path=slices))
    assert len({first, *others}) == 11
