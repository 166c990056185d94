"""Runs Triton kernels on a CPU, from their text, with NumPy.

Knows the operations that `triton_language` writes. Fails where a kernel reads or writes
outside of an array, writes an element twice, or leaves an element unwritten.
"""

import re

import numpy as np
import tensorflow as tf

DTYPES = {
    "i1": np.bool_,
    "i32": np.int32,
    "i64": np.int64,
    "f32": np.float32,
    "f16": np.float16,
    "bf16": tf.bfloat16.as_numpy_dtype,
}
BINARY = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "divs": np.floor_divide,
    "rems": np.remainder,
    "and": np.bitwise_and,
    "mins": np.minimum,
    "maxs": np.maximum,
}
COMPARISONS = {"slt": np.less, "sge": np.greater_equal}
ASSIGNED = re.compile(r"(?:(%\w+)(?::\d+)? = )?(.*)")
NAMES = re.compile(r"%\w+(?:#\d+)?")


def launch(program, operands, shape, dtype):
    """Replaces `operations.launch`, also in graphs that XLA does not compile."""

    def compute(*arrays):
        outputs = np.zeros(shape, dtype.as_numpy_dtype)
        run(program.kernel.text(), program.num_programs, [*arrays, outputs])
        return outputs

    outputs = tf.numpy_function(compute, list(operands), dtype)
    return tf.ensure_shape(outputs, shape)


def run(text, num_programs, arrays):
    """Runs all programs of a module with one kernel.

    Args:
        text: the module.
        num_programs: number of programs.
        arrays: the arguments in order; the last is written.
    """
    lines = [line.strip() for line in text.splitlines()]
    (heading,) = (line for line in lines if line.startswith("tt.func"))
    names = re.findall(r"(%\w+): !tt.ptr", heading)
    memory = dict(zip(names, (array.reshape(-1) for array in arrays), strict=True))
    written = np.zeros(arrays[-1].size, int)
    body = lines[lines.index(heading) + 1 : lines.index("tt.return")]
    for program in range(num_programs):
        pointers = {name: (name, np.int64(0)) for name in names}
        _Program(memory, written, program, names[-1]).run(body, pointers)
    assert np.all(written == 1), f"written once: {np.mean(written == 1):.0%}"


class _Program:
    def __init__(self, memory, written, program, output):
        self.memory, self.written = memory, written
        self.program, self.output = program, output

    def run(self, lines, values):
        """Runs lines; returns the operands of the last if it is a yield."""
        position = 0
        while position < len(lines):
            line = lines[position]
            position += 1
            if line.startswith("scf.yield"):
                return [values[name] for name in NAMES.findall(line)]
            if line.startswith("tt.store"):
                self._store(line, values)
                continue
            name, operation = ASSIGNED.fullmatch(line).groups()
            if operation.startswith("scf.for"):
                end = position + lines[position:].index("}")
                self._loop(name, operation, lines[position:end], values)
                position = end + 1
            elif operation.startswith('"tt.reduce"'):
                total = NAMES.findall(operation)[0]
                assert "arith.addf" in lines[position + 1]
                values[name] = np.float32(values[total].sum(dtype=np.float32))
                position += 4
            else:
                values[name] = self._value(operation, values)
        return None

    def _loop(self, name, heading, body, values):
        index, first, end, step, *pairs = NAMES.findall(heading)
        carried = [values[old] for old in pairs[1::2]]
        for i in range(values[first], values[end], values[step]):
            inner = dict(zip(pairs[::2], carried, strict=True))
            carried = self.run(body, values | {index: np.int32(i)} | inner) or []
        for position, value in enumerate(carried):
            values[f"{name}#{position}"] = value

    def _value(self, operation, values):
        kind, _, rest = operation.partition(" ")
        operands = [values[name] for name in NAMES.findall(rest)]
        types = rest.rpartition(" : ")[2]
        if kind == "tt.get_program_id":
            return np.int32(self.program)
        if kind == "tt.make_range":
            return np.arange(int(re.search(r"end = (\d+)", rest)[1]), dtype=np.int32)
        if kind == "arith.constant":
            return self._constant(rest, types)
        if kind == "tt.splat":
            size = int(re.search(r"-> tensor<(\d+)x", rest)[1])
            return self._repeat(operands[0], size)
        if kind == "tt.addptr":
            (name, place), offset = operands
            return name, place + offset.astype(np.int64)
        if kind == "tt.load":
            return self._load(*operands)
        name = kind.removeprefix("arith.")
        if name == "cmpi":
            return COMPARISONS[rest.partition(",")[0]](*operands)
        if name in ("extsi", "extf", "truncf"):
            target = types.partition(" to ")[2]
            dtype = target.removesuffix(">").rpartition("x")[2]
            return operands[0].astype(DTYPES[dtype])
        first, second = operands
        assert first.dtype == second.dtype
        return BINARY[name[:-1]](first, second)

    def _constant(self, text, kind):
        match = re.fullmatch(r"tensor<(\d+)x(\w+)>", kind)
        value = text.partition(" : ")[0]
        if match is None:
            return DTYPES[kind](float(value))
        number = float(value.removeprefix("dense<").removesuffix(">"))
        return np.full(int(match[1]), number).astype(DTYPES[match[2]])

    def _repeat(self, value, size):
        if isinstance(value, tuple):
            return value[0], np.repeat(value[1], size)
        return np.repeat(value, size)

    def _checked(self, pointer, mask):
        name, places = pointer
        used = places[mask] if mask is not None else np.atleast_1d(places)
        assert np.all((used >= 0) & (used < self.memory[name].size)), f"outside {name}"
        return self.memory[name], used

    def _load(self, pointer, mask=None, other=None):
        array, used = self._checked(pointer, mask)
        if mask is None:
            return array[pointer[1]]
        loaded = other.copy()
        loaded[mask] = array[used]
        return loaded

    def _store(self, line, values):
        pointer, value, *masks = (values[name] for name in NAMES.findall(line))
        array, used = self._checked(pointer, masks[0] if masks else None)
        assert pointer[0] == self.output
        array[used] = value[masks[0]] if masks else value
        self.written[used] += 1
