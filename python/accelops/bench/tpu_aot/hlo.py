"""Reads the text of a module that XLA has optimised for a TPU: the instructions of its entry computation with the cycles
that the compiler estimated for them, and which arguments the results alias.

An instruction's line holds its cycles as `"estimated_cycles":"N"` in its backend_config. Pallas kernels have none. A
conditional has those of its cheapest branch: the others are for what does not happen, such as gradients that overflow.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

PALLAS = "tpu_custom_call"

_COMPUTATION = re.compile(r"^(?:ENTRY )?%?([\w.\-]+) \(.*\{$")
_INSTRUCTION = re.compile(r"^\s*(?:ROOT )?%?([\w.\-]+) = (?:\(.*?\)|\S+) ([\w\-]+)\(")
_TARGET = re.compile(r'custom_call_target="([^"]*)"')
_BRANCHES = re.compile(r"(?:branch_computations=\{|true_computation=|false_computation=)([^}]*?)(?:\}|, \w+=|$)")
# Where the static LLO profile is asked for, its cycles stand here too, as bundle_analysis_data.
_CYCLES = re.compile(r'(?<!"bundle_analysis_data":\{)"estimated_cycles":"(\d+)"')
_ALIAS = re.compile(r"\{[\d, ]*\}: \((\d+), \{[\d, ]*\}, (?:may|must)-alias\)")

# What moves nothing, or is part of what its consumer costs.
_FREE = frozenset(
    (
        "parameter",
        "constant",
        "bitcast",
        "tuple",
        "get-tuple-element",
        "after-all",
        "partition-id",
        "replica-id",
        "iota",
    )
)
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
        opaque = self.opcode in ("while", "conditional", "call", "custom-call")
        return self.cycles is None and (of_a_collective or opaque)


def entry(text: str) -> list[Instruction]:
    """The instructions of the entry computation that take time, in order. Raises ValueError for text that has none."""
    computations = _computations(text)
    if "ENTRY" not in computations:
        raise ValueError("expected the text of an HLO module; no computation in it begins with ENTRY")
    return _instructions(computations["ENTRY"], computations)


def aliased(text: str) -> tuple[int, ...]:
    """Which arguments (flattened, by position) lend a result their memory."""
    header = text.partition("\n")[0]
    _, _, aliases = header.partition("input_output_alias=")
    return tuple(
        sorted({int(argument) for argument in _ALIAS.findall(aliases.partition("entry_computation_layout")[0])})
    )


def _computations(text: str) -> dict[str, list[str]]:
    """The lines of each computation by its name, that of the entry being ENTRY."""
    found: dict[str, list[str]] = {}
    body: list[str] = []
    for line in text.splitlines():
        header = _COMPUTATION.match(line)
        if header:
            body = found["ENTRY" if line.startswith("ENTRY") else header[1]] = []
        else:
            body.append(line)
    return found


def _instructions(lines: Iterable[str], computations: Mapping[str, list[str]]) -> list[Instruction]:
    found = []
    for line in lines:
        match = _INSTRUCTION.match(line)
        if match is None or match[2] in _FREE:
            continue
        name, opcode = match[1], match[2]
        cycles, called = _CYCLES.search(line), _TARGET.search(line)
        target = called[1] if called else ""
        if opcode == "conditional":
            found.append(Instruction(name, opcode, _cheapest(line, computations)))
        elif target not in _FREE_CALLS:
            found.append(Instruction(name, opcode, int(cycles[1]) if cycles else None, target == PALLAS))
    return found


def _cheapest(conditional: str, computations: Mapping[str, list[str]]) -> int | None:
    """The cycles of the cheapest branch; None where a branch holds what has none."""
    names = [name.strip().removeprefix("%") for group in _BRANCHES.findall(conditional) for name in group.split(",")]
    branches = [_instructions(computations.get(name, ()), computations) for name in names]
    if not branches or any(i.kernel or i.unmodelled for branch in branches for i in branch):
        return None
    return min(sum(i.cycles or 0 for i in branch) for branch in branches)
