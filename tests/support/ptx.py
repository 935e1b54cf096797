"""Execute the PTX of a kernel on a CPU, and refuse what a GPU would let pass.

All threads of all blocks advance together: an instruction is one NumPy operation over them. Where
they part, those at the lowest instruction go first, until they meet again. A `Fault` is

- a global load outside the input, a store outside the output, or an address that is not a multiple
  of what is accessed there;
- a byte of the output that is written twice, or by nobody. A kernel that reads only its input, and
  writes its output once, has no race in global memory;
- in shared memory, an access to what another thread writes between the same two barriers;
- a barrier that some threads of a block miss;
- a register that is read before any thread has written it, or an instruction that is not known
  here.

Memory begins as NaN, in halves and in floats. Subnormal floats are not flushed, and approximate
functions are exact: results may differ from a GPU's by what these change.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Threads = NDArray[np.bool_]
"""Of all blocks: which of them."""
UNIT = 2  # bytes: of the smallest type; memory is made of these
INPUT, OUTPUT = 1 << 33, 1 << 34  # addresses
NOBODY, SEVERAL = -1, -2  # instead of a thread's number
TYPES: Mapping[str, np.dtype[Any]] = {
    "pred": np.dtype(np.bool_),
    "f16": np.dtype(np.float16),
    "f32": np.dtype(np.float32),
    **{f"{kind}{bits}": np.dtype(f"u{bits // 8}") for kind in "bu" for bits in (16, 32, 64)},
    **{f"s{bits}": np.dtype(f"i{bits // 8}") for bits in (16, 32, 64)},
}
FUNCTIONS: Mapping[str, Callable[..., Any]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "mul.lo": np.multiply,
    "mul.wide": lambda a, b: _wide(a) * b,
    "mul.hi": lambda a, b: _wide(a) * b >> 32,
    "mad.lo": lambda a, b, c: a * b + c,
    "div": lambda a, b: np.fix(a / b),
    "rem": np.fmod,
    # Rounded once, nearly always: the product of two floats is exact in float64.
    "fma": lambda a, b, c: a.astype(np.float64) * b + c,
    "and": np.bitwise_and,
    "or": np.bitwise_or,
    "xor": np.bitwise_xor,
    "not": np.invert,
    "shl": np.left_shift,
    "shr": np.right_shift,
    "bfi": lambda a, b, start, length: _field(start, length, a) | b & ~_field(start, length),
    "neg": np.negative,
    "min": np.fmin,
    "max": np.fmax,
    "max.NaN": np.maximum,
    "sqrt": np.sqrt,
    "rsqrt": lambda a: 1 / np.sqrt(a, dtype=np.float64),
    "ex2": np.exp2,
    "lg2": np.log2,
    "mov": lambda a: a,
    "cvta.to.global": lambda a: a,
    "setp.eq": np.equal,
    "setp.ne": np.not_equal,
    "setp.lt": np.less,
    "setp.gt": np.greater,
    "setp.le": np.less_equal,
    "setp.ge": np.greater_equal,
}
"""By name, without the type; the result is rounded to it, but for `setp` and `mul.wide`."""
ROUNDING = {"rn", "ftz", "approx"}
UNSIGNED = {1: np.bool_, 2: np.uint16, 4: np.uint32, 8: np.uint64}
"""By the width in bytes; registers are kept so."""


class Fault(Exception):
    """A kernel does what it must not."""


class Instruction(NamedTuple):
    """`@!%p1 mul.lo.s32 %r1, %r2, 3;` has the guard "!%p1", and three operands."""

    guard: str
    op: str
    operands: tuple[str, ...]
    text: str

    @property
    def kind(self) -> str:
        """Return the last type, as "s32"; vectors and pairs have that of their elements."""
        return self.op.rpartition(".")[2].removesuffix("x2")


class Memory:
    """One or several regions, each with the same addresses, and who accessed which unit."""

    def __init__(self, address: int, regions: NDArray[np.uint16], *, is_once: bool = False) -> None:
        self.address, self.is_once = address, is_once
        self.data, self.size = regions.reshape(-1), regions.shape[-1] * UNIT
        self.forget()

    def forget(self) -> None:
        """Let every thread access everything again, as after a barrier."""
        self.reader = np.full(len(self.data), NOBODY)
        self.writer = np.full(len(self.data), NOBODY)

    def units(self, addresses: NDArray[Any], size: int, region: Any = 0) -> NDArray[np.int64]:
        """Return where in `data` the units of `size` bytes at each address are."""
        offsets = addresses - self.address
        if np.any(addresses % size):
            raise Fault(f"an address is not a multiple of {size} bytes")
        if np.any((offsets < 0) | (offsets + size > self.size)):
            raise Fault(f"access outside, at bytes {offsets.min()} to {offsets.max() + size}")
        first = (offsets + region * self.size) // UNIT
        return np.asarray(first[:, None] + np.arange(size // UNIT))

    def load(self, units: NDArray[np.int64], threads: NDArray[np.int64]) -> NDArray[np.uint16]:
        """Return units that a thread of each row reads."""
        me = threads[:, None]
        if np.any((self.writer[units] != NOBODY) & (self.writer[units] != me)):
            raise Fault("race: reads what another thread writes before the next barrier")
        is_first = (self.reader[units] == NOBODY) | (self.reader[units] == me)
        self.reader[units] = np.where(is_first, me, SEVERAL)
        self.reader[units[self.reader[units] != me]] = SEVERAL
        return self.data[units]

    def store(
        self, units: NDArray[np.int64], threads: NDArray[np.int64], values: NDArray[np.uint16]
    ) -> None:
        """Write units, a thread each row."""
        me = threads[:, None]
        if self.is_once and np.any(self.writer[units] != NOBODY):
            raise Fault("writes what was written before")
        is_others = (self.reader[units] != NOBODY) & (self.reader[units] != me)
        is_others |= (self.writer[units] != NOBODY) & (self.writer[units] != me)
        self.writer[units] = me
        if np.any(is_others | (self.writer[units] != me)):
            raise Fault("race: writes what another thread accesses before the next barrier")
        self.data[units] = values


def run(
    text: str, x: NDArray[Any], output: NDArray[Any], *, blocks: int, threads: int
) -> NDArray[Any]:
    """Launch the only entry of a PTX text with two pointers, to the input and to the output.

    Args:
        text: PTX.
        x: the input, contiguous.
        output: has the shape and dtype of the result.
        blocks: of the launch, in x.
        threads: of a block, in x.

    Raises:
        Fault: see above.
    """
    launch = _Launch(text, x, output.nbytes, blocks, threads)
    with np.errstate(all="ignore"):
        launch.run()
    return launch.output.data.view(output.dtype).reshape(output.shape)


def parsed(text: str) -> tuple[list[Instruction], dict[str, int]]:
    """Return the instructions of a text's only entry, and which of them each label is before."""
    body = text[text.index("{") + 1 : text.rindex("}")]
    program: list[Instruction] = []
    labels: dict[str, int] = {}
    for part in re.sub(r"//[^\n]*", "", body).split(";"):
        # Braces of a scope, which `.reg` follows, and not of a vector.
        statement = re.sub(r"\{(?=\s*\.reg)|^\s*\}", "", part).strip()
        while label := re.match(r"(\$\w+):\s*", statement):
            labels[label[1]] = len(program)
            statement = statement[label.end() :]
        found = re.fullmatch(r"(?:@(\S+)\s+)?([a-z][\w.]*)\s*(.*)", statement, re.DOTALL)
        if found:
            operands = re.findall(r"\{[^}]*\}|\[[^\]]*\]|[^,\s]+", found[3])
            program.append(Instruction(found[1] or "", found[2], tuple(operands), statement))
        elif statement and not statement.startswith("."):
            raise Fault(f"not understood: {statement}")
    return program, labels


class _Launch:
    def __init__(self, text: str, x: NDArray[Any], size: int, blocks: int, threads: int) -> None:
        entry = text[text.index(".entry") :]
        self.program, self.labels = parsed(entry)
        self.blocks, self.threads = blocks, np.arange(blocks * threads)
        self.input = Memory(INPUT, x.reshape(-1).view(np.uint16))
        self.output = Memory(OUTPUT, np.full(size // UNIT, 0xFFFF, np.uint16), is_once=True)
        found = re.search(r"\.shared \.align \d+ \.b8 (\w+)\[(\d+)\]", entry)
        units = int(found[2]) // UNIT if found else 0
        self.shared = Memory(0, np.full((blocks, units), 0xFFFF, np.uint16))
        self.symbols = {found[1]: 0} if found else {}
        for number, name in enumerate(re.findall(r"\.param \.u64 (\w+)", entry)):
            self.symbols[name] = (INPUT, OUTPUT)[number]
        self.registers: dict[str, NDArray[Any]] = {
            "%tid.x": (self.threads % threads).astype(np.uint32),
            "%ctaid.x": (self.threads // threads).astype(np.uint32),
        }

    def run(self) -> None:
        ready: dict[int, Threads] = {0: np.ones(len(self.threads), np.bool_)}
        waiting: dict[int, Threads] = {}
        while ready:
            number = min(ready)
            active = ready.pop(number)
            instruction = self.program[number]
            name = instruction.op.partition(".")[0]
            chosen = active & self._guarded(instruction.guard) if instruction.guard else active
            if name in ("bra", "bar", "ret"):
                if name != "ret":
                    groups = ready if name == "bra" else waiting
                    target = self.labels[instruction.operands[0]] if name == "bra" else number + 1
                    _join(groups, target, chosen)
                active = active & ~chosen
            else:
                try:
                    self._execute(instruction, chosen)
                except Fault as fault:
                    raise Fault(f"{instruction.text}: {fault}") from fault
            _join(ready, number + 1, active)
            if not ready:
                ready, waiting = self._released(waiting), {}
        if np.any(self.output.writer == NOBODY):
            raise Fault("a part of the output is written by nobody")

    def _released(self, waiting: dict[int, Threads]) -> dict[int, Threads]:
        for threads in waiting.values():
            of_block = threads.reshape(self.blocks, -1)
            if np.any(of_block.any(axis=1) != of_block.all(axis=1)):
                raise Fault("bar.sync: threads of a block miss it")
        self.shared.forget()
        return waiting

    def _guarded(self, guard: str) -> Threads:
        return self._read(guard.lstrip("!"), "pred") ^ guard.startswith("!")

    def _execute(self, instruction: Instruction, active: Threads) -> None:
        _, op, operands, _ = instruction
        if op.startswith(("ld.global", "ld.shared", "st.", "prefetch.")):
            self._access(instruction, active)
        elif op.startswith("mov.") and operands[1][0] == "{":
            size = TYPES[instruction.kind].itemsize // len(_names(operands[1]))
            self._write(operands[0], self._columns(operands[1], size), active)
        else:
            self._write(operands[0], self._computed(instruction), active)

    def _computed(self, instruction: Instruction) -> NDArray[Any]:
        _, op, (_, *operands), _ = instruction
        name, *others = op.split(".")
        if op.startswith("ld.param"):
            return self._read(operands[0].strip("[]"), "u64")[:, None]
        if name == "cvt":
            # A pair is made of its high half and its low half, in this order.
            halves = [self._read(each, instruction.kind) for each in operands[::-1]]
            return np.stack(halves, axis=1).astype(TYPES[others[-2].removesuffix("x2")])
        if name == "selp":
            a, b = (self._read(each, instruction.kind) for each in operands[:2])
            return np.where(self._read(operands[2], "pred"), a, b)[:, None]
        key = ".".join([name, *(other for other in others[:-1] if other not in ROUNDING)])
        if key not in FUNCTIONS:
            raise Fault("is not known here")
        values = [self._read(each, instruction.kind) for each in operands]
        if name in ("shl", "shr"):
            values[1] = self._read(operands[1], "u32").astype(values[0].dtype)
        result: NDArray[Any] = FUNCTIONS[key](*values)
        if name != "setp" and key != "mul.wide":
            result = result.astype(values[0].dtype)
        return result.reshape(len(self.threads), -1)

    def _access(self, instruction: Instruction, active: Threads) -> None:
        _, op, operands, _ = instruction
        is_load = op.startswith("ld")
        *names, place = operands if is_load else operands[::-1]
        addresses, threads = self._addresses(place)[active], self.threads[active]
        if not names:  # a prefetch
            self.input.units(addresses, UNIT)
            return
        memory, region = (self.input if is_load else self.output), np.zeros_like(threads)
        if ".shared" in op:
            memory, region = self.shared, threads // (len(self.threads) // self.blocks)
        size = TYPES[instruction.kind].itemsize
        units = memory.units(addresses, size * len(_names(names[0])), region)
        if is_load:
            values = np.zeros((len(active), units.shape[1]), np.uint16)
            values[active] = memory.load(units, threads)
            self._write(names[0], values, active)
        else:
            memory.store(units, threads, self._columns(names[0], size)[active].view(np.uint16))

    def _addresses(self, place: str) -> NDArray[np.int64]:
        base, _, offset = place.strip("[]").partition("+")
        start = self.registers.get(base)
        if start is None:
            start = self._read(base, "u64")
        return start.view(f"i{start.itemsize}").astype(np.int64) + int(offset or 0)

    def _read(self, operand: str, kind: str) -> NDArray[Any]:
        """Return an operand of every thread, of that type."""
        value = self.registers.get(operand)
        if value is not None:
            return value.view(TYPES[kind])
        size = TYPES[kind].itemsize
        if operand in self.symbols:
            bits = self.symbols[operand]
        elif re.fullmatch(r"0f[0-9A-F]{8}", operand):
            bits = int(operand[2:], 16)
        elif re.fullmatch(r"-?\d+", operand):
            bits = int(operand) % (1 << 8 * size)
        else:
            raise Fault(f"{operand} is read before it is written")
        return np.full(len(self.threads), bits, UNSIGNED[size]).view(TYPES[kind])

    def _columns(self, names: str, size: int) -> NDArray[Any]:
        """Return the operands in "{a, b}", of `size` bytes each: (threads, 2)."""
        return np.stack([self._read(each, f"b{8 * size}") for each in _names(names)], axis=1)

    def _write(self, operand: str, columns: NDArray[Any], active: Threads) -> None:
        """Write (threads, n) values, which together fill the registers of `operand`."""
        names = _names(operand)
        dtype = UNSIGNED[columns.itemsize * columns.shape[1] // len(names)]
        for name, value in zip(names, columns.view(dtype).T, strict=True):
            register = self.registers.setdefault(name, np.zeros(len(active), dtype))
            np.copyto(register, value, where=active)


def _join(groups: dict[int, Threads], number: int, threads: Threads) -> None:
    """Add threads to those that go on at an instruction."""
    if threads.any():
        groups[number] = groups[number] | threads if number in groups else threads


def _names(operand: str) -> list[str]:
    return re.findall(r"[^\s,{}]+", operand)


def _field(start: NDArray[Any], length: NDArray[Any], a: Any = -1) -> NDArray[Any]:
    """Return the bits of `a` moved to a field of that many bits, the others 0."""
    bits = (1 << length.astype(np.int64)) - 1
    return np.asarray((a & bits) << start.astype(np.int64)).astype(np.uint32)


def _wide(a: NDArray[Any]) -> NDArray[Any]:
    return a.astype(np.uint64 if a.dtype.kind == "u" else np.int64)
