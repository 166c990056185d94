import json

import pytest

from u2net_tf.errors import InputError
from u2net_tf.volumes import msd


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


def test_what_dataset_json_says(write):
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


def test_numbers_are_ordered_as_numbers(write):
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
def test_file_that_is_there_is_taken(write, listed, there):
    folder = write(make_content(listed))
    (folder / "imagesTr").mkdir()
    (folder / "imagesTr" / there).write_bytes(b"")
    (case,) = msd.read_dataset(folder).cases
    assert case.name == "a"
    assert case.image_path.name == there
    assert case.label_path.name == listed


def test_hidden_files_are_passed_over(write):
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
        (make_content(modality={"T2": 0}), "'modality'.*whole numbers"),
        (make_content(modality={"1": "T2"}), "'modality': expected keys 0, 1"),
        (make_content(labels=["bg"]), "'labels': expected an object"),
        (make_content(labels={"1": "PZ", "2": "TZ"}), "expected 0"),
        (make_content(labels={"0": "background"}), "at least one other"),
        (make_content(training=None), "'training': expected a list"),
        (make_content(training=[]), "'training'.*an empty list"),
        (make_content(training=["a.nii.gz"]), "'training': expected a list"),
        (make_content(training=[{"image": "a.nii.gz"}]), "'training': expected a list"),
        (make_content("a.png"), "ending in .nii.gz or .nii"),
    ],
)
def test_malformed_dataset_json_is_named(write, content, message):
    folder = write(content)
    with pytest.raises(InputError, match=message) as error:
        msd.read_dataset(folder)
    assert "a.png" in str(error.value) or "dataset.json" in str(error.value)


def test_missing_dataset_json_is_named(tmp_path):
    with pytest.raises(InputError, match=r"dataset\.json: expected a file"):
        msd.read_dataset(tmp_path)


def test_find_datasets(write, tmp_path):
    second, first = write(make_content(), "B"), write(make_content(), "A")
    write(make_content(), ".hidden")
    (tmp_path / "Empty").mkdir()
    assert msd.find_datasets(tmp_path) == [first, second]
    assert msd.find_datasets(first) == [first]


def test_nothing_to_find_is_an_error(tmp_path):
    with pytest.raises(InputError, match="expected folders with a dataset.json"):
        msd.find_datasets(tmp_path)
    with pytest.raises(InputError, match="expected a folder. Received: no such folder"):
        msd.find_datasets(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("path", "stem"),
    [("x/a.b.nii.gz", "a.b"), ("a.nii", "a"), ("/x/c_1.nii.gz", "c_1")],
)
def test_nifti_stem(path, stem):
    assert msd.nifti_stem(path) == stem


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


def test_a_byte_order_mark_is_read_over(tmp_path, write_dataset):
    folder = write_dataset(tmp_path / "Knee", ["a"])
    path = folder / "dataset.json"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert msd.read_dataset(folder).cases[0].name == "a"
