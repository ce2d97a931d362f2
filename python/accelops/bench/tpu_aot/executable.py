"""Executable: what is known of one compiled Launch, as a child tells it in JSON."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from .hlo import Instruction
from .profile import Estimated


@dataclass(frozen=True)
class Executable:
    """`program` is equal where the program is; `bytes` are those of arguments and results; `aliased` the positions of the
    arguments in whose memory results lie, of `donated` that offer it; `profile` is empty where none was asked for."""

    program: str
    compile_s: float
    instructions: tuple[Instruction, ...]
    bytes: int
    aliased: tuple[int, ...] = ()
    donated: int = 0
    aliased_bytes: int = 0
    temporary_bytes: int = 0
    profile: dict[str, Estimated] = field(default_factory=dict, hash=False)

    @classmethod
    def from_dict(cls, found: dict[str, Any]) -> Executable:
        return cls(
            **found
            | {
                "instructions": tuple(Instruction(**instruction) for instruction in found["instructions"]),
                "aliased": tuple(found["aliased"]),
                "profile": {name: Estimated(**estimated) for name, estimated in found["profile"].items()},
            }
        )

    @property
    def kernels(self) -> tuple[str, ...]:
        """The Pallas kernels in it."""
        return tuple(instruction.name for instruction in self.instructions if instruction.kernel)

    @property
    def copies(self) -> int:
        """Of whole arrays: those of scalars, into the core's own memory, have no cycles."""
        return sum(instruction.opcode == "copy" and bool(instruction.cycles) for instruction in self.instructions)

    @property
    def collectives(self) -> int:
        return sum(instruction.collective for instruction in self.instructions)
