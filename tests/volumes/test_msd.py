import json
import os

import pytest

from u2net_tf.errors import InputError
from u2net_tf.volumes import msd, scan_names


def make_content(*cases, **changes):
    return {
        "modality": {"0": "T2", "1": "ADC"},
        "labels": {"0": "background", "1": "PZ", "2": "TZ"},
        "training": [
            {"image": f"./imagesTr/{case}", "label": f"./labelsTr/{case}"}
            for case in cases or ["b.nii.gz", "a.nii.gz"]
        ],
        **changes,
    }


@pytest.fixture
def write(tmp_path):
    def write(content, name="Task"):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        text = content if isinstance(content, str) else json.dumps(content)
        (folder / "dataset.json").write_text(text)
        return folder

    return write


def test_content_of_dataset_json(write):
    folder = write(make_content())
    dataset = msd.read_dataset(folder)
    assert dataset.name == "Task"
    assert dataset.folder == folder
    assert dataset.modalities == ("T2", "ADC")
    assert dataset.labels == {0: "background", 1: "PZ", 2: "TZ"}
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert dataset.cases[0].image_path == folder / "imagesTr" / "a.nii.gz"
    assert dataset.cases[0].label_path == folder / "labelsTr" / "a.nii.gz"
    assert dataset.duplicates == ()


def test_labels_are_in_numerical_order(write):
    labels = {str(i): f"l{i}" for i in (10, 9, 0, 1)}
    assert list(msd.read_dataset(write(make_content(labels=labels))).labels) == [
        0,
        1,
        9,
        10,
    ]


@pytest.mark.parametrize("prefix", ["./", "/", ""])
def test_paths_are_relative_to_the_folder(write, prefix):
    row = {"image": f"{prefix}imagesTr/a.nii", "label": f"{prefix}labelsTr/a.nii"}
    folder = write(make_content(training=[row]))
    (case,) = msd.read_dataset(folder).cases
    assert case.name == "a"
    assert case.image_path == folder / "imagesTr" / "a.nii"


@pytest.mark.parametrize(
    ("listed", "there"), [("a.nii", "a.nii.gz"), ("a.nii.gz", "a.nii")]
)
def test_existing_file_is_used(write, listed, there):
    folder = write(make_content(listed))
    (folder / "imagesTr").mkdir()
    (folder / "imagesTr" / there).write_bytes(b"")
    (case,) = msd.read_dataset(folder).cases
    assert case.name == "a"
    assert case.image_path.name == there
    assert case.label_path.name == listed


def test_hidden_files_are_skipped(write):
    dataset = msd.read_dataset(write(make_content("._a.nii.gz", "a.nii.gz")))
    assert [case.name for case in dataset.cases] == ["a"]


def test_duplicates_are_listed(write):
    names = ("a.nii.gz", "b.nii.gz", "a.nii.gz")
    dataset = msd.read_dataset(write(make_content(*names)))
    assert [case.name for case in dataset.cases] == ["a", "b"]
    assert dataset.duplicates == ("a",)


def test_case_by_name(write):
    dataset = msd.read_dataset(write(make_content()))
    assert dataset.case("b").name == "b"
    with pytest.raises(InputError, match=r"dataset\.json: .*expected the case 'c'"):
        dataset.case("c")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"modality": ', "expected JSON"),
        ("[1]", "expected a JSON object. Received: list"),
        (make_content(modality=None), "'modality': expected an object"),
        (make_content(modality={}), "'modality': expected an object"),
        (make_content(modality={"T2": 0}), "'modality'.*integers"),
        (make_content(modality={"1": "T2"}), "'modality': expected keys 0, 1"),
        (make_content(labels=["bg"]), "'labels': expected an object"),
        (make_content(labels={"1": "PZ", "2": "TZ"}), "expected 0"),
        (make_content(labels={"0": "background"}), "at least one other"),
        (make_content(training=None), "'training': expected a list"),
        (make_content(training=[]), "'training'.*an empty list"),
        (make_content(training=["a.nii.gz"]), "'training': expected a list"),
        (make_content(training=[{"image": "a.nii.gz"}]), "'training': expected a list"),
        (make_content("a.png"), "ending in .nii.gz, .nii, "),
    ],
)
def test_malformed_dataset_json_is_reported(write, content, message):
    folder = write(content)
    with pytest.raises(InputError, match=message) as error:
        msd.read_dataset(folder)
    assert "a.png" in str(error.value) or "dataset.json" in str(error.value)


def test_missing_dataset_json_is_reported(tmp_path):
    with pytest.raises(InputError, match=r"dataset\.json: expected a file"):
        msd.read_dataset(tmp_path)


def test_find_datasets(write, tmp_path):
    second, first = write(make_content(), "B"), write(make_content(), "A")
    write(make_content(), ".hidden")
    (tmp_path / "Empty").mkdir()
    assert msd.find_datasets(tmp_path) == [first, second]
    assert msd.find_datasets(first) == [first]


def test_finding_no_datasets_is_an_error(tmp_path):
    match = "expected folders with a dataset.json .* Decathlon or of nnU-Net"
    with pytest.raises(InputError, match=match):
        msd.find_datasets(tmp_path)
    with pytest.raises(InputError, match="expected a folder. Received: no such folder"):
        msd.find_datasets(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("path", "stem"),
    [
        ("x/a.b.nii.gz", "a.b"),
        ("a.nii", "a"),
        ("/x/c_1.NII.GZ", "c_1"),
        ("a.nrrd", "a"),
        ("a.nii.mha", "a.nii"),
    ],
)
def test_stem_of_a_scan(path, stem):
    assert scan_names.scan_stem(path) == stem


def test_original_dataset_json(real_data, tmp_path):
    source = real_data / "Task05_Prostate.dataset.json"
    if not source.is_file():
        pytest.skip(f"no {source}")
    (tmp_path / "dataset.json").write_text(source.read_text())
    dataset = msd.read_dataset(tmp_path)
    assert dataset.modalities == ("T2", "ADC")
    assert dataset.labels == {0: "background", 1: "PZ", 2: "TZ"}
    assert len(dataset.cases) == 32
    assert dataset.case("prostate_16").image_path.parent == tmp_path / "imagesTr"


def test_a_linked_folder_keeps_its_name(tmp_path, write_dataset):
    write_dataset(tmp_path / "elsewhere" / "data", ["a"])
    link = tmp_path / "Task01_Linked"
    link.symlink_to(tmp_path / "elsewhere" / "data")
    assert msd.read_dataset(link).name == "Task01_Linked"


def test_a_byte_order_mark_is_ignored(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "Knee", ["a"])
    path = folder / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert msd.read_dataset(folder).cases[0].name == "a"


def touch(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


@pytest.mark.parametrize("style", [".\\{}\\{}", "{}\\{}", "\\{}\\{}"])
def test_paths_written_on_windows(write, style):
    names = ("a.nii.gz", "b.nii")
    rows = [
        {
            "image": style.format("imagesTr", name),
            "label": style.format("labelsTr", name),
        }
        for name in names
    ]
    rows[1]["image"] = "./imagesTr/b.nii"
    dataset = msd.read_dataset(write(make_content(training=rows)))
    assert [case.name for case in dataset.cases] == ["a", "b"]
    for case, name in zip(dataset.cases, names, strict=True):
        assert case.image_paths == (dataset.folder / "imagesTr" / name,)
        assert case.label_path == dataset.folder / "labelsTr" / name
    assert dataset.notes == ()


def test_a_backslash_that_is_part_of_a_name(write):
    row = {"image": "imagesTr/a\\b.nii.gz", "label": "labelsTr/a\\b.nii.gz"}
    folder = write(make_content(training=[row]))
    touch(folder, row["image"], row["label"])
    (case,) = msd.read_dataset(folder).cases
    assert case.name == "a\\b"
    assert case.label_path == folder / row["label"]


def test_hidden_rows_are_reported(write):
    rows = [f"._{name}.nii.gz" for name in "abcdefg"]
    dataset = msd.read_dataset(write(make_content("a.nii.gz", *rows)))
    assert len(dataset.notes) == 1
    assert dataset.notes[0].startswith("skipped 7 hidden files: ./imagesTr/._a")
    assert dataset.notes[0].endswith("._e.nii.gz and 2 more")
    row = {"image": "imagesTr\\._a.nii.gz", "label": "labelsTr\\._a.nii.gz"}
    with pytest.raises(InputError, match="'training': .*hidden files only"):
        msd.read_dataset(write(make_content(training=[row])))


def test_other_fields_of_a_row_are_reported(write):
    content = make_content("a.nii.gz", "b.nii.gz")
    content["training"][1] |= {"fold": 1, "age": 3}
    notes = ("unused fields of 'training': age, fold",)
    assert msd.read_dataset(write(content)).notes == notes


@pytest.mark.parametrize("number", [3, "2", True, None, [2]])
def test_number_of_cases_is_compared(write, number):
    def read(number):
        return msd.read_dataset(write(make_content(numTraining=number))).notes

    assert read(2) == ()
    assert read(number) == (f"'numTraining' is {number!r}, read 2 cases",)


def test_unlisted_volumes_are_found(write):
    folder = write(make_content("a.nii.gz"))
    other = ("imagesTr/b.nii.gz", "labelsTr/b.nii", "labelsTr/c.MHA")
    passed = ("imagesTr/._b.nii.gz", "imagesTr/notes.txt", "imagesTs/d.nii.gz")
    touch(folder, "imagesTr/a.nii.gz", "labelsTr/a.nii.gz", *other, *passed)
    dataset = msd.read_dataset(folder)
    assert msd.unlisted_files(dataset) == [folder / name for name in other]


@pytest.mark.parametrize("other", ["PAT1", "Stra\u00dfe", "Stra\u0308sse"])
def test_cases_whose_files_may_be_the_same_are_refused(write, other):
    names = ["pat1", "strasse", "str\u00e4sse"]
    msd.read_dataset(write(make_content(*(f"{name}.nii.gz" for name in names))))
    content = make_content(*(f"{name}.nii.gz" for name in (*names, other)))
    with pytest.raises(InputError, match="'training': expected case names .*" + other):
        msd.read_dataset(write(content))


UNDECODABLE = os.fsdecode(b"\xff")


def test_undecodable_paths_are_refused(write, tmp_path):
    folder = write(NNUNET)
    touch(folder, f"labelsTr/{UNDECODABLE}.nii.gz")
    with pytest.raises(InputError, match="json: expected paths in UTF-8. Received: .*"):
        msd.read_dataset(folder)
    listed = write(make_content("a.nii.gz"), "A")
    msd.read_dataset(listed)
    parent = tmp_path / UNDECODABLE
    parent.mkdir()
    moved = listed.rename(parent / "A")
    with pytest.raises(InputError, match=r"udcff/A/dataset.json: expected paths in UT"):
        msd.read_dataset(moved)


def rows_of(*images, label="seg"):
    parts = [image.rpartition("/") for image in images]
    return [
        {"image": image, "label": f"{folder}/{label}_{name}"}
        for image, (folder, _, name) in zip(images, parts, strict=True)
    ]


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["./s0/ct.nii.gz", "./s1/ct.nii.gz"], ["s0", "s1"]),
        (["data/s1/ct.nii.gz", "data/s0/ct.nii.gz"], ["s0", "s1"]),
        (["a/x/ct.nii.gz", "a/y/ct.nii", "b/x/ct.nii"], ["a_x", "a_y", "b_x"]),
        (
            ["s0/ct.nii.gz", "s0/mr.nii.gz", "s1/ct.nii.gz"],
            ["s0_ct", "s0_mr", "s1_ct"],
        ),
        # Distinct names are kept.
        (["s0/a.nii.gz", "s1/b.nii.gz"], ["a", "b"]),
    ],
)
def test_names_are_made_distinct_by_folders(write, images, names):
    dataset = msd.read_dataset(write(make_content(training=rows_of(*images))))
    assert [case.name for case in dataset.cases] == names
    assert {case.image_path for case in dataset.cases} == {
        dataset.folder / image for image in images
    }
    assert dataset.duplicates == ()


def test_names_that_cannot_be_made_distinct_are_an_error(write):
    images = [f"{k}/a_b/c.nii.gz" for k in range(6)] + ["0_a/b/c.nii.gz"]
    images += [f"{k}_a/b/c.nii.gz" for k in range(1, 6)]
    with pytest.raises(InputError, match="different names.*c.nii.gz and 7 more"):
        msd.read_dataset(write(make_content(training=rows_of(*images))))


def test_an_image_with_two_label_maps_is_an_error(write):
    rows = rows_of("s0/ct.nii.gz") + rows_of("s0/ct.nii.gz", label="other")
    with pytest.raises(InputError, match="one label map for each.*s0/ct.nii.gz"):
        msd.read_dataset(write(make_content(training=rows)))


LABELS = {"0": "background", "1": "PZ"}


@pytest.mark.parametrize(
    ("labels", "received"),
    [
        ({**LABELS, "01": "TZ"}, "'01'"),
        ({**LABELS, "1.0": "TZ"}, "'1.0'"),
        ({**LABELS, "1_0": "TZ"}, "'1_0'"),
        ({**LABELS, " 2": "TZ"}, "' 2'"),
        ({**LABELS, "+2": "TZ"}, r"'\+2'"),
        ({**LABELS, "٢": "TZ"}, "'٢'"),
        ({**LABELS, "2": None}, "None"),
        ({**LABELS, "2": ""}, "''"),
        ({**LABELS, "2": "a\nb"}, r"'a\\nb'"),
        ({**LABELS, "2": ["TZ"]}, r"\['TZ'\]"),
        ({**LABELS, str(2**53): "TZ"}, "9007199254740992"),
        ({**LABELS, "9" * 4000: "TZ"}, "a number of 4000 digits"),
        ({"background": 0, "PZ": 1, "TZ": 10**25}, "a number of 26 digits"),
        ({"0": "background", "2": "Ignore"}, "{0: 'background'}"),
        ({**LABELS, "2": "Ignore", "3": "ignore"}, "several: 2, 3"),
        ({"background": 0, "PZ": 1, "TZ": True}, "'TZ': True"),
        ({"background": 0, "PZ": 1, "TZ": 2.0}, r"'TZ': 2\.0"),
        ({"background": "0", "PZ": "1"}, "'background': '0'"),
        ({"0": "PZ", "1": "background", "2": "TZ"}, "1 for 'background'"),
        ({"PZ": 0, "Back_Ground": 1}, "1 for 'Back_Ground'"),
        ({**LABELS, "2": " BACKGROUND"}, "2 for ' BACKGROUND'"),
        ({**LABELS, "-1": "outside"}, "-1 for 'outside'"),
        ({"background": 0, "PZ": 1, "outside": -1}, "-1 for 'outside'"),
        ({"background": 0, "PZ": 1, "TZ": 1}, "several names for 1"),
        ({"ignore": 0, "PZ": 1}, "{1: 'PZ'}"),
        ({"background": 0, "whole": [1, 2], "TZ": [2, "3"]}, r"'TZ': \[2, '3'\]"),
        ({"background": 0, "whole": [1, 2], "TZ": []}, r"'TZ': \[\]"),
        ({"background": 0, "whole": [1, 10**25]}, "a number of 26 digits"),
        ({"background": 0, "TZ": 2, "PZ": [2]}, "several names for 2"),
        ({"PZ": 1, "TZ": 2}, "{1: 'PZ', 2: 'TZ'}"),
    ],
)
def test_invalid_labels_are_refused(write, labels, received):
    folder = write(make_content(labels=labels))
    with pytest.raises(InputError, match=f"dataset.json: 'labels': .*: .*{received}"):
        msd.read_dataset(folder)


@pytest.mark.parametrize("values", [[1, 2, 2], [0, 1], [-1, 2], [2, 9]])
def test_invalid_regions_are_refused(write, values):
    labels = {"background": 0, "PZ": 1, "both": values, "ignore": 9}
    received = ", ".join(map(str, sorted(values)))
    message = f"'labels': 'both': expected .*foreground.*Received: {received}$"
    with pytest.raises(InputError, match=message):
        msd.read_dataset(write(make_content(labels=labels)))


@pytest.mark.parametrize("name", ["ignore", " Ignore", "background"])
def test_ignore_label_and_background_are_no_regions(write, name):
    labels = {"outside": 0, "PZ": 1, name: [3, 4]}
    message = f"'labels': '{name}': expected one value. Received: 3, 4$"
    with pytest.raises(InputError, match=message):
        msd.read_dataset(write(make_content(labels=labels)))


@pytest.mark.parametrize(
    ("labels", "classes", "ignored", "regions"),
    [
        ({**LABELS, "255": " Ignore "}, {0: "background", 1: "PZ"}, 255, {}),
        (
            {"background": 0, "PZ": 1, "ignore": -1},
            {0: "background", 1: "PZ"},
            -1,
            {},
        ),
        # Names that are numbers.
        (
            {"background": 0, "1": 1, "2": 2, "both": [1, 2], "ignore": [3]},
            {0: "background", 1: "1", 2: "2"},
            3,
            {"both": (1, 2)},
        ),
        # As in nnU-Net's documentation of BraTS.
        (
            {"background": 0, "whole": [1, 3, 2], "core": [3, 2], "enhancing": [3]},
            {0: "background", 1: "label 1", 2: "label 2", 3: "enhancing"},
            None,
            {"whole": (1, 2, 3), "core": (2, 3)},
        ),
    ],
)
def test_ignore_label_and_regions(write, labels, classes, ignored, regions):
    dataset = msd.read_dataset(write(make_content(labels=labels)))
    assert dataset.labels == classes
    assert list(dataset.labels) == sorted(classes)
    assert (dataset.ignore_label, dataset.regions) == (ignored, regions)


def test_the_background_may_have_another_name(write):
    for name in ("outside", "Background", "nothing"):
        labels = {"0": name, "1": "background organ"}
        dataset = msd.read_dataset(write(make_content(labels=labels)))
        assert dataset.labels == {0: name, 1: "background organ"}


def test_duplicate_channels_are_refused(write):
    for modality in ({"0": "T1", "1": "T1"}, {"0": "T1", "1": "T2", "2": "T1 "}):
        message = "'modality': expected a different name.*several named T1$"
        with pytest.raises(InputError, match=message):
            msd.read_dataset(write(make_content(modality=modality)))
    content = {**NNUNET, "channel_names": {"0": "T1", "1": "T1"}}
    with pytest.raises(InputError, match="'channel_names': .*several named T1"):
        msd.read_dataset(write(content))
    # Names that differ in case may be two modalities.
    content = make_content(modality={"0": "T1", "1": "t1"})
    assert msd.read_dataset(write(content)).modalities == ("T1", "t1")


def row(image, label):
    return {"image": image, "label": label}


@pytest.mark.parametrize(
    ("rows", "uses"),
    [
        ([row(["c0", "c0"], "l0")], ("c0", "an image of 'c0'", "an image of 'c0'")),
        (
            [row(["a0", "both"], "la"), row(["b0", "both"], "lb")],
            ("both", "an image of 'a0'", "an image of 'b0'"),
        ),
        (
            [row("a", "la"), row("b", "la")],
            ("la", "the label map of 'a'", "the label map of 'b'"),
        ),
        ([row("a", "a")], ("a", "an image of 'a'", "the label map of 'a'")),
        (
            [row("a", "b"), row("b", "lb")],
            ("b", "the label map of 'a'", "an image of 'b'"),
        ),
        # A link to a file is the same file.
        (
            [row("a", "la"), row("b", "link")],
            ("la", "the label map of 'a'", r"the label map of 'b' \(.*link.nii.gz\)"),
        ),
    ],
)
def test_a_file_with_two_roles_is_an_error(write, rows, uses):
    def path(name):
        return [f"{n}.nii.gz" for n in name] if isinstance(name, list) else name + END

    named = [{role: path(name) for role, name in r.items()} for r in rows]
    folder = write(make_content(training=named))
    (folder / "link.nii.gz").symlink_to("la.nii.gz")
    file, first, second = uses
    message = f"'training': expected each file once.*/{file}.nii.gz as {first} and as "
    with pytest.raises(InputError, match=message + second):
        msd.read_dataset(folder)


END = ".nii.gz"


def test_links_to_distinct_files_are_cases(write, tmp_path):
    names = ("imagesTr/a.nii.gz", "imagesTr/b.nii.gz")
    names += ("labelsTr/a.nii.gz", "labelsTr/b.nii.gz")
    folder = write(make_content())
    for number, name in enumerate(names):
        touch(tmp_path, f"store/{number}")
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).symlink_to(tmp_path / "store" / str(number))
    dataset = msd.read_dataset(folder)
    # The cases have the names of the links.
    assert raw_paths(dataset) == [[names[0], names[2]], [names[1], names[3]]]


@pytest.mark.parametrize("is_link", [False, True])
def test_two_dots_are_resolved_like_the_system_does(write, tmp_path, is_link):
    rows = [row("imagesTr/../more/a.nii.gz", "labelsTr/../labelsTr/a.nii.gz")]
    folder = write(make_content(training=rows))
    touch(folder, "labelsTr/a.nii.gz", "more/a.nii.gz")
    touch(tmp_path, "elsewhere/more/a.nii.gz", "elsewhere/images/x")
    if is_link:
        (folder / "imagesTr").symlink_to(tmp_path / "elsewhere" / "images")
    else:
        (folder / "imagesTr").mkdir()
    (case,) = msd.read_dataset(folder).cases
    assert case.image_path.samefile(folder / "imagesTr/../more/a.nii.gz")
    assert case.image_path == (tmp_path / "elsewhere" if is_link else folder) / (
        "more/a.nii.gz"
    )
    assert case.label_path == folder / "labelsTr/a.nii.gz"
    assert msd.unlisted_files(msd.read_dataset(folder)) == []


def test_two_dots_of_the_folder_itself(write, tmp_path):
    write(make_content("here.nii.gz"), "Task")
    (tmp_path / "elsewhere/inner").mkdir(parents=True)
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere/inner")
    there = write(make_content("there.nii.gz"), "elsewhere/Task")
    dataset = msd.read_dataset(tmp_path / "link/../Task")
    assert (dataset.folder, dataset.cases[0].name) == (there, "there")
    # A link keeps its own name.
    (tmp_path / "Mine").symlink_to(there)
    assert msd.read_dataset(tmp_path / "elsewhere/../Mine").name == "Mine"


def test_invalid_channels_are_refused(write):
    for modality in ({"0": None}, {"0": "T2", "01": "ADC"}, {"0": 1}):
        with pytest.raises(InputError, match="'modality': expected"):
            msd.read_dataset(write(make_content(modality=modality)))
    with pytest.raises(InputError, match="'channel_names': expected the names of"):
        msd.read_dataset(write(make_content(channel_names={"0": "CT"})))


NNUNET = {
    "channel_names": {"0": "T2", "1": "ADC"},
    "labels": {"background": 0, "PZ": 1, "TZ": 2},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


def raw_paths(dataset):
    return [
        [path.relative_to(dataset.folder).as_posix() for path in case.paths]
        for case in dataset.cases
    ]


class TestNnUNet:
    def test_version_2(self, write):
        folder = write(NNUNET)
        names = [f"imagesTr/p_{k:04d}_{c:04d}.nii.gz" for k in (1, 2) for c in (0, 1)]
        touch(folder, *names, "labelsTr/p_0001.nii.gz", "labelsTr/p_0002.nii.gz")
        touch(folder, "imagesTr/p_0003_0000.nii.gz", "imagesTr/p_0001_0002.nii.gz")
        dataset = msd.read_dataset(folder)
        assert dataset.modalities == ("T2", "ADC")
        assert dataset.labels == {0: "background", 1: "PZ", 2: "TZ"}
        assert [case.name for case in dataset.cases] == ["p_0001", "p_0002"]
        assert raw_paths(dataset) == [
            [*names[:2], "labelsTr/p_0001.nii.gz"],
            [*names[2:], "labelsTr/p_0002.nii.gz"],
        ]
        assert dataset.notes == ()
        assert msd.unlisted_files(dataset) == [
            folder / "imagesTr" / name
            for name in ("p_0001_0002.nii.gz", "p_0003_0000.nii.gz")
        ]

    def test_a_4_d_file_whose_name_ends_in_a_number_is_not_split(self, write):
        folder = write(NNUNET)
        touch(folder, "imagesTr/p_0001.nii.gz", "labelsTr/p_0001.nii.gz")
        (case,) = msd.read_dataset(folder).cases
        assert case.name == "p_0001"
        assert case.image_paths == (folder / "imagesTr" / "p_0001.nii.gz",)

    @pytest.mark.parametrize("listed", ["./imagesTr/a.nii.gz", ".\\imagesTr\\a.nii"])
    def test_version_1(self, write, listed):
        row = {"image": listed, "label": "./labelsTr/a.nii.gz"}
        folder = write(make_content(training=[row]))
        touch(folder, "imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz")
        dataset = msd.read_dataset(folder)
        assert [case.name for case in dataset.cases] == ["a"]
        images = ["imagesTr/a_0000.nii.gz", "imagesTr/a_0001.nii.gz"]
        assert raw_paths(dataset) == [[*images, "labelsTr/a.nii.gz"]]
        # The layout of the MSD takes precedence over other files.
        touch(folder, "imagesTr/a.nii.gz")
        (case,) = msd.read_dataset(folder).cases
        assert case.image_paths == (folder / "imagesTr" / "a.nii.gz",)

    def test_cases_by_name(self, write):
        rows = {
            name: {
                "images": [f"{name}/t2.nrrd", f"{name}/adc.nrrd"],
                "label": f"{name}/s.nrrd",
            }
            for name in "ba"
        }
        dataset = msd.read_dataset(write({**NNUNET, "dataset": rows}))
        assert [case.name for case in dataset.cases] == ["a", "b"]
        assert raw_paths(dataset)[0] == ["a/t2.nrrd", "a/adc.nrrd", "a/s.nrrd"]

    @pytest.mark.parametrize("ending", [".nrrd", ".mha", ".nii"])
    def test_other_endings(self, write, ending):
        folder = write({**NNUNET, "file_ending": ending})
        names = [f"imagesTr/a_{channel:04d}{ending}" for channel in (0, 1)]
        touch(folder, *names, f"labelsTr/a{ending}", "labelsTr/b.nii.gz")
        assert raw_paths(msd.read_dataset(folder)) == [[*names, f"labelsTr/a{ending}"]]

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"file_ending": ".png"}, "'.png': 2-D images, which do not"),
            ({"file_ending": ".tif"}, "'.tif': 2-D images, which do not"),
            ({"file_ending": ".mat"}, "suffix of a volume: .*Received: '.mat'$"),
            ({"file_ending": 3}, "suffix of a volume: .*Received: 3$"),
            ({"dataset": []}, "'dataset': expected an object"),
            ({"dataset": {"a": {"images": []}}}, "'dataset': expected an object"),
            ({"dataset": {"a/b": {}}}, "expected a folder name"),
            ({}, "labelsTr: expected label maps named CASE.nii.gz. Received: none"),
        ],
    )
    def test_unusable_content_is_reported(self, write, changes, message):
        with pytest.raises(InputError, match=message):
            msd.read_dataset(write({**NNUNET, **changes}))
