import pytest
from tensorflow.core.framework import tensor_shape_pb2, versions_pb2

from u2net_tf import protocol_buffers


def test_reads_what_protobuf_writes():
    message = versions_pb2.VersionDef(producer=300, bad_consumers=[1])
    assert protocol_buffers.read(message.SerializeToString()).number(1) == 300
    shape = tensor_shape_pb2.TensorShapeProto()
    for size, name in ((3, "z"), (1 << 40, ""), (0, "größe")):
        shape.dim.add(size=size, name=name)
    dims = protocol_buffers.read(shape.SerializeToString()).messages(2)
    assert [(dim.number(1), dim.text(2)) for dim in dims] == [
        (3, "z"),
        (1 << 40, ""),
        (0, "größe"),
    ]


def test_fixed_widths():
    data = bytes([0x35, 1, 2, 0, 0, 0x39, 1, 0, 0, 0, 0, 0, 0, 1])
    message = protocol_buffers.read(data)
    assert (message.number(6), message.number(7)) == (513, (1 << 56) + 1)


def test_fields_in_order():
    data = bytes([0x08, 5, 0x12, 2, 0x61, 0x62, 0x08, 6])
    fields = list(protocol_buffers.read_fields(data))
    assert [tuple(field) for field in fields] == [
        (1, 5, 0, 2),
        (2, b"ab", 2, 6),
        (1, 6, 6, 8),
    ]
    message = protocol_buffers.read(data)
    assert message.fields() == {1, 2}
    assert message.numbers(1) == [5, 6]
    with pytest.raises(ValueError, match="bytes in place of the numbers of field 2"):
        message.numbers(2)


@pytest.mark.parametrize(
    ("number", "size"), [(1, 0), (15, 127), (16, 128), (900, 70000)]
)
def test_writes_what_it_reads(number, size):
    written = protocol_buffers.write_bytes(number, b"x" * size)
    (field,) = protocol_buffers.read_fields(written)
    assert tuple(field) == (number, b"x" * size, 0, len(written))


def test_empty_message():
    message = protocol_buffers.read(b"")
    assert (message.number(1), message.text(2), message.messages(3)) == (0, "", [])


@pytest.mark.parametrize(
    "data",
    [b"\x08", b"\x08" + b"\xff" * 11, b"\x12\x05abc", b"\x35\1", b"\x0f", b"\x0b"],
)
def test_invalid_bytes(data):
    with pytest.raises(ValueError, match="not a "):
        protocol_buffers.read(data)


def test_wrong_type():
    message = protocol_buffers.read(b"\x08\x01\x12\x01a")
    with pytest.raises(ValueError, match="a number in place of the bytes of field 1"):
        message.messages(1)
    with pytest.raises(ValueError, match="bytes in place of the number of field 2"):
        message.number(2)
