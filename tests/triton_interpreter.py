"""Runs Triton kernels on a CPU, from their text, with NumPy.

Knows the operations that `triton.language` writes. Fails where a kernel reads or writes
outside of an array, writes an element twice, or leaves an element unwritten; where an
i32 overflows; and where a value has another type than the text states, which Triton's
compiler would reject.
"""

import functools
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
NAMES_OF_DTYPES = {np.dtype(dtype): name for name, dtype in DTYPES.items()}
FLOATS = ("f32", "f16", "bf16")


def divide(first, second):
    """Divides integers as `arith.divsi` does: rounds towards zero."""
    return (first - np.fmod(first, second)) // second


BINARY = {
    "arith.addi": np.add,
    "arith.subi": np.subtract,
    "arith.muli": np.multiply,
    "arith.divsi": divide,
    "arith.remsi": np.fmod,
    "arith.andi": np.bitwise_and,
    "arith.minsi": np.minimum,
    "arith.maxsi": np.maximum,
    "arith.addf": np.add,
    "arith.subf": np.subtract,
    "arith.mulf": np.multiply,
}
COMPARISONS = {"slt": np.less, "sge": np.greater_equal}
# Operation -> dtypes that it converts from and to.
CONVERSIONS = {
    "arith.extsi": (("i32", "i64"),),
    "arith.extf": (("f16", "f32"), ("bf16", "f32")),
    "arith.truncf": (("f32", "f16"), ("f32", "bf16")),
}
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
    written = np.zeros(arrays[-1].size, int)
    for program in range(num_programs):
        run_program(text, program, arrays, written)
    assert np.all(written == 1), f"written once: {np.mean(written == 1):.0%}"


def run_program(text, program, arrays, written):
    """Runs one program of a module with one kernel.

    Args:
        text: the module.
        program: index of the program.
        arrays: the arguments in order; the last is written.
        written: counts for each element of the last how often it has been written.
    """
    arguments, body = _parse(text)
    memory = {}
    for (name, dtype), array in zip(arguments, arrays, strict=True):
        assert array.dtype == DTYPES[dtype], f"{name}: {dtype}, {array.dtype}"
        memory[name] = array.reshape(-1)
    pointers = {name: (name, np.int64(0)) for name in memory}
    _Program(memory, written, program, [*memory][-1]).run(body, pointers)


@functools.lru_cache(maxsize=1)
def _parse(text):
    """Returns names and dtypes of the arguments, and the lines of the body."""
    lines = [line.strip() for line in text.splitlines()]
    (heading,) = (line for line in lines if line.startswith("tt.func"))
    arguments = re.findall(r"(%\w+): !tt.ptr<(\w+)>", heading)
    return arguments, lines[lines.index(heading) + 1 : lines.index("tt.return")]


class _Program:
    def __init__(self, memory, written, program, output):
        self.memory, self.written = memory, written
        self.program, self.output = program, output

    def element(self, value):
        """Returns the dtype of a value's elements in the text."""
        if isinstance(value, tuple):
            return f"!tt.ptr<{self.element(self.memory[value[0]])}>"
        return NAMES_OF_DTYPES[value.dtype]

    def type(self, value, element=None):
        """Returns the type of a value in the text, or that with other elements."""
        places = value[1] if isinstance(value, tuple) else value
        element = element or self.element(value)
        return f"tensor<{places.size}x{element}>" if places.ndim else element

    def check(self, line, stated, *values):
        """Checks that all values have the type that the text states."""
        found = [self.type(value) for value in values]
        assert all(each == stated for each in found), f"types {found}: {line}"

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
            assert name not in values, f"assigned twice: {line}"
            if operation.startswith("scf.for"):
                end = position + lines[position:].index("}")
                self._loop(name, operation, lines[position:end], values)
                position = end + 1
            elif operation.startswith('"tt.reduce"'):
                values[name] = self._sum(line, lines[position:], values)
                position += 4
            else:
                values[name] = self._value(operation, values)
        return None

    def _loop(self, name, heading, body, values):
        index, first, end, step, *pairs = NAMES.findall(heading)
        carried = [values[old] for old in pairs[1::2]]
        types = re.findall(r"[^(), ]+(?=[,)])", heading.partition(" -> ")[2])
        limits = [values[limit] for limit in (first, end, step)]
        self.check(heading, "i32", *limits)
        for i in range(*limits):
            self._check_each(heading, types, carried)
            inner = dict(zip(pairs[::2], carried, strict=True))
            carried = self.run(body, values | {index: np.int32(i)} | inner) or []
        self._check_each(heading, types, carried)
        for position, value in enumerate(carried):
            values[f"{name}#{position}"] = value

    def _check_each(self, line, types, values):
        for stated, value in zip(types, values, strict=True):
            self.check(line, stated, value)

    def _sum(self, line, body, values):
        total = values[NAMES.findall(line)[1]]
        first, second = NAMES.findall(body[0])
        result = NAMES.findall(body[1])[0]
        assert body[:4] == [
            f"^bb0({first}: f32, {second}: f32):",
            f"{result} = arith.addf {first}, {second} : f32",
            f"tt.reduce.return {result} : f32",
            f"}}) : ({self.type(total, 'f32')}) -> f32",
        ]
        self.check(line, self.type(total, "f32"), total)
        return total.sum(dtype=np.float32)

    def _value(self, operation, values):
        kind, _, rest = operation.partition(" ")
        operands = [values[name] for name in NAMES.findall(rest)]
        types = rest.rpartition(" : ")[2]
        if kind == "tt.get_program_id":
            return np.int32(self.program)
        if kind == "tt.make_range":
            first, end = (
                int(re.search(rf"{key} = (\d+)", rest)[1]) for key in ("start", "end")
            )
            lanes = np.arange(first, end, dtype=np.int32)
            self.check(operation, types, lanes)
            return lanes
        if kind == "arith.constant":
            return self._constant(rest, types)
        if kind == "tt.splat":
            own, _, target = types.partition(" -> ")
            self.check(operation, own, *operands)
            repeated = self._repeat(*operands, int(re.search(r"<(\d+)x", target)[1]))
            self.check(operation, target, repeated)
            return repeated
        if kind == "tt.addptr":
            self._check_each(operation, types.split(", "), operands)
            (name, place), offset = operands
            assert place.ndim == offset.ndim, operation
            return name, place + offset.astype(np.int64)
        if kind == "tt.load":
            self.check(operation, types, operands[0])
            return self._load(*operands)
        if kind in CONVERSIONS:
            return self._converted(kind, operation, types.split(" to "), *operands)
        self.check(operation, types, *operands)
        if kind == "arith.cmpi":
            assert self.element(operands[0]) not in FLOATS, operation
            return COMPARISONS[rest.partition(",")[0]](*operands)
        return self._binary(kind, operation, *operands)

    def _binary(self, kind, operation, first, second):
        element = self.element(first)
        assert (element in FLOATS) == kind.endswith("f"), operation
        if element != "i32":
            return BINARY[kind](first, second)
        exact = BINARY[kind](first.astype(np.int64), second.astype(np.int64))
        result = exact.astype(np.int32)
        assert np.all(result == exact), f"i32 overflows: {operation}"
        return result

    def _converted(self, kind, operation, types, value):
        own, target = types
        self.check(operation, own, value)
        element = target.removesuffix(">").rpartition("x")[2]
        assert (self.element(value), element) in CONVERSIONS[kind], operation
        converted = value.astype(DTYPES[element])
        self.check(operation, target, converted)
        return converted

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
        self.check("mask", self.type(pointer, "i1"), mask)
        self.check("other", self.type(pointer, self.element(array)), other)
        loaded = other.copy()
        loaded[mask] = array[used]
        return loaded

    def _store(self, line, values):
        pointer, value, *masks = (values[name] for name in NAMES.findall(line))
        array, used = self._checked(pointer, masks[0] if masks else None)
        self.check(line, line.rpartition(" : ")[2], pointer)
        self.check(line, self.type(pointer, self.element(array)), value)
        self.check(line, self.type(pointer, "i1"), *masks)
        assert pointer[0] == self.output
        array[used] = value[masks[0]] if masks else value
        self.written[used] += 1
