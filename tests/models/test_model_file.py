"""Model files: reading without other packages, and errors about invalid files."""

import dataclasses
import json
import pathlib
import random
import stat
import struct
import subprocess
import sys
import warnings
import zipfile

import numpy as np
import pytest
from json_mutations import mutate

pytest.importorskip("onnx", reason="needs the extra `export`")

import onnx
from onnx import helper
from packed import (
    SPEC,
    compute,
    make_card,
    make_members,
    with_edited_description,
    write,
    write_infos,
)
from toy import ONE, TWO

from u2net_tf import describe
from u2net_tf.config.inference import DescribeConfig
from u2net_tf.errors import InputError
from u2net_tf.export_packages import openvino_core
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.model_file import read_model_file
from u2net_tf.models.model_file_format import MODEL_FILE, PackedLabel
from u2net_tf.models.onnx_bytes import MAX_USES_OF_WEIGHTS
from u2net_tf.protocol_buffers import write_bytes

MEMBERS = make_members()


@pytest.fixture
def path(tmp_path):
    return write(tmp_path / "organs.u2net", MEMBERS)


def draw_patches(index, num=2):
    domain = SPEC.plan.domains[index]
    shape = (num, *domain.patch_size, domain.num_modalities)
    return np.random.default_rng(index).standard_normal(shape).astype(np.float32)


def error_of(path):
    with pytest.raises(InputError) as error:
        read_model_file(path)
    assert str(error.value).startswith(f"{path}: ")
    return str(error.value).removeprefix(f"{path}: ")


def test_describes_itself(path):
    found = read_model_file(path)
    assert found.plan == without_case_names(SPEC).plan
    assert [domain.spec.plan.names for domain in found.domains] == [
        (ONE.name,),
        (TWO.name,),
    ]
    assert found.domains[1].fingerprint == "f"
    assert found.index(TWO.name) == 1
    assert [dataclasses.astuple(label) for label in found.labels[TWO.name]] == [
        (0, "background", 0, None),
        (1, "rim", 4, "#ff4d4d"),
        (2, "core", 2, "#33ccff"),
    ]
    assert found.description.card == make_card()
    assert found.page == MEMBERS["card.md"].decode()
    assert json.loads(found.to_json()) == json.loads(MEMBERS["model.json"])


def test_contains_no_case_names():
    for content in MEMBERS.values():
        assert not any(case.encode() in content for case in (*ONE.train, *TWO.test))


def test_an_unknown_domain(path):
    with pytest.raises(InputError, match="expected one of Task91_One, Task92_Two"):
        read_model_file(path).index("x")


@pytest.mark.parametrize(("precision", "atol"), [("float32", 1e-5), ("float16", 2e-2)])
@pytest.mark.parametrize("index", [0, 1])
class TestRuns:
    def expected(self, index):
        patches = draw_patches(index)
        return patches, compute(index, patches)

    def test_in_onnxruntime(self, tmp_path, index, precision, atol):
        onnxruntime = pytest.importorskip("onnxruntime", reason="extra `export`")
        file = read_model_file(write(tmp_path / "x.u2net", make_members(precision)))
        patches, expected = self.expected(index)
        session = onnxruntime.InferenceSession(
            file.onnx_model(index), providers=["CPUExecutionProvider"]
        )
        (found,) = session.run(["probabilities"], {"patches": patches})
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)
        # float16 is not float32.
        assert precision == "float32" or np.abs(found - expected).max() > 1e-5

    def test_in_openvino(self, tmp_path, index, precision, atol):
        pytest.importorskip("openvino", reason="needs the extra `export`")
        core = openvino_core()
        file = read_model_file(write(tmp_path / "x.u2net", make_members(precision)))
        patches, expected = self.expected(index)
        compiled = core.compile_model(
            core.read_model(file.onnx_model(index)),
            "CPU",
            {"INFERENCE_PRECISION_HINT": "f32"},
        )
        np.testing.assert_allclose(compiled([patches])[0], expected, rtol=0, atol=atol)

    def test_unpacked(self, path, tmp_path, index, precision, atol):
        """ONNX programs can open the unzipped files directly."""
        onnxruntime = pytest.importorskip("onnxruntime", reason="extra `export`")
        write(path, make_members(precision))
        with zipfile.ZipFile(path) as archive:
            archive.extractall(tmp_path / "files")
        graph = tmp_path / "files" / f"domain-{index}.onnx"
        onnx.checker.check_model(graph, full_check=True)
        patches, expected = self.expected(index)
        session = onnxruntime.InferenceSession(
            graph, providers=["CPUExecutionProvider"]
        )
        (found,) = session.run(["probabilities"], {"patches": patches})
        np.testing.assert_allclose(found, expected, rtol=0, atol=atol)


def test_shared_weights_are_stored_once():
    shared = 64 * 64 * 4
    assert shared < len(MEMBERS["weights.bin"]) < 1.5 * shared
    half = make_members("float16")
    assert len(half["weights.bin"]) < 0.55 * len(MEMBERS["weights.bin"])


SCRIPT = """
import sys
for name in ("tensorflow", "keras", "onnx", "onnxruntime", "openvino", "matplotlib"):
    sys.modules[name] = None
from u2net_tf.models.model_file import read_model_file
# Imports at first use are not recorded.
read_model_file(sys.argv[1])
events = []
sys.addaudithook(lambda event, arguments: events.append((event, arguments)))
length = len(read_model_file(sys.argv[1]).onnx_model(1))
recorded = list(events)
assert {event for event, _ in recorded} <= {"open", "sys._getframe"}, recorded
for event, arguments in recorded:
    if event == "open":
        assert str(arguments[0]) == sys.argv[1] and arguments[1] in ("r", "rb")
print(length)
"""


def test_reads_without_packages_and_runs_nothing(path):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, path], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == len(read_model_file(path).onnx_model(1))


class TestInvalidZip:
    def test_missing(self, tmp_path):
        assert error_of(tmp_path / "x").endswith("Received: no such file")

    def test_a_folder(self, tmp_path):
        found = error_of(tmp_path)
        assert found == (
            "expected a model file written by `python -m u2net_tf.pack`. "
            "Received: a folder"
        )

    @pytest.mark.parametrize("content", [b"", b"x", b"PK\x05\x06" + bytes(18)])
    def test_other_bytes(self, tmp_path, content):
        path = tmp_path / "x"
        path.write_bytes(content)
        assert ", a zip. Received: " in error_of(path)

    def test_truncated(self, path):
        content = path.read_bytes()
        for end in (4, 100, len(content) // 2, len(content) - 1):
            path.write_bytes(content[:end])
            assert ", an intact zip. Received: " in error_of(path)


def info(name, **changes):
    made = zipfile.ZipInfo(name)
    for attribute, value in changes.items():
        setattr(made, attribute, value)
    return made


class TestMembers:
    def test_compressed(self, tmp_path):
        # A gigabyte of zeros in a megabyte.
        content = bytes(2**20)
        bomb = info("weights.bin", compress_type=zipfile.ZIP_DEFLATED)
        path = write_infos(tmp_path / "x", [(bomb, content)])
        assert error_of(path) == (
            "'weights.bin': expected a member without compression or encryption. "
            "Received: a compressed one"
        )

    def test_encrypted(self, path):
        content = bytearray(path.read_bytes())
        start = content.index(b"PK\x01\x02")
        content[start + 8] |= 1
        path.write_bytes(content)
        assert "Received: an encrypted one" in error_of(path)

    def test_two_with_the_same_name(self, tmp_path):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            path = write_infos(
                tmp_path / "x", [(info("model.json"), b"{}"), (info("model.json"), b"")]
            )
        assert error_of(path) == (
            "'model.json': expected a unique name. Received: a duplicate"
        )

    @pytest.mark.parametrize(
        ("mode", "name"), [(stat.S_IFLNK | 0o777, "weights.bin"), (0, "folder/")]
    )
    def test_folders_and_links(self, tmp_path, mode, name):
        odd = info(name, external_attr=mode << 16)
        path = write_infos(tmp_path / "x", [(odd, b"")])
        assert "expected a file. Received: a" in error_of(path)

    @pytest.mark.parametrize("name", ["/etc/passwd", "../x", "..\\x", "a/b", "x\0y"])
    def test_unexpected_names(self, tmp_path, name):
        path = write(tmp_path / "x", {**MEMBERS, name: b"x"})
        found = error_of(path)
        assert "expected only the members model.json, card.md" in found
        assert not (tmp_path.parent / "x").exists()

    @pytest.mark.parametrize("name", MEMBERS)
    def test_missing_member(self, tmp_path, name):
        members = {n: content for n, content in MEMBERS.items() if n != name}
        assert f"expected a member {name}. Rec" in error_of(
            write(tmp_path / "x", members)
        )

    @pytest.mark.parametrize("name", [n for n in MEMBERS if n != "model.json"])
    def test_other_content(self, tmp_path, name):
        content = bytearray(MEMBERS[name])
        content[len(content) // 2] ^= 1
        path = write(tmp_path / "x", {**MEMBERS, name: bytes(content)})
        assert error_of(path).startswith(
            f"{name}: expected {len(content):,} bytes with SHA-256 "
        )

    def test_damaged_in_place(self, path):
        content = bytearray(path.read_bytes())
        content[content.rindex(MEMBERS["weights.bin"][:64])] ^= 1
        path.write_bytes(content)
        assert error_of(path).endswith("Received: Bad CRC-32 for file 'weights.bin'")

    def test_wrong_sizes(self, path):
        content = bytearray(path.read_bytes())
        start = content.index(b"PK\x01\x02")
        content[start + 20 : start + 28] = struct.pack("<II", 2**31, 2**31)
        path.write_bytes(content)
        found = error_of(path)
        assert (
            "bytes of members, the size of the file. Received: 2,147,483,648" in found
        )

    def test_members_that_share_bytes(self, path):
        """Many members with the same bytes: an archive with more than its size."""
        content = path.read_bytes()
        start = content.index(b"PK\x01\x02")
        end = content.index(b"PK\x05\x06")
        first = content[start : start + 46 + len("model.json")]
        entries = b"".join(
            first.replace(b"model.json", b"model.%04d" % number) for number in range(99)
        )
        path.write_bytes(
            content[:start]
            + entries
            + content[end : end + 8]
            + struct.pack("<HHIIH", 99, 99, len(entries), start, 0)
        )
        assert "bytes of members, the size of the file" in error_of(path)

    def test_a_long_text(self, tmp_path, monkeypatch):
        monkeypatch.setattr("u2net_tf.models.model_file.MAX_TEXT_BYTES", 100)
        path = write(tmp_path / "x", MEMBERS)
        assert error_of(path).startswith("model.json: expected at most 100 bytes. Rec")


def refused(tmp_path, edit):
    """Returns the error about a file whose first graph was edited."""

    def edit_first(index, model):
        if index == 0:
            edit(model)

    path = write(tmp_path / "x.u2net", make_members(edit=edit_first))
    found = error_of(path)
    assert found.startswith("domain-0.onnx: ")
    return found.removeprefix("domain-0.onnx: ")


def set_entry(model, name, text):
    for entry in model.graph.initializer[1].external_data:
        if entry.key == name:
            entry.value = text


class TestGraph:
    @pytest.mark.parametrize(
        "location", ["/etc/passwd", "../weights.bin", "model.json", "", "weights.bin\0"]
    )
    def test_weights_in_another_file(self, tmp_path, location):
        found = refused(tmp_path, lambda model: set_entry(model, "location", location))
        assert found == (
            f"tensor with external data: expected 'weights.bin'. Received: {location!r}"
        )

    @pytest.mark.parametrize(
        ("name", "text", "words"),
        [
            ("offset", "99999999", "expected a range within the "),
            ("offset", "-64", "expected location, offset and length"),
            ("offset", "1" * 5000, "expected location, offset and length"),
            ("offset", "\u0661", "expected location, offset and length"),
            ("length", "16380", "expected 16,384 bytes for shape (64, 64)"),
            ("length", "", "expected location, offset and length"),
        ],
    )
    def test_invalid_offsets_and_lengths(self, tmp_path, name, text, words):
        assert words in refused(tmp_path, lambda model: set_entry(model, name, text))

    def test_weights_that_are_used_too_often(self, tmp_path):
        """A small file must not fill the memory."""

        def repeat(model, times):
            shared = model.graph.initializer[1]
            for number in range(times):
                model.graph.initializer.add().CopyFrom(shared)
                model.graph.initializer[-1].name = f"copy_{number}"

        fits = make_members(edit=lambda index, model: repeat(model, 10))
        assert read_model_file(write(tmp_path / "x.u2net", fits)).onnx_model(0)
        found = refused(tmp_path, lambda model: repeat(model, 30))
        limit = MAX_USES_OF_WEIGHTS * len(MEMBERS["weights.bin"])
        assert found.startswith(
            f"tensors with external data: expected at most {limit:,} bytes, as "
        )

    def test_an_additional_entry(self, tmp_path):
        def edit(model):
            model.graph.initializer[1].external_data.add(key="checksum", value="x")

        assert "expected location, offset and length" in refused(tmp_path, edit)

    def test_texts_as_weights(self, tmp_path):
        def edit(model):
            model.graph.initializer[1].data_type = onnx.TensorProto.STRING

        assert "Received: data type 8 with 2" in refused(tmp_path, edit)

    def test_additional_bytes_of_its_own(self, tmp_path):
        def edit(model):
            model.graph.initializer[1].raw_data = b"x"

        assert "tensor with external data: expected fields" in refused(tmp_path, edit)

    def test_a_constant_in_another_file(self, tmp_path):
        def edit(model):
            node = helper.make_node("Constant", [], ["x"])
            attribute = node.attribute.add(name="value", type=4)
            attribute.t.CopyFrom(model.graph.initializer[0])
            model.graph.node.append(node)

        found = refused(tmp_path, edit)
        assert found.startswith("node Constant: attribute: tensor: expected fields")

    def test_an_operation_outside_onnx(self, tmp_path):
        def edit(model):
            model.graph.node[0].domain = "com.example"

        assert refused(tmp_path, edit) == (
            "node MatMul: expected a standard ONNX operation. "
            "Received: one of the operator set com.example"
        )

    def test_a_nested_graph(self, tmp_path):
        def edit(model):
            graph = helper.make_graph([], "x", [], [])
            model.graph.node.append(
                helper.make_node("Loop", ["", ""], ["y"], body=graph)
            )

        found = refused(tmp_path, edit)
        assert found.startswith("node Loop: attribute: expected fields 1, 2, 3")
        assert found.endswith("Received: field 6")

    def test_functions(self, tmp_path):
        assert "model: expected fields" in refused(
            tmp_path, lambda model: model.functions.add(name="x")
        )

    def test_sparse_weights(self, tmp_path):
        assert "graph: expected fields" in refused(
            tmp_path, lambda model: model.graph.sparse_initializer.add()
        )

    @pytest.mark.parametrize("times", [0, 2])
    def test_several_graphs(self, tmp_path, times):
        members = make_members()
        model = onnx.ModelProto.FromString(members["domain-0.onnx"])
        graph = model.graph.SerializeToString()
        model.ClearField("graph")
        members["domain-0.onnx"] = model.SerializeToString() + times * write_bytes(
            7, graph
        )
        path = write(tmp_path / "x", with_edited_description(members))
        found = error_of(path)
        assert found == f"domain-0.onnx: expected one graph. Received: {times}"

    def test_other_bytes(self, tmp_path):
        members = {**MEMBERS, "domain-0.onnx": b"\x0f" * 100}
        path = write(tmp_path / "x", with_edited_description(members))
        assert error_of(path).startswith("domain-0.onnx: expected an undamaged ONNX")

    def test_patches_of_any_size(self, tmp_path):
        def edit(index, model):
            for value in (*model.graph.input, *model.graph.output):
                dims = value.type.tensor_type.shape.dim
                for dim, name in zip(dims[1:4], "DHW", strict=True):
                    dim.dim_param = name

        members = make_members(edit=edit)
        path = write(tmp_path / "x", members)
        assert error_of(path).startswith("domain-0.onnx: expected patches of type 1, (")

        def allow(fields):
            for domain in fields["domains"]:
                domain["any_size"] = True

        found = read_model_file(write(path, with_edited_description(members, allow)))
        assert all(domain.any_size for domain in found.domains)

    def test_graphs_of_other_domains(self, tmp_path):
        members = {**MEMBERS, "domain-0.onnx": MEMBERS["domain-1.onnx"]}
        path = write(tmp_path / "x", with_edited_description(members))
        assert error_of(path) == (
            "domain-0.onnx: expected patches of type 1, ('N', 8, 8, 8, 1) -> "
            "probabilities of type 1, ('N', 8, 8, 8, 2). Received: patches of type 1, "
            "('N', 4, 8, 8, 2) -> probabilities of type 1, ('N', 4, 8, 8, 3)"
        )


class TestDescription:
    def refused(self, tmp_path, edit, members=MEMBERS):
        path = write(tmp_path / "x.u2net", with_edited_description(members, edit))
        found = error_of(path)
        assert found.startswith("model.json: ")
        return found.removeprefix("model.json: ")

    def test_a_later_format(self, tmp_path):
        def edit(fields):
            fields["format"] = 99

        found = self.refused(tmp_path, edit)
        assert found.startswith("format: expected an integer from 1 to 2")

    @pytest.mark.parametrize(
        ("place", "value", "words"),
        [
            (("precision",), "float64", "precision: expected "),
            (("domains",), [], "domains: expected at least 1 items"),
            (
                ("domains", 0, "graph"),
                "../x.onnx",
                "domains[0].graph: expected domain-0",
            ),
            (("domains", 0, "name"), TWO.name, "domains: expected distinct names"),
            (("domains", 0, "name"), "x", "domains[0].model: expected a model of x"),
            (
                ("domains", 1, "labels", 1, "name"),
                "x",
                "domains[1].labels: expected the",
            ),
            (
                ("domains", 1, "labels", 1, "value"),
                9,
                "domains[1].labels: expected the",
            ),
            (
                ("domains", 1, "labels", 1, "colour"),
                "red",
                "domains[1].labels[1].colour: expected # and 6 digits",
            ),
            (
                ("domains", 0, "fingerprint"),
                "",
                "domains[0].fingerprint: expected a non",
            ),
            (("domains", 0, "model", "pools"), 5, "domains[0].model: pools: expected"),
            (("card", "domains"), [], "card.domains: expected 2. Received: 0"),
            (("members",), [], "members: expected card.md, plan.json"),
            (("members", 0, "name"), "/x", "members: expected card.md, plan.json"),
            (("members", 0, "sha256"), "x", "members[0].sha256: expected 64"),
        ],
    )
    def test_odd_fields(self, tmp_path, place, value, words):
        def edit(fields):
            *keys, last = place
            for key in keys:
                fields = fields[key]
            fields[last] = value

        assert words in self.refused(tmp_path, edit)

    def test_invalid_json(self, tmp_path):
        for content in (b"{", b"\xff", b"[]", b'{"format": 1, "format": 1}'):
            path = write(tmp_path / "x", {**MEMBERS, "model.json": content})
            assert error_of(path).startswith("model.json: ")

    def test_another_plan(self, tmp_path):
        plan = MEMBERS["plan.json"].replace(b"[8, 8, 8]", b"[8, 8, 16]")
        assert plan != MEMBERS["plan.json"]
        path = write(
            tmp_path / "x", with_edited_description({**MEMBERS, "plan.json": plan})
        )
        assert error_of(path) == (
            "plan.json: expected the plan of the domains in model.json. "
            "Received: a different plan"
        )


def check_odd_file(path):
    """The file is refused with an error that names it, or read."""
    problem = ""
    try:
        assert read_model_file(path).onnx_model(0)
    except InputError as error:
        problem = str(error)
    assert not problem or problem.startswith(f"{path}: ")
    assert len(problem) < 3000


def damage(content, draw):
    content = bytearray(content)
    kind = draw.randrange(3)
    if kind == 0:
        return content[: draw.randrange(len(content))]
    position = draw.randrange(len(content))
    # The directory at the end, where every byte matters, is damaged more often.
    if draw.random() < 0.5:
        position = len(content) - 1 - draw.randrange(500)
    if kind == 1:
        content[position] = draw.randrange(256)
        return content
    size = draw.randrange(1, 16)
    content[position : position + size] = draw.randbytes(draw.choice((size, 0, 9)))
    return content


def check_damage(tmp_path, seeds):
    path = write(tmp_path / "x.u2net", MEMBERS)
    content = path.read_bytes()
    for seed in seeds:
        path.write_bytes(damage(content, random.Random(seed)))
        check_odd_file(path)


def check_graph_damage(tmp_path, seeds):
    for seed in seeds:
        graph = bytes(damage(MEMBERS["domain-1.onnx"], random.Random(seed)))
        members = with_edited_description({**MEMBERS, "domain-1.onnx": graph})
        check_odd_file(write(tmp_path / "x.u2net", members))


def check_odd_descriptions(tmp_path, seeds):
    fields = json.loads(MEMBERS["model.json"])
    for seed in seeds:
        members = {**MEMBERS, "model.json": mutate(random.Random(seed), fields)}
        check_odd_file(write(tmp_path / "x.u2net", members))


CHECKS = (check_damage, check_graph_damage, check_odd_descriptions)


@pytest.mark.parametrize("check", CHECKS)
def test_odd_files(tmp_path, check):
    check(tmp_path, range(25))


@pytest.mark.slow
@pytest.mark.parametrize("check", CHECKS)
def test_many_odd_files(tmp_path, check):
    check(tmp_path, range(1000, 6000))


def test_the_format_is_read_strictly():
    fields = json.loads(MEMBERS["model.json"])
    assert MODEL_FILE.to_dict(MODEL_FILE.from_dict(fields, "x")) == fields


class TestDescribe:
    def test_prints_the_card(self, path, capsys):
        describe.main(DescribeConfig(model=str(path)))
        assert capsys.readouterr().out == MEMBERS["card.md"].decode()

    def test_prints_json(self, path, capsys):
        describe.main(DescribeConfig(model=str(path), json_=True))
        found = json.loads(capsys.readouterr().out)
        assert found == json.loads(MEMBERS["model.json"])

    @pytest.mark.parametrize("as_json", [False, True])
    def test_escapes_what_controls_a_terminal(self, tmp_path, capsys, as_json):
        def edit(fields):
            fields["card"]["texts"]["licence"] = "MIT\x9b2J"

        members = {**MEMBERS, "card.md": b"a\n\x1b[2J\xc2\xa0\xc2\x9b\n"}
        path = write(tmp_path / "x.u2net", with_edited_description(members, edit))
        describe.main(DescribeConfig(model=str(path), json_=as_json))
        found = capsys.readouterr().out
        if as_json:
            assert json.loads(found)["card"]["texts"]["licence"] == "MIT\x9b2J"
            assert "\\u009b" in found
        else:
            assert found == "a\n\\u001b[2J\N{NO-BREAK SPACE}\\u009b\n"

    def test_refuses_a_damaged_file(self, path):
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(InputError, match="an intact zip"):
            describe.main(DescribeConfig(model=str(path)))


class TestFormat1:
    """A file written by the first version of the format; never regenerate it."""

    PATH = pathlib.Path(__file__).parents[1] / "artefacts" / "format-1.u2net"

    def test_content_is_unchanged(self):
        found = read_model_file(self.PATH)
        assert found.sha256 == (
            "05ed5d045fadb21eb9baa135bdbd6f54cc2f6f6d45cae16e9264caf6f8b4b55a"
        )
        assert found.plan == without_case_names(SPEC).plan
        assert found.labels == read_labels(MEMBERS)
        # These files contain neither scores of regions nor what the model had seen.
        assert found.description.card == make_card(lists_training_cases=None)
        assert found.description.precision == "float32"

    def test_results_are_unchanged(self):
        onnxruntime = pytest.importorskip("onnxruntime", reason="extra `export`")
        model = read_model_file(self.PATH).onnx_model(1)
        session = onnxruntime.InferenceSession(
            model, providers=["CPUExecutionProvider"]
        )
        patches = draw_patches(1)
        (found,) = session.run(["probabilities"], {"patches": patches})
        np.testing.assert_allclose(found, compute(1, patches), rtol=0, atol=1e-5)


def read_labels(members):
    return {
        domain["name"]: tuple(PackedLabel(**label) for label in domain["labels"])
        for domain in json.loads(members["model.json"])["domains"]
    }
