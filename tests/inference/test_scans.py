import numpy as np
import pytest
import SimpleITK as sitk

from u2net_tf.errors import InputError
from u2net_tf.inference.scans import Scan, find_scans


@pytest.fixture
def make_files(tmp_path):
    """Makes empty files in a folder: nobody opens them here."""

    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).touch()
        return tmp_path

    return make


def write_series(folder, uid):
    """A DICOM series of two slices."""
    folder.mkdir(parents=True)
    writer = sitk.ImageFileWriter()
    writer.KeepOriginalImageUIDOn()
    for number in range(2):
        image = sitk.GetImageFromArray(np.full((1, 4, 4), number, np.int16))
        tags = {
            "0008|0060": "MR",
            "0020|000e": f"1.2.3.{uid}",
            "0008|0018": f"1.2.3.{uid}.{number}",
            "0020|0032": f"0\\0\\{number}",
            "0020|0037": "1\\0\\0\\0\\1\\0",
            "0020|0013": str(number),
        }
        for tag, value in tags.items():
            image.SetMetaData(tag, value)
        writer.SetFileName(str(folder / f"{number}.dcm"))
        writer.Execute(image)
    return folder


def find(*inputs, num_modalities=1):
    return find_scans([str(path) for path in inputs], num_modalities)


class TestOnePath:
    @pytest.mark.parametrize("name", ["a.nii.gz", "a.nii"])
    def test_a_file(self, make_files, name):
        path = make_files(name) / name
        assert find(path) == [Scan("a", (path,))]

    def test_a_numbered_file_keeps_its_name(self, make_files):
        path = make_files("a_0000.nii.gz") / "a_0000.nii.gz"
        assert find(path) == [Scan("a_0000", (path,))]

    def test_a_folder_of_files_sorted_by_name(self, make_files):
        folder = make_files("b.nii", "a.nii.gz", "._a.nii.gz", "notes.txt", "c/d.nii")
        assert find(folder) == [
            Scan("a", (folder / "a.nii.gz",)),
            Scan("b", (folder / "b.nii",)),
        ]

    def test_a_dicom_folder(self, tmp_path):
        folder = write_series(tmp_path / "patient", 1)
        assert find(folder) == [Scan("patient", (folder,))]

    def test_a_folder_of_dicom_folders_and_files(self, tmp_path, make_files):
        make_files("c.nii.gz", "empty/readme.txt")
        folders = [write_series(tmp_path / name, i) for i, name in enumerate("ab")]
        assert find(tmp_path) == [
            Scan("a", (folders[0],)),
            Scan("b", (folders[1],)),
            Scan("c", (tmp_path / "c.nii.gz",)),
        ]

    def test_a_relative_folder_has_a_name(self, tmp_path, monkeypatch):
        monkeypatch.chdir(write_series(tmp_path / "patient", 1))
        assert [scan.name for scan in find(".")] == ["patient"]


class TestNumberedFiles:
    NAMES = ("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii", "b_0001.nii")

    def test_are_one_case_each(self, make_files):
        folder = make_files(*self.NAMES)
        paths = [folder / name for name in self.NAMES]
        assert find(folder, num_modalities=2) == [
            Scan("a", tuple(paths[:2])),
            Scan("b", tuple(paths[2:])),
        ]

    def test_are_cases_of_their_own_where_there_is_one_modality(self, make_files):
        scans = find(make_files(*self.NAMES))
        assert [scan.name for scan in scans] == ["a_0000", "a_0001", "b_0000", "b_0001"]

    def test_may_lie_beside_4_d_files(self, make_files):
        folder = make_files("c.nii.gz", *self.NAMES[:2])
        scans = find(folder, num_modalities=2)
        assert [(scan.name, len(scan.paths)) for scan in scans] == [("a", 2), ("c", 1)]

    @pytest.mark.parametrize(
        "names",
        [
            ("a_0000.nii.gz",),
            ("a_0000.nii.gz", "a_0002.nii.gz"),
            ("a_0001.nii.gz", "a_0002.nii.gz"),
            ("a_0000.nii.gz", "a_0000.nii"),
            ("a_0000.nii.gz", "a_0001.nii.gz", "a_0002.nii.gz"),
        ],
    )
    def test_must_be_complete(self, make_files, names):
        with pytest.raises(InputError) as caught:
            find(make_files(*names), num_modalities=2)
        assert "expected the files a_0000, a_0001, one per modality" in str(
            caught.value
        )
        assert all(name in str(caught.value) for name in names)


class TestSeveralPaths:
    def test_are_the_modalities_of_one_case_in_their_order(self, make_files):
        folder = make_files("t2.nii.gz", "adc.nii.gz")
        paths = (folder / "t2.nii.gz", folder / "adc.nii.gz")
        assert find(*paths, num_modalities=2) == [Scan("t2", paths)]

    def test_lose_the_number_of_the_first(self, make_files):
        folder = make_files("a_0000.nii.gz", "a_0001.nii.gz")
        paths = (folder / "a_0000.nii.gz", folder / "a_0001.nii.gz")
        assert find(*paths, num_modalities=2) == [Scan("a", paths)]

    def test_dicom_folders(self, tmp_path):
        paths = tuple(write_series(tmp_path / n, i) for i, n in enumerate(["x", "y"]))
        assert find(*paths, num_modalities=2) == [Scan("x", paths)]

    def test_as_many_as_modalities(self, make_files):
        folder = make_files("a.nii", "b.nii")
        with pytest.raises(InputError, match="3 paths, one per modality. Received: 2"):
            find(folder / "a.nii", folder / "b.nii", num_modalities=3)


class TestErrors:
    def test_nothing_there(self, tmp_path):
        words = f"`input`: {tmp_path / 'no'}: expected a file or folder. Received: no"
        with pytest.raises(InputError, match=words):
            find(tmp_path / "no")

    def test_one_of_several_is_missing(self, make_files):
        folder = make_files("a.nii")
        with pytest.raises(InputError, match=str(folder / "b.nii")):
            find(folder / "a.nii", folder / "b.nii", num_modalities=2)

    def test_no_scan_in_the_folder(self, make_files):
        folder = make_files("readme.txt")
        with pytest.raises(InputError, match=f"{folder}: expected NIfTI files"):
            find(folder)

    def test_a_file_of_another_kind(self, make_files):
        path = make_files("a.mha") / "a.mha"
        with pytest.raises(
            InputError, match=rf"{path}: expected a name ending in .*a.mha"
        ):
            find(path)

    def test_two_scans_of_one_name(self, make_files):
        folder = make_files("a.nii", "a.nii.gz")
        with pytest.raises(InputError, match="one scan per name. .* several named 'a'"):
            find(folder)
