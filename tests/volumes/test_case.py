import dataclasses

import numpy as np
import pytest

from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain
from u2net_tf.plan.labels import Label
from u2net_tf.plan.preprocessing import Preprocessing
from u2net_tf.volumes import case, case_labels, crop_and_resample, images, nifti

SHAPE = (6, 7, 8)
DOMAIN = Domain(
    name="Knee",
    raw_dir="/raw/Knee",
    modalities=("T1",),
    labels=(Label("background", (0,)), Label("both", (3, 1)), Label("rest", (7,))),
    spacing_mm=(1, 1, 1),
    median_shape=SHAPE,
    patch_size=(4, 4, 8),
    pools=(1, 1, 1),
    batch_size=2,
)
KNOWN = (0, 1, 3, 7)


def draw_image():
    return np.random.default_rng(0).normal(9, 1, SHAPE).astype(np.float32)


@pytest.fixture
def image_path(tmp_path, write_nifti):
    return write_nifti(tmp_path / "image.nii.gz", draw_image(), (3, 1, 2))


def test_good_image(image_path):
    image = case.read_image([image_path], DOMAIN)
    np.testing.assert_array_equal(image.data[0], draw_image())
    assert image.spacing_mm == (3, 1, 2)
    assert case.image_faults(image, num_modalities=1) == []


def make_bad(value, where=np.s_[2, 2, 2]):
    image = draw_image()
    image[where] = value
    return image


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (make_bad(np.nan), "finite voxels. Received: 1 NaN or infinite voxel"),
        (
            make_bad(-np.inf, np.s_[0]),
            "finite voxels. Received: 56 NaN or infinite voxels",
        ),
        (make_bad(0, np.s_[:]), "Received: zeros only"),
        (make_bad(5, np.s_[:]), "Received: the constant 5 in modality 0"),
        (np.stack([draw_image(), draw_image()]), "expected 1 modality. Received: 2"),
    ],
)
def test_bad_image_is_reported(tmp_path, write_nifti, array, message):
    path = write_nifti(tmp_path / "bad.nii.gz", array)
    with pytest.raises(InputError, match=message) as error:
        case.read_image([path], DOMAIN)
    assert str(path) in str(error.value)


def test_second_modality_may_not_be_constant(tmp_path, write_nifti):
    array = np.stack([draw_image(), np.full(SHAPE, 2, np.float32)])
    path = write_nifti(tmp_path / "bad.nii.gz", array)
    domain = dataclasses.replace(DOMAIN, modalities=("T1", "T2"))
    with pytest.raises(InputError, match="constant 2 in modality 1"):
        case.read_image([path], domain)


def test_spacing_source_of_the_domain(tmp_path, write_nifti):
    import nibabel as nib

    image = nib.Nifti1Image(draw_image().T, np.eye(4))
    image.header.set_zooms((1.64, 1.64, 5))
    image.header["sform_code"] = 1
    nib.save(image, tmp_path / "a.nii")
    for source, spacing_mm in (("pixdim", (5, 1.64, 1.64)), ("affine", (1, 1, 1))):
        settings = Preprocessing(spacing_source=source)
        domain = dataclasses.replace(DOMAIN, preprocessing=settings)
        found = case.read_image([tmp_path / "a.nii"], domain).spacing_mm
        assert found == pytest.approx(spacing_mm)


def make_labels():
    labels = np.zeros(SHAPE, np.int16)
    labels[0], labels[1], labels[2, 0] = 1, 3, 7
    return labels


class TestLabels:
    @pytest.fixture
    def read(self, tmp_path, image_path, write_nifti):
        def read(labels, domain=DOMAIN, spacing_mm=(3, 1, 2), **keywords):
            path = tmp_path / "labels.nii.gz"
            write_nifti(path, labels, spacing_mm, **keywords)
            return case_labels.read_labels(
                path, case.read_image([image_path], DOMAIN).grid, domain
            )

        return read

    def test_values_become_classes(self, read):
        classes = read(make_labels())
        assert classes.dtype == np.uint8
        assert classes.shape == SHAPE
        assert np.bincount(classes.ravel()).tolist() == [3 * 56 + 48, 2 * 56, 8]
        assert (classes[:2] == 1).all()

    def test_empty_is_accepted(self, read):
        assert not read(np.zeros(SHAPE, np.uint8)).any()

    @pytest.mark.parametrize("value", [254, 2, -1])
    def test_unknown_value(self, read, value):
        labels = make_labels()
        labels[5, 5, 5:7] = value
        with pytest.raises(InputError, match=f"Received: {value} in 2 voxels") as error:
            read(labels)
        assert "labels.nii.gz" in str(error.value)
        assert "`unknown_labels`=background" in str(error.value)
        settings = Preprocessing(unknown_labels="background")
        classes = read(labels, dataclasses.replace(DOMAIN, preprocessing=settings))
        assert (classes[5] == 0).all()
        assert (classes[:2] == 1).all()

    @pytest.mark.parametrize("unknown_labels", ["fail", "background"])
    def test_ignored_values_follow_the_classes(self, read, unknown_labels):
        labels = make_labels()
        labels[4:] = 9
        settings = Preprocessing(unknown_labels=unknown_labels)
        domain = dataclasses.replace(DOMAIN, ignore_label=9, preprocessing=settings)
        classes = read(labels, domain)
        assert classes.dtype == np.uint8
        assert (classes[4:] == domain.num_classes).all()
        np.testing.assert_array_equal(classes[:4], read(make_labels())[:4])
        labels[:] = 9
        words = "expected annotated voxels. Received: only the ignore label, 9"
        with pytest.raises(InputError, match=words):
            read(labels, domain)

    def test_other_shape_and_other_grid(self, read):
        with pytest.raises(InputError, match=r"labels.*expected shape \(8, 7, 6\)"):
            read(make_labels()[1:])
        with pytest.raises(InputError, match="labels.*expected the affine of"):
            read(make_labels(), spacing_mm=(3, 1, 1))

    def test_different_orientation_is_converted(self, read):
        labels = make_labels()
        turned = labels[::-1].transpose(1, 0, 2)
        # On disk, y runs down and z runs to the front.
        affine = np.array(
            [[2, 0, 0, 0], [0, 0, 1, 0], [0, -3, 0, 15], [0, 0, 0, 1]], dtype=float
        )
        np.testing.assert_array_equal(read(turned, affine=affine), read(labels))
        affine[2, 3] += 1
        with pytest.raises(InputError, match="a corner 1 mm away"):
            read(turned, affine=affine)

    def test_large_values(self, read):
        labels = make_labels().astype(np.uint32)
        values = (2**24, 2**24 + 1)
        labels[3], labels[4] = values
        classes = [Label("background", (0, 1, 3, 7))]
        classes += [Label(f"{value}", (value,)) for value in values]
        domain = dataclasses.replace(DOMAIN, labels=tuple(classes))
        found = read(labels, domain)
        assert np.bincount(found.ravel()).tolist() == [4 * 56, 56, 56]
        assert case_labels.raw_labels(found, domain).max() == 2**24 + 1
        far = dataclasses.replace(DOMAIN, labels=(*classes, Label("far", (2**40,))))
        assert case_labels.raw_labels(np.array([3]), far).tolist() == [2**40]

    def test_rounded_if_planned(self, read):
        labels = make_labels() * np.float32(1.00002)
        with pytest.raises(InputError, match="integers as labels"):
            read(labels)
        settings = Preprocessing(round_labels=True)
        domain = dataclasses.replace(DOMAIN, preprocessing=settings)
        np.testing.assert_array_equal(read(labels, domain), read(make_labels()))

    def test_many_unknown_values_are_counted(self, read):
        labels = np.arange(6 * 7 * 8, dtype=np.int16).reshape(SHAPE) + 100
        with pytest.raises(InputError, match="104 in 1 voxel and 331 more") as error:
            read(labels)
        assert len(str(error.value)) < 500

    def test_maximum_number_of_classes(self, read):
        labels = tuple(Label(f"c{i}", (i,)) for i in range(256))
        found = read(make_labels(), dataclasses.replace(DOMAIN, labels=labels))
        assert np.unique(found).tolist() == [0, 1, 3, 7]
        labels += (Label("more", (256,)),)
        with pytest.raises(InputError, match=r"labels: expected 2 to 256 classes.*257"):
            dataclasses.replace(DOMAIN, labels=labels)

    def test_texts_of_faults(self, tmp_path, image_path, write_nifti):
        image = case.read_image([image_path], DOMAIN)
        path = tmp_path / "labels.nii.gz"

        def faults(array, spacing_mm=(3, 1, 2)):
            labels = nifti.load_labels(write_nifti(path, array, spacing_mm))
            return list(case_labels.label_faults(labels, image, known=KNOWN).values())

        assert faults(make_labels()) == []
        assert "empty label map" in faults(np.zeros(SHAPE, np.uint8))[0]
        (geometry, unknown) = faults(make_labels() + np.int16(1), (1, 1, 1))
        assert "affine" in geometry
        assert "2 in 56 voxels, 4 in 56 voxels, 8 in 8 voxels" in unknown

    def test_faults_of_ignored_voxels(self, tmp_path, image_path, write_nifti):
        image = case.read_image([image_path], DOMAIN)
        path = tmp_path / "labels.nii.gz"

        def faults(array, ignore_label=9):
            labels = nifti.load_labels(write_nifti(path, array, (3, 1, 2)))
            return list(
                case_labels.label_faults(
                    labels, image, known=KNOWN, ignore_label=ignore_label
                )
            )

        array = make_labels()
        array[4:] = 9
        assert faults(array) == []
        assert faults(array, None) == ["unknown label"]
        array[:4] = 0
        assert faults(array) == ["empty label"]
        array[:4] = 9
        assert faults(array) == ["unannotated", "empty label"]

    def test_raw_values_are_restored(self):
        classes = np.array([0, 1, 2, 1], np.uint8)
        raw = case_labels.raw_labels(classes, DOMAIN)
        assert raw.tolist() == [0, 3, 7, 3]
        assert raw.dtype == np.int32


def test_memory_of_image_and_labels_is_limited(image_path):
    with pytest.raises(InputError, match=r"image\.nii\.gz.*`max_memory_gb`"):
        case.read_image([image_path], DOMAIN, max_memory_gb=1e-6)
    image = case.read_image([image_path], DOMAIN)
    with pytest.raises(InputError, match=r"image\.nii\.gz.*`max_memory_gb`"):
        case_labels.read_labels(image_path, image.grid, DOMAIN, max_memory_gb=1e-6)


def test_memory_of_modalities_is_limited_together(tmp_path, write_nifti):
    """A single modality would fit."""
    paths = [write_nifti(tmp_path / f"{i}.nii", draw_image()) for i in range(5)]
    domain = dataclasses.replace(DOMAIN, modalities=tuple("abcde"))
    voxels = 6 * 7 * 8
    options = {"max_memory_gb": 39 * voxels / 1e9}
    case.read_image(paths[:1], DOMAIN, **options)
    words = r"0\.nii: expected .* for 5 modalities of shape"
    with pytest.raises(InputError, match=words):
        case.read_image(paths, domain, **options)
    with pytest.raises(InputError, match=words):
        images.load_image(paths, **options)
    case.read_image(paths, domain, max_memory_gb=40 * voxels / 1e9)


@pytest.mark.parametrize("spacing_mm", [(300, 100, 200), (3, 1e6, 2), (3, 9e8, 2)])
def test_resampling_that_does_not_fit_is_refused(tmp_path, write_nifti, spacing_mm):
    path = write_nifti(tmp_path / "far.nii", draw_image(), spacing_mm)
    image = case.read_image([path], DOMAIN)
    words = r"far\.nii: .* Received: .*\(6, 7, 8\) at 3.* mm,? .*to 1 × 1 × 1 mm"
    with pytest.raises(InputError, match=words):
        crop_and_resample.preprocess_volume(image, DOMAIN, max_memory_gb=0.5)


def test_resampling_needs_the_memory_that_is_checked(tmp_path, write_nifti):
    path = write_nifti(tmp_path / "far.nii", draw_image(), (20, 20, 20))
    image = case.read_image([path], DOMAIN)
    # Two copies of 120 × 140 × 160 voxels in float32; for their statistics, which need
    # more than resampling, another one and two in float64.
    needed = 120 * 140 * 160 * 8 / 1e9
    with pytest.raises(InputError, match=r"shape \(120, 140, 160\)"):
        crop_and_resample.find_crop(image, DOMAIN, max_memory_gb=needed)
    crop = crop_and_resample.find_crop(image, DOMAIN, max_memory_gb=3.7 * needed)
    found, same = crop_and_resample.preprocess_volume(
        image, DOMAIN, crop=crop, max_memory_gb=needed
    )
    assert same is crop
    assert found.shape == (120, 140, 160, 1)


def test_nearly_constant_image_has_no_contrast(tmp_path, write_nifti):
    """Also if rounding in resampling would make a constant vary."""
    array = np.zeros((20, 20, 20), np.float32)
    array[0, 0, 0], array[-1, -1, -1], array[9:12, 9:12, 9:12] = 1, 1, 500
    image = case.read_image([write_nifti(tmp_path / "s.nii", array)], DOMAIN)
    domain = dataclasses.replace(DOMAIN, spacing_mm=(1.3, 1.3, 1.3))
    words = r"s\.nii: modality 'T1'.* between percentiles 2 and 98.*the constant 0"
    with pytest.raises(InputError, match=words):
        crop_and_resample.preprocess_volume(image, domain)
    array[:2] = 3
    image = case.read_image([write_nifti(tmp_path / "s.nii", array)], DOMAIN)
    crop_and_resample.preprocess_volume(image, domain)


def test_preprocessing_errors_name_the_file(tmp_path, write_nifti):
    array = np.full(SHAPE, 5, np.float32)
    array[0, 0, 0] = 6
    path = write_nifti(tmp_path / "flat.nii.gz", array)
    image = case.read_image([path], DOMAIN)
    with pytest.raises(InputError, match=r"flat\.nii\.gz: modality 'T1'.*constant 5"):
        crop_and_resample.preprocess_volume(image, DOMAIN)


def test_preprocessing_without_positive_voxels_names_the_file(tmp_path, write_nifti):
    path = write_nifti(tmp_path / "air.nii.gz", -1000 - draw_image())
    image = case.read_image([path], DOMAIN)
    settings = Preprocessing(statistics_over="positive")
    domain = dataclasses.replace(DOMAIN, preprocessing=settings)
    words = r"air\.nii\.gz: modality 'T1': .* intensities above 0 .*Received: none"
    with pytest.raises(InputError, match=words):
        crop_and_resample.preprocess_volume(image, domain)


def test_preprocessing_follows_the_domain(image_path):
    image = case.read_image([image_path], DOMAIN)
    found, crop = crop_and_resample.preprocess_volume(image, DOMAIN)
    assert found.shape == (18, 7, 16, 1)
    assert crop.raw_shape == SHAPE


def test_values_are_counted_in_ascending_order():
    labels = np.array([[[5, 0, 0]], [[-1, 5, 5]], [[0, 2, 0]]], np.int32)
    assert list(case_labels.count_values(labels).items()) == [
        (-1, 1),
        (0, 4),
        (2, 1),
        (5, 3),
    ]
