import dataclasses

import numpy as np
import pytest

from u2net_tf.errors import InputError
from u2net_tf.plan.domains import Domain, Label, Preprocessing
from u2net_tf.volumes import case, crop_and_resample, nifti

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
        (make_bad(np.nan), "finite voxels. Received: 1 voxel of NaN or inf"),
        (
            make_bad(-np.inf, np.s_[0]),
            "finite voxels. Received: 56 voxels of NaN or inf",
        ),
        (make_bad(0, np.s_[:]), "Received: zeros only"),
        (make_bad(5, np.s_[:]), "Received: the constant 5 in modality 0"),
        (np.stack([draw_image(), draw_image()]), "expected 1 modality. Received: 2"),
    ],
)
def test_bad_image_is_named(tmp_path, write_nifti, array, message):
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
            return case.read_labels(path, case.read_image([image_path], DOMAIN), domain)

        return read

    def test_values_become_classes(self, read):
        classes = read(make_labels())
        assert classes.dtype == np.uint8
        assert classes.shape == SHAPE
        assert np.bincount(classes.ravel()).tolist() == [3 * 56 + 48, 2 * 56, 8]
        assert (classes[:2] == 1).all()

    def test_empty_is_no_error_here(self, read):
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

    def test_other_shape_and_other_grid(self, read):
        with pytest.raises(InputError, match=r"labels.*expected shape \(8, 7, 6\)"):
            read(make_labels()[1:])
        with pytest.raises(InputError, match="labels.*expected the affine of"):
            read(make_labels(), spacing_mm=(3, 1, 1))

    def test_faults_in_words(self, tmp_path, image_path, write_nifti):
        image = case.read_image([image_path], DOMAIN)
        path = tmp_path / "labels.nii.gz"

        def faults(array, spacing_mm=(3, 1, 2)):
            labels = nifti.load_labels(write_nifti(path, array, spacing_mm))
            return list(case.label_faults(labels, image, known=KNOWN).values())

        assert faults(make_labels()) == []
        assert "empty label map" in faults(np.zeros(SHAPE, np.uint8))[0]
        (geometry, unknown) = faults(make_labels() + np.int16(1), (1, 1, 1))
        assert "affine" in geometry
        assert "2 in 56 voxels, 4 in 56 voxels, 8 in 8 voxels" in unknown

    def test_raw_values_come_back(self):
        classes = np.array([0, 1, 2, 1], np.uint8)
        raw = case.raw_labels(classes, DOMAIN)
        assert raw.tolist() == [0, 3, 7, 3]
        assert raw.dtype == np.int32


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


def test_values_are_counted_in_their_order():
    labels = np.array([[[5, 0, 0]], [[-1, 5, 5]], [[0, 2, 0]]], np.int32)
    assert list(case.count_values(labels).items()) == [(-1, 1), (0, 4), (2, 1), (5, 3)]
