import dataclasses
import logging
import os
import pathlib
import re
import shutil

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
import toy

from tests.volumes import dicom_files
from u2net_tf.errors import InputError
from u2net_tf.inference import scan_lists
from u2net_tf.inference.scans import Scan, find_scans


@pytest.fixture
def make_files(tmp_path):
    """Makes files in a folder; NIfTI files have a few voxels."""

    def make(*names, shape=(2, 2, 2)):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
            if name.endswith((".nii", ".nii.gz")) and shape:
                nib.save(nib.Nifti1Image(np.ones(shape, np.uint8), np.eye(4)), path)
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


def find(*inputs, num_modalities=1, input_list=None):
    """Returns the scans, and those that lack a modality as (name, message)."""
    names = ("T2", "ADC", "DWI")[:num_modalities]
    domain = dataclasses.replace(toy.ONE, modalities=names)
    found = find_scans([str(path) for path in inputs], domain, input_list=input_list)
    incomplete = [(name, str(error)) for name, error in found.incomplete.items()]
    return [*found.scans, *incomplete]


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

    def test_capital_letters_in_the_suffix(self, make_files, caplog):
        folder = make_files("a.nii", "B.NII.GZ", "c.Nii.gz")
        with caplog.at_level(logging.WARNING):
            assert [scan.name for scan in find(folder)] == ["B", "a", "c"]
        assert not caplog.records
        assert find(folder / "B.NII.GZ")[0].name == "B"

    def test_skipped_files_are_reported(self, make_files, caplog):
        folder = make_files("a.nii", "._a.nii", "b.hdr", "c/d.nii")
        with caplog.at_level(logging.WARNING):
            find(folder)
        assert caplog.messages == [
            f"{folder}: skipped entries that are not scans: ._a.nii, b.hdr",
            f"{folder}: skipped scans in subfolders, such as c/d.nii; list them in "
            "input_list",
        ]
        make_files(*(f"{number}.png" for number in range(9)))
        with caplog.at_level(logging.WARNING):
            find(folder)
        assert caplog.messages[2].endswith("1.png, 2.png, 3.png and 6 more")

    def test_a_dicom_folder(self, tmp_path):
        folder = write_series(tmp_path / "patient", 1)
        assert find(folder) == [Scan("patient", (folder,))]

    def test_a_multi_frame_file(self, tmp_path):
        enhanced = dicom_files.make_enhanced([0, 3])
        path = dicom_files.save(tmp_path / "study", [enhanced]) / "0.dcm"
        other = path.with_name("1.2.3.4")
        shutil.copy(path, other)
        assert find(path) == [Scan("0", (path,))]
        assert find(path, other, num_modalities=2) == [Scan("0", (path, other))]
        listed = tmp_path / "list.txt"
        listed.write_text("study/0.dcm\nstudy/1.2.3.4\n")
        names = [scan.name for scan in find(input_list=str(listed))]
        assert names == ["0", "1.2.3.4"]

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

    def test_a_link_to_a_folder_keeps_its_name(self, tmp_path):
        folder = write_series(tmp_path / "store" / "1.2.3", 1)
        link = tmp_path / "study" / "patient"
        link.parent.mkdir()
        link.symlink_to(folder)
        expected = [Scan("patient", (link,))]
        assert find(link) == find(link.parent) == expected


class TestNumberedFiles:
    NAMES = ("a_0000.nii.gz", "a_0001.nii.gz", "b_0000.nii", "b_0001.nii")

    def test_are_grouped_into_cases(self, make_files):
        folder = make_files(*self.NAMES)
        paths = [folder / name for name in self.NAMES]
        assert find(folder, num_modalities=2) == [
            Scan("a", tuple(paths[:2])),
            Scan("b", tuple(paths[2:])),
        ]

    def test_are_separate_cases_with_one_modality(self, make_files):
        scans = find(make_files(*self.NAMES))
        assert [scan.name for scan in scans] == ["a_0000", "a_0001", "b_0000", "b_0001"]

    def test_that_look_like_channels_are_reported_with_one_modality(
        self, make_files, caplog
    ):
        folder = make_files(*self.NAMES, "c_0001.nii", "d_0000.nii")
        with caplog.at_level(logging.WARNING):
            assert len(find(folder)) == 6
        (message,) = caplog.messages
        assert message.startswith(f"{folder}: predicted as separate cases, since")
        assert message.endswith(f"channels of a single case: {', '.join(self.NAMES)}")
        # With two modalities they are channels; this many files are patients.
        caplog.clear()
        find(make_files("n/x_0000.nii", "n/x_0001.nii") / "n", num_modalities=2)
        find(make_files(*(f"m/x_{number:04d}.nii" for number in range(9))) / "m")
        assert not caplog.records

    def test_must_be_different_files(self, make_files):
        folder = make_files("a_0000.nii", "b_0000.nii", "b_0001.nii")
        (folder / "a_0001.nii").symlink_to("a_0000.nii")
        scan, (name, message) = find(folder, num_modalities=2)
        assert (scan.name, name) == ("b", "a")
        assert "a_0000.nii as modality 0 and as modality 1" in message

    def test_may_be_mixed_with_4_d_files(self, make_files):
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
        folder = make_files(*names, "b_0000.nii", "b_0001.nii")
        complete, (name, message) = find(folder, num_modalities=2)
        assert (complete.name, name) == ("b", "a")
        assert "expected the files a_0000, a_0001, one per modality" in message
        assert all(name in message for name in names)

    @pytest.mark.parametrize("numbers", [(1, 2, 3), (1234,), (0, 1)])
    def test_may_be_4_d_files_of_numbered_patients(self, make_files, numbers):
        names = [f"patient_{number:04d}.nii.gz" for number in numbers]
        folder = make_files(*names, shape=(2, 2, 2, 2))
        make_files("other_0000.nii", "other_0001.nii")
        found = find(folder, num_modalities=2)
        assert found[1:] == [Scan(n.partition(".")[0], (folder / n,)) for n in names]
        assert len(found[0].paths) == 2

    def test_that_are_unreadable_belong_to_those_that_are_readable(self, make_files):
        folder = make_files("a_0001.nii", "b_0003.nii", shape=None)
        make_files("a_0000.nii")
        found = find(folder, num_modalities=2)
        assert [(scan.name, len(scan.paths)) for scan in found] == [
            ("a", 2),
            ("b_0003", 1),
        ]


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

    @pytest.mark.parametrize(
        "text", ["{0}/t2.nii,{0}/adc.nii", '{0}/t2.nii,"{0}/adc.nii"']
    )
    def test_may_be_separated_by_commas(self, make_files, text):
        folder = make_files("t2.nii", "adc.nii")
        (scan,) = find(text.format(folder), num_modalities=2)
        assert scan.paths == (folder / "t2.nii", folder / "adc.nii")

    def test_may_have_commas_in_their_names(self, make_files):
        names = ("Doe, J = 1/t2 é.nii", "Doe, J = 1/adc, 北.nii")
        folder = make_files(*names)
        paths = tuple(folder / name for name in names)
        assert find(paths[0]) == [Scan("t2 é", paths[:1])]
        assert find(*paths, num_modalities=2) == [Scan("t2 é", paths)]
        with pytest.raises(InputError, match="`input`: .*/Doe: .* repeat `input` for"):
            find(",".join(map(str, paths)), num_modalities=2)

    def test_that_are_the_same_file_are_an_error(self, make_files):
        folder = make_files("m_0000.nii", "m_0001.nii")
        (folder / "link.nii").symlink_to("m_0000.nii")
        for other in ("m_0000.nii", "link.nii"):
            words = (
                "`input`: expected each file once. .*m_0000.nii as modality 0 and as"
            )
            with pytest.raises(InputError, match=words):
                find(folder / "m_0000.nii", folder / other, num_modalities=2)

    def test_must_be_one_per_modality(self, make_files):
        folder = make_files("a.nii", "b.nii")
        with pytest.raises(InputError, match="3 paths, one per modality. Received: 2"):
            find(folder / "a.nii", folder / "b.nii", num_modalities=3)


class TestErrors:
    def test_a_missing_path(self, tmp_path):
        words = f"`input`: {tmp_path / 'no'}: expected a file or folder. Received: no"
        with pytest.raises(InputError, match=words):
            find(tmp_path / "no")

    def test_neither_a_file_nor_a_folder(self, tmp_path):
        path = tmp_path / "scan.nii.gz"
        os.mkfifo(path)
        words = f"`input`: {path}: expected a file or folder. Received: neither"
        with pytest.raises(InputError, match=words):
            find(path)

    def test_one_of_several_is_missing(self, make_files):
        folder = make_files("a.nii")
        with pytest.raises(InputError, match=str(folder / "b.nii")):
            find(folder / "a.nii", folder / "b.nii", num_modalities=2)

    def test_no_scan_in_the_folder(self, make_files):
        folder = make_files("readme.txt")
        with pytest.raises(InputError, match=f"{folder}: expected files ..nii.gz"):
            find(folder)

    @pytest.mark.parametrize("num_modalities", [1, 2])
    def test_broken_links_and_folders_are_unusable_cases(
        self, make_files, caplog, num_modalities
    ):
        folder = make_files("a.nii", "d.nii.gz/x.txt")
        (folder / "b.nii.gz").symlink_to("nowhere/b")
        (folder / "c.nii").symlink_to("c.nii")
        (folder / "notes").symlink_to("nowhere")
        with caplog.at_level(logging.WARNING):
            scan, *others = find(folder, num_modalities=num_modalities)
        assert scan.name == "a"
        assert others == [
            (
                path.partition(".")[0],
                f"{folder / path}: expected a scan. Received: {is_}",
            )
            for path, is_ in (
                ("b.nii.gz", "a broken link to nowhere/b"),
                ("c.nii", "a link that leads back to itself"),
                ("d.nii.gz", "a folder"),
            )
        ]
        assert caplog.messages == [
            f"{folder}: skipped entries that are not scans: notes"
        ]
        (folder / "a.nii").unlink()
        assert len(find(folder)) == 3

    def test_a_modality_that_is_a_broken_link_is_reported(self, make_files):
        folder = make_files("a_0000.nii", "b_0000.nii", "b_0001.nii")
        (folder / "a_0001.nii").symlink_to("nowhere")
        scan, (name, message) = find(folder, num_modalities=2)
        assert (scan.name, name) == ("b", "a")
        assert message.endswith(
            "a_0001.nii: expected a scan. Received: a broken link to nowhere"
        )
        # With one modality they are separate cases.
        assert len(find(folder)) == 4

    def test_a_file_of_another_kind(self, make_files):
        path = make_files("a.mnc") / "a.mnc"
        with pytest.raises(
            InputError, match=rf"{path}: expected a name ending in .*a.mnc"
        ):
            find(path)

    def test_two_scans_with_the_same_name(self, make_files):
        folder = make_files("a.nii", "a.nii.gz")
        with pytest.raises(InputError, match="one scan per name. .* several named 'a'"):
            find(folder)

    def test_either_paths_or_a_list(self, make_files):
        folder = make_files("a.nii")
        with pytest.raises(InputError, match="for `input_list`. Received: neither"):
            find()
        with pytest.raises(InputError, match="for `input_list`. Received: neither"):
            find("")
        with pytest.raises(
            InputError, match="expected paths. Received: an empty string"
        ):
            find(f"{folder / 'a.nii'},", num_modalities=2)
        with pytest.raises(InputError, match="for `input_list`. Received: both"):
            find(folder, input_list="list.txt")

    def test_a_folder_per_patient(self, make_files):
        folder = make_files("p1/ct.nii", "p2/ct.nii")
        words = "Received: p1/, p2/. Subfolders .* list scans such as p1/ct.nii in `"
        with pytest.raises(InputError, match=words):
            find(folder)

    def test_a_folder_per_patient_and_study(self, make_files):
        folder = make_files("p1/notes.txt")
        write_series(folder / "p2" / "study" / "series", 1)
        with pytest.raises(InputError, match="such as p2/study/series in `input_list`"):
            find(folder)


class TestParts:
    @pytest.mark.parametrize("num_parts", [1, 2, 3, 7, 9])
    def test_have_each_case_once(self, make_files, num_parts):
        folder = make_files(*(f"{name}.nii.gz" for name in "bacfe"))
        # An unusable case, whose place in the order is among the others, and one that
        # has the name of a scan.
        for name in ("d.nii.gz", "c.nrrd"):
            (folder / name).symlink_to(folder / "missing")
        found = find_scans([str(folder)], toy.ONE)
        assert found.num_cases == 7
        parts = [found.part(part_id, num_parts) for part_id in range(num_parts)]
        names = [
            [*(scan.name for scan in part.scans), *part.incomplete] for part in parts
        ]
        assert sorted(sum(names, [])) == list("abccdef")
        assert [set(part) for part in names] == [
            set("abcdef"[k::num_parts]) for k in range(num_parts)
        ]
        assert sum(part.num_cases for part in parts) == 7
        for part in parts:
            together = sorted(scan.name for scan in (*part.scans, *part.others))
            assert together == list("abcef")


class TestLists:
    def list_of(self, folder, text, name="list.txt"):
        (folder / name).write_text(text, encoding="utf-8")
        return str(folder / name)

    def test_one_path_per_line(self, make_files):
        folder = make_files("a, 1.nii", "more/b.nii", "more/c.nii")
        listed = self.list_of(folder, "\ufeffa, 1.nii\r\n\n  more \nno.nii.gz\n")
        assert [(s.name, *s.paths) for s in find(input_list=listed)] == [
            ("a, 1", folder / "a, 1.nii"),
            ("b", folder / "more/b.nii"),
            ("c", folder / "more/c.nii"),
            # Reported when its header is read.
            ("no", folder / "no.nii.gz"),
        ]

    def test_scans_with_the_same_name_are_an_error_that_names_both(self, make_files):
        folder = make_files("p1/ct.nii", "p2/ct.nii")
        listed = self.list_of(folder, "p1/ct.nii\np2/ct.nii\n")
        words = f"'ct': {folder}/p1/ct.nii, {folder}/p2/ct.nii. A table in `input_list`"
        with pytest.raises(InputError, match=re.escape(words)):
            find(input_list=listed)

    @pytest.mark.parametrize(
        "text",
        [
            "case,T2,ADC\np1,p1/t2.nii,p1/adc.nii\n",
            "ADC;case;T2\r\np1/adc.nii;p1;p1/t2.nii\r\n;;\r\n",
            '\ufeffcase, T2, ADC\n"p1", "p1/t2.nii", p1/adc.nii',
        ],
    )
    def test_a_table_has_a_column_per_modality(self, make_files, text):
        folder = make_files("p1/t2.nii", "p1/adc.nii")
        listed = self.list_of(folder, text, "scans.CSV")
        assert find(input_list=listed, num_modalities=2) == [
            Scan("p1", (folder / "p1/t2.nii", folder / "p1/adc.nii"))
        ]

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("", "line 1: expected the columns case, T2, ADC. Received: an empty"),
            ("case,T2\n", "line 1: .* Received: case, T2"),
            ("case,T2,T1\n", "line 1: .* Received: case, T2, T1"),
            ("a,b,c\n", "line 1: expected the columns case, T2, ADC. Received: a, b"),
            ("case,T2,ADC\n", "expected a scan. Received: none"),
            ("case,T2,ADC\nx,,b\n", "line 2: expected 3 cells, none of them empty"),
            ("case,T2,ADC\nx,a,b,c\n", "line 2: .* Received: x,a,b,c"),
            ("case,T2,ADC\n\n../x,a,b\n", "line 3: .*not a path. Received: '../x'"),
            ("case,T2,ADC\nx,a,b\nx,c,d\n", "several named 'x'"),
            ("case,T2,ADC,ADC\nx,a,b,c\n", "line 1: .* Received: case, T2, ADC, ADC"),
            ("case,T2,T2\nx,a,b\n", "line 1: .* Received: case, T2, T2"),
            ("case,T2,ADC\nx,a,a\n", r"a as T2 of 'x' \(line 2\) and as ADC of 'x'"),
            (
                "case,T2,ADC\nx,a,b\n\ny,c,./b\n",
                r"b as ADC of 'x' \(line 2\) and as ADC of 'y' \(line 4\)",
            ),
        ],
    )
    def test_an_error_in_a_table_names_the_line(self, make_files, text, words):
        listed = self.list_of(make_files(), text, "scans.csv")
        with pytest.raises(InputError, match=words) as caught:
            find(input_list=listed, num_modalities=2)
        assert listed in str(caught.value)

    @pytest.mark.parametrize("names", [("T1", "T1"), ("case", "T2"), ("T1", "T1 ")])
    def test_modalities_that_cannot_be_columns(self, make_files, names):
        listed = self.list_of(make_files(), "case,T1,T1\nx,a,b\n", "scans.csv")
        with pytest.raises(InputError, match=r"columns (T1|case)\. Use `input`"):
            scan_lists.read_table(pathlib.Path(listed), names)

    def test_a_modality_may_have_spaces_around_its_name(self, make_files):
        folder = make_files()
        path = pathlib.Path(self.list_of(folder, "T2,case\na,x\n", "scans.csv"))
        assert scan_lists.read_table(path, [" T2 "]) == [("x", (folder / "a",))]

    @pytest.mark.parametrize(
        ("content", "words"),
        [
            (b"\n", "expected one path per line. Received: none"),
            (b"a\xff.nii\n", "expected UTF-8 text. Received: invalid bytes in line 1"),
            (b"a.png\n", "a.png: expected a name ending in"),
            (None, "expected a file. Received: no such file"),
        ],
    )
    def test_an_invalid_list_is_reported(self, tmp_path, content, words):
        path = tmp_path / "list.txt"
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(InputError, match=words):
            find(input_list=str(path))


TABLE = b'case,T2,ADC\np1,"a, 1/t2.nii",p1/adc.nii\np2;x,t2.nii.gz,adc.nii\n'
BYTES_OF_LISTS = [bytes([byte]) for byte in b',;"\n\r\0\xff\x85.\\/'] + [
    b"",
    b"z" * 300,
]


@pytest.mark.parametrize(
    "seeds", [range(200), pytest.param(range(200, 5000), marks=pytest.mark.slow)]
)
def test_a_damaged_table_is_read_completely_or_refused(tmp_path, seeds):
    for seed in seeds:
        generator = np.random.default_rng(seed)
        text = bytearray(TABLE)
        for _ in range(generator.integers(1, 4)):
            place = generator.integers(len(text))
            text[place : place + 1] = BYTES_OF_LISTS[
                generator.integers(len(BYTES_OF_LISTS))
            ]
        path = tmp_path / ("scans.csv", "scans.txt")[seed % 2]
        path.write_bytes(text)
        try:
            found, message = find(input_list=str(path), num_modalities=2), ""
        except InputError as error:
            found, message = [], str(error)
        assert found or path.name in message or "a name ending in" in message
        assert len(message) < 2000
