"""Writes kernels in the intermediate representation (IR) of Triton.

XLA for a GPU compiles such a kernel where a custom call contains it as text. A kernel
is a function of pointers that many programs run, each on a block of elements. A value
is a scalar or a block of values; operators on `Value` write the operations of Triton
and MLIR's dialect `arith`.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence

# Names of dtypes in the IR.
DTYPES = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
_POINTER = "!tt.ptr<{}>"
# XLA aligns its buffers to at least this many bytes.
_ALIGNMENT = 16


@dataclasses.dataclass(frozen=True)
class Value:
    """A scalar or a block of scalars in a kernel.

    An operand may be an int or float, and a scalar combined with a block is repeated.
    Division and remainder are those of integers that are not negative.

    Attributes:
      kernel: the kernel that computes it.
      name: its name in the IR.
      dtype: "i1", "i32", "i64", a float dtype, or a pointer to a dtype.
      is_block: whether it is a block.
    """

    kernel: Kernel
    name: str
    dtype: str
    is_block: bool

    @property
    def type(self) -> str:
        """Its type in the IR."""
        return self.kernel.type_of(self.dtype, self.is_block)

    def __add__(self, other: Operand) -> Value:
        if self.dtype.startswith("!"):
            return self.kernel.move_pointer(self, other)
        return self.kernel.binary("add", self, other)

    def __sub__(self, other: Operand) -> Value:
        return self.kernel.binary("sub", self, other)

    def __mul__(self, other: Operand) -> Value:
        return self.kernel.binary("mul", self, other)

    def __floordiv__(self, other: Operand) -> Value:
        return self.kernel.binary("divs", self, other)

    def __mod__(self, other: Operand) -> Value:
        return self.kernel.binary("rems", self, other)

    def __and__(self, other: Operand) -> Value:
        return self.kernel.binary("and", self, other)

    def __lt__(self, other: Operand) -> Value:
        return self.kernel.compare("slt", self, other)

    def __ge__(self, other: Operand) -> Value:
        return self.kernel.compare("sge", self, other)

    def minimum(self, other: Operand) -> Value:
        """Returns the smaller of two integers."""
        return self.kernel.binary("mins", self, other)

    def maximum(self, other: Operand) -> Value:
        """Returns the larger of two integers."""
        return self.kernel.binary("maxs", self, other)

    def to(self, dtype: str) -> Value:
        """Converts an i32 to i64, or a float to another float dtype."""
        if dtype == self.dtype:
            return self
        if dtype == "i64":
            operation = "extsi"
        else:
            operation = "extf" if dtype == "f32" else "truncf"
        return self.kernel.convert(operation, self, dtype)


Operand = Value | int | float


class Loop:
    """A loop of a kernel over consecutive integers, with values that it carries.

    Attributes:
      index: the integer, a scalar i32.
      carried: the values at the start of an iteration.
      results: the values after the last iteration, once the loop has been left.
    """

    def __init__(self, index: Value, carried: Sequence[Value]):
        self.index = index
        self.carried = list(carried)
        self.results: list[Value] = []

    def carry(self, values: Sequence[Value]) -> None:
        """Sets the values of the next iteration; called once, at the end."""
        self.results = list(values)


class Kernel:
    """A kernel that is being written.

    Args:
      name: name of the function.
      arguments: name -> dtype of the elements, for each array, inputs before outputs.
      block: number of elements of a block, a power of two.
    """

    def __init__(self, name: str, arguments: Mapping[str, str], block: int):
        self.name = name
        self.block = block
        self._arguments = arguments
        self._constants: dict[tuple[str, str, bool], Value] = {}
        self._lines: list[str] = []
        self._indent = 2
        self._num_names = 0

    def type_of(self, dtype: str, is_block: bool) -> str:
        """Returns the type of a scalar or block in the IR."""
        return f"tensor<{self.block}x{dtype}>" if is_block else dtype

    def pointer(self, argument: str) -> Value:
        """Returns the pointer to the first element of an array."""
        dtype = _POINTER.format(self._arguments[argument])
        return Value(self, f"%{argument}", dtype, False)

    def program(self) -> Value:
        """Returns the index of the program, a scalar i32."""
        return self._operation("tt.get_program_id x : i32", "i32", False)

    def lanes(self) -> Value:
        """Returns the block 0, 1, …, i32."""
        kind = self.type_of("i32", True)
        text = f"tt.make_range {{end = {self.block} : i32, start = 0 : i32}} : {kind}"
        return self._operation(text, "i32", True)

    def constant(self, value: float, dtype: str, is_block: bool = False) -> Value:
        """Returns a constant; a block repeats it."""
        text = repr(float(value) if dtype in DTYPES.values() else int(value))
        key = (text, dtype, is_block)
        if key not in self._constants:
            name = f"%c{len(self._constants)}"
            self._constants[key] = Value(self, name, dtype, is_block)
        return self._constants[key]

    def binary(self, name: str, first: Value, second: Operand) -> Value:
        """Returns a result of MLIR's arithmetic on two values of the same dtype."""
        first, second = self._matched(first, second)
        suffix = "f" if first.dtype in DTYPES.values() else "i"
        text = f"arith.{name}{suffix} {first.name}, {second.name} : {first.type}"
        return self._operation(text, first.dtype, first.is_block)

    def compare(self, predicate: str, first: Value, second: Operand) -> Value:
        """Returns the i1 of a comparison of integers."""
        first, second = self._matched(first, second)
        operands = f"{first.name}, {second.name}"
        text = f"arith.cmpi {predicate}, {operands} : {first.type}"
        return self._operation(text, "i1", first.is_block)

    def convert(self, name: str, value: Value, dtype: str) -> Value:
        """Returns a value in another dtype."""
        target = self.type_of(dtype, value.is_block)
        text = f"arith.{name} {value.name} : {value.type} to {target}"
        return self._operation(text, dtype, value.is_block)

    def repeated(self, value: Value) -> Value:
        """Returns a block that repeats a scalar, or a block itself."""
        if value.is_block:
            return value
        target = self.type_of(value.dtype, True)
        text = f"tt.splat {value.name} : {value.dtype} -> {target}"
        return self._operation(text, value.dtype, True)

    def move_pointer(self, pointer: Value, offset: Operand) -> Value:
        """Returns a pointer moved by a number of elements."""
        if not isinstance(offset, Value):
            offset = self.constant(offset, "i32", pointer.is_block)
        if pointer.is_block or offset.is_block:
            pointer, offset = self.repeated(pointer), self.repeated(offset)
        operands = f"{pointer.name}, {offset.name}"
        text = f"tt.addptr {operands} : {pointer.type}, {offset.type}"
        return self._operation(text, pointer.dtype, pointer.is_block)

    def load(self, pointer: Value, mask: Value | None = None) -> Value:
        """Returns the elements at a pointer, 0 where the mask is false."""
        dtype = pointer.dtype.removeprefix("!tt.ptr<").removesuffix(">")
        operands = [pointer.name]
        if mask is not None:
            operands += [mask.name, self.constant(0, dtype, pointer.is_block).name]
        text = f"tt.load {', '.join(operands)} : {pointer.type}"
        return self._operation(text, dtype, pointer.is_block)

    def store(self, pointer: Value, value: Value, mask: Value | None = None) -> None:
        """Writes the elements where the mask is true."""
        operands = [pointer.name, value.name]
        if mask is not None:
            operands.append(mask.name)
        self._write(f"tt.store {', '.join(operands)} : {pointer.type}")

    def sum(self, value: Value) -> Value:
        """Returns the sum of a block of f32."""
        name = self._new_name()
        self._write(f'{name} = "tt.reduce"({value.name}) <{{axis = 0 : i32}}> ({{')
        first, second, total = (self._new_name() for _ in range(3))
        self._write(f"^bb0({first}: f32, {second}: f32):")
        self._write(f"  {total} = arith.addf {first}, {second} : f32")
        self._write(f"  tt.reduce.return {total} : f32")
        self._write(f"}}) : ({value.type}) -> f32")
        return Value(self, name, "f32", False)

    @contextlib.contextmanager
    def loop(
        self, first: Value, end: Value, carried: Sequence[Value]
    ) -> Iterator[Loop]:
        """Writes a loop from `first` to before `end`; its body is that of `with`.

        Args:
          first: scalar i32.
          end: scalar i32.
          carried: values before the first iteration.
        """
        step = self.constant(1, "i32")
        index, result = self._new_name(), self._new_name()
        inner = [dataclasses.replace(v, name=self._new_name()) for v in carried]
        types = ", ".join(value.type for value in carried)
        starts = ", ".join(
            f"{new.name} = {old.name}" for new, old in zip(inner, carried, strict=True)
        )
        heading = f"scf.for {index} = {first.name} to {end.name} step {step.name}"
        if inner:
            heading = (
                f"{result}:{len(inner)} = {heading} iter_args({starts}) -> ({types})"
            )
        self._write(f"{heading} : i32 {{")
        self._indent += 1
        loop = Loop(Value(self, index, "i32", False), inner)
        yield loop
        if inner:
            names = ", ".join(value.name for value in loop.results)
            self._write(f"scf.yield {names} : {types}")
        self._indent -= 1
        self._write("}")
        loop.results = [
            dataclasses.replace(value, name=f"{result}#{position}")
            for position, value in enumerate(inner)
        ]

    def text(self) -> str:
        """Returns the module that contains the kernel."""
        attribute = f"{{tt.divisibility = {_ALIGNMENT} : i32}}"
        arguments = ", ".join(
            f"%{name}: {_POINTER.format(dtype)} {attribute}"
            for name, dtype in self._arguments.items()
        )
        constants = [
            f"    {value.name} = arith.constant "
            + (f"dense<{text}>" if is_block else text)
            + f" : {value.type}"
            for (text, _, is_block), value in self._constants.items()
        ]
        return "\n".join(
            [
                "module {",
                f"  tt.func public @{self.name}({arguments}) {{",
                *constants,
                *self._lines,
                "    tt.return",
                "  }",
                "}",
                "",
            ]
        )

    def _matched(self, first: Value, second: Operand) -> tuple[Value, Value]:
        """Returns two values of the same type; numbers become constants."""
        if not isinstance(second, Value):
            second = self.constant(second, first.dtype, first.is_block)
        if first.is_block or second.is_block:
            first, second = self.repeated(first), self.repeated(second)
        return first, second

    def _operation(self, text: str, dtype: str, is_block: bool) -> Value:
        name = self._new_name()
        self._write(f"{name} = {text}")
        return Value(self, name, dtype, is_block)

    def _new_name(self) -> str:
        self._num_names += 1
        return f"%v{self._num_names}"

    def _write(self, line: str) -> None:
        self._lines.append("  " * self._indent + line)
