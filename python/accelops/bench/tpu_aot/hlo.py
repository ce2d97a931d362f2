"""Reads the text of a module that XLA has optimised for a TPU: the instructions of its entry computation with the cycles
that the compiler estimated for them, and which arguments the results alias.

An instruction's line holds its cycles as `"estimated_cycles":"N"` in its backend_config. Pallas kernels have none.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

PALLAS = "tpu_custom_call"

_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (?:\(.*?\)|\S+) ([\w\-]+)\(")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_CYCLES = re.compile(r'"estimated_cycles":"(\d+)"')
_ALIAS = re.compile(r"\{[\d, ]*\}: \((\d+), \{[\d, ]*\}, (?:may|must)-alias\)")

# What moves nothing, or is part of what its consumer costs.
_FREE = frozenset(("parameter", "constant", "bitcast", "tuple", "get-tuple-element", "after-all", "partition-id", "replica-id", "iota"))  # fmt: skip
_FREE_CALLS = ("ConcatBitcast", "AllocateBuffer")  # custom calls that are no more than a bitcast
_COLLECTIVES = ("all-reduce", "reduce-scatter", "all-gather", "all-to-all", "collective-permute")


@dataclass(frozen=True)
class Instruction:
    """`cycles` is None where the compiler estimated none; `kernel`: it is a Pallas kernel."""

    name: str
    opcode: str
    cycles: int | None
    kernel: bool = False

    @property
    def collective(self) -> bool:
        """It starts a collective, or is one; the end of an asynchronous one does not count again."""
        return self.opcode.removesuffix("-start") in _COLLECTIVES

    @property
    def unmodelled(self) -> bool:
        """It takes time of which HLO cycles know nothing. What is asynchronous runs beside the others and is not meant."""
        of_a_collective = self.opcode.removesuffix("-done").removesuffix("-start") in _COLLECTIVES
        return self.cycles is None and (
            of_a_collective or self.opcode in ("while", "conditional", "call", "custom-call")
        )


def entry(text: str) -> list[Instruction]:
    """The instructions of the entry computation that take time, in order. Raises ValueError for text that has none."""
    _, found, body = text.partition("\nENTRY ")
    if not found:
        raise ValueError("expected the text of an HLO module; no computation in it begins with ENTRY")
    instructions = []
    for line in body.partition("\n}")[0].splitlines()[1:]:
        match = _INSTRUCTION.match(line)
        if match is None or match[2] in _FREE:
            continue
        cycles, called = _CYCLES.search(line), _TARGET.search(line)
        target = called[1] if called else ""
        if target not in _FREE_CALLS:
            instructions.append(Instruction(match[1], match[2], int(cycles[1]) if cycles else None, target == PALLAS))
    return instructions


def aliased(text: str) -> tuple[int, ...]:
    """Which arguments (flattened, by position) lend a result their memory."""
    header = text.partition("\n")[0]
    _, _, aliases = header.partition("input_output_alias=")
    return tuple(
        sorted({int(argument) for argument in _ALIAS.findall(aliases.partition("entry_computation_layout")[0])})
    )
