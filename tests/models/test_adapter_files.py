"""Adapter files: round trips, and errors about damaged files."""

import dataclasses
import json
import struct

import numpy as np
import pytest
import safetensors.numpy
import toy

from u2net_tf.errors import InputError
from u2net_tf.models import adapter_files, adapter_table
from u2net_tf.models.adapter_files import Adapter, AdapterFile
from u2net_tf.models.array_checksum import checksum_of_arrays
from u2net_tf.models.case_names import without_case_names
from u2net_tf.models.spec import MODEL, ModelSpec
from u2net_tf.plan.domains import Plan

SPEC = ModelSpec(plan=Plan((toy.ONE,)), pools=(1, 1, 1), base_channels=4)
VALUES = {
    "stem/kernel": np.arange(6, dtype=np.float32).reshape(2, 3) / 7,
    "head/bias": np.array([-1, 1e-3], np.float32),
}
ADAPTER = Adapter(SPEC, "a" * 64, VALUES, licence="CC-BY-4.0", card="# Organ\n\tgood")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "x.safetensors"
    path.write_bytes(adapter_files.to_bytes(ADAPTER))
    return path


def header_of(content):
    (size,) = struct.unpack("<Q", content[:8])
    return json.loads(content[8 : 8 + size]), content[8 + size :]


def with_header(content, change):
    """The file with a changed header and unchanged values."""
    header, values = header_of(content)
    change(header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


def with_metadata(content, **changes):
    def change(header):
        fields = json.loads(header["__metadata__"][adapter_files.KEY])
        header["__metadata__"][adapter_files.KEY] = json.dumps({**fields, **changes})

    return with_header(content, change)


class TestRoundTrip:
    def test_float32_is_exact_and_has_no_case_names(self, path):
        file = AdapterFile(path)
        found = file.read()
        assert found.spec == without_case_names(SPEC)
        assert b"one_0" not in path.read_bytes()
        assert found.variables.keys() == VALUES.keys()
        for name, array in VALUES.items():
            np.testing.assert_array_equal(found.variables[name], array, strict=True)
        assert (found.licence, found.card) == ("CC-BY-4.0", "# Organ\n\tgood")
        assert file.metadata.trunk_sha256 == "a" * 64
        assert file.metadata.variables_sha256 == checksum_of_arrays(VALUES)
        assert (file.name, file.num_parameters) == (toy.ONE.name, 8)
        assert file.shapes == {"stem/kernel": (2, 3), "head/bias": (2,)}

    def test_float16_is_rounded_and_its_checksum_is_that_of_float32(self, path):
        content = adapter_files.to_bytes(ADAPTER, "float16")
        path.write_bytes(content)
        file = AdapterFile(path)
        found = file.read()
        assert file.precision == "float16"
        for name, array in VALUES.items():
            rounded = array.astype(np.float16).astype(np.float32)
            np.testing.assert_array_equal(found.variables[name], rounded, strict=True)
        assert file.metadata.variables_sha256 == checksum_of_arrays(found.variables)
        # Rounding again changes nothing.
        assert adapter_files.to_bytes(found, "float16") == content

    def test_the_same_adapter_is_the_same_file(self, path):
        others = dict(reversed(VALUES.items()))
        again = dataclasses.replace(ADAPTER, variables=others)
        assert adapter_files.to_bytes(again) == path.read_bytes()

    def test_other_programs_read_it(self, path):
        found = safetensors.numpy.load_file(path)
        np.testing.assert_array_equal(found["head/bias"], VALUES["head/bias"])


@pytest.mark.parametrize(
    ("value", "precision", "words"),
    [
        (np.nan, "float32", "finite float32 values in head/bias. Received: nan; 1 of"),
        (np.inf, "float32", "finite float32 values in head/bias. Received: inf"),
        (1e5, "float16", "finite float16 values in head/bias. Received: inf"),
    ],
)
def test_values_that_cannot_be_written(value, precision, words):
    values = {**VALUES, "head/bias": np.array([0, value], np.float32)}
    with pytest.raises(InputError, match=f"^domain Task91_One: expected {words}"):
        adapter_files.to_bytes(
            dataclasses.replace(ADAPTER, variables=values), precision
        )


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"licence": "a\nb"}, "licence: expected one line of at most 200"),
        ({"licence": "a\tb"}, "licence: expected one line of at most 200"),
        ({"licence": "\x9b2J"}, "licence: expected one line of at most 200"),
        ({"licence": "x" * 201}, "licence: expected one line"),
        (
            {"card": "\x1b[2J"},
            r"card: .* without control .* Received: text with '\\x1b'",
        ),
        ({"card": "x" * 100_001}, "card: expected .* Received: 100,001 characters"),
        ({"trunk_sha256": "A" * 64}, "trunk_sha256: expected"),
    ],
)
def test_texts_unsuitable_for_a_terminal(path, changes, words):
    path.write_bytes(with_metadata(path.read_bytes(), **changes))
    with pytest.raises(InputError, match=words):
        AdapterFile(path)


def damaged(content):
    """Name -> content of a damaged or foreign file, and its error message."""
    header, values = header_of(content)
    spec = MODEL.to_dict(SPEC)
    two = MODEL.to_dict(ModelSpec(plan=toy.PLAN, pools=(1, 1, 1), base_channels=4))
    foreign = safetensors.numpy.save(VALUES, metadata={"format": "pt"})
    no_json = with_header(
        content, lambda h: h["__metadata__"].update({adapter_files.KEY: "{x"})
    )
    huge = struct.pack("<Q", 2**40) + content[8:]
    nan = bytearray(content)
    nan[-4:] = np.array([np.nan], np.float32).tobytes()
    other = bytearray(content)
    other[-1] ^= 1

    def wrong_offsets(h):
        h["stem/kernel"]["data_offsets"][1] += 4

    def wrong_shape(h):
        h["stem/kernel"]["shape"] = [2**31, 2**31]

    return {
        "empty": (b"", "a damaged file|no such"),
        "truncated": (content[:-3], "a damaged file"),
        "longer": (content + b"more", "a damaged file"),
        "text": (b"not a tensor in sight", "a damaged file"),
        "huge header": (huge, "a damaged file"),
        "offsets": (with_header(content, wrong_offsets), "a damaged file"),
        "shape": (with_header(content, wrong_shape), "a damaged file"),
        "foreign": (foreign, "key u2net_tf.adapter. Received: .*: format"),
        "no metadata": (safetensors.numpy.save(VALUES), "metadata keys: none"),
        "no JSON": (no_json, "expected an adapter written by .*export`"),
        "later format": (with_metadata(content, format=9), "format: expected .* to 1"),
        "unknown field": (with_metadata(content, more=1), "more: expected no field"),
        "model of none": (with_metadata(content, model={}), "x.safetensors: model"),
        "model of text": (with_metadata(content, model="x"), "model: expected an obj"),
        "model of two": (with_metadata(content, model=two), "model: expected one dom"),
        "large": (
            with_metadata(content, model={**spec, "base_channels": 10**9}),
            "base_channels",
        ),
        "int": (
            safetensors.numpy.save(
                {"a": np.zeros(3, np.int32)}, metadata=header["__metadata__"]
            ),
            "expected variables that are all F32 or all F16. Received: I32",
        ),
        "nothing": (
            safetensors.numpy.save({}, metadata=header["__metadata__"]),
            "all F32 or all F16. Received: none",
        ),
        "NaN": (bytes(nan), "expected finite float32 values in stem/kernel"),
        "another bit": (
            bytes(other),
            "variables with the recorded SHA-256 .*damaged or edited",
        ),
        "other names": (
            with_header(content, lambda h: h.update({"x": h.pop("head/bias")})),
            "variables with the recorded SHA-256",
        ),
    }


KINDS = list(damaged(adapter_files.to_bytes(ADAPTER)))


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_and_foreign_files_are_reported(path, kind):
    content, words = damaged(path.read_bytes())[kind]
    path.write_bytes(content)
    with pytest.raises(InputError, match=words) as caught:
        AdapterFile(path).read()
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_every_truncation_and_many_changed_bytes_are_errors(path):
    content = path.read_bytes()
    generator = np.random.default_rng(0)
    changed = bytearray(content)
    for _ in range(300):
        position = int(generator.integers(len(content)))
        changed[position] ^= 1 << int(generator.integers(8))
        path.write_bytes(bytes(changed))
        try:
            found = AdapterFile(path).read()
        except InputError:
            pass
        else:
            # The changed byte is in a text for people.
            assert checksum_of_arrays(found.variables) == checksum_of_arrays(VALUES)
        changed = bytearray(content)
    for size in range(0, len(content), 97):
        path.write_bytes(content[:size])
        with pytest.raises(InputError):
            AdapterFile(path)


def test_texts_with_no_break_spaces(path):
    texts = {"licence": "CC\N{NO-BREAK SPACE}BY", "card": "5\N{NO-BREAK SPACE}mm"}
    path.write_bytes(with_metadata(path.read_bytes(), **texts))
    found = AdapterFile(path).metadata
    assert [found.licence, found.card] == list(texts.values())


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(InputError, match="x: expected an adapter .*: no such"):
        AdapterFile(tmp_path / "x")
    with pytest.raises(InputError, match="Received: a folder"):
        AdapterFile(tmp_path)


@pytest.mark.parametrize(
    ("expected", "words"),
    [
        ({"stem/kernel": (2, 3)}, "the 1 variables .* Received: head/bias of shape"),
        (
            {"stem/kernel": (2, 3), "head/bias": (3,)},
            r"head/bias of shape \(3,\), according to its plan. Received: .* \(2,\)",
        ),
        (
            {"stem/kernel": (2, 3), "head/bias": (2,), "more": (1,)},
            r"expected more of shape \(1,\).* Received: none",
        ),
    ],
)
def test_variables_of_another_network(path, expected, words):
    with pytest.raises(InputError, match=words):
        AdapterFile(path).require_shapes(expected)


def test_table(path):
    bare = path.with_name("bare.safetensors")
    other = dataclasses.replace(ADAPTER, licence="", card="")
    bare.write_bytes(adapter_files.to_bytes(other, "float16"))
    files = [AdapterFile(path), AdapterFile(bare)]
    table = adapter_table.table_of_files(files)
    first, second = table.splitlines()[2:4]
    assert "CC-BY-4.0" in first
    assert "float32" in first
    assert second.split()[-2:] == ["not", "stated"]
    assert table.endswith(f"\n\n{path}:\n# Organ\n\tgood")
    for trunk, word in (("a" * 64, "yes"), ("b" * 64, "no")):
        fits = adapter_table.table_of_files(files, spec=SPEC, trunk=trunk)
        assert fits.splitlines()[2].endswith(word)


def test_table_escapes_what_controls_a_terminal(path):
    domain = dataclasses.replace(toy.ONE, modalities=("C\x1b[2JT",))
    spec = dataclasses.replace(SPEC, plan=Plan((domain,)))
    adapter = dataclasses.replace(ADAPTER, spec=spec)
    path.write_bytes(adapter_files.to_bytes(adapter))
    assert "C\\u001b[2JT" in adapter_table.table_of_files([AdapterFile(path)])
