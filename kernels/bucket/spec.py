"""BucketSpec: one bucketing problem: a list of tensors on one side, a flat buffer in the wire's dtype on the other."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import ITEMSIZE, Spec

DIRECTIONS = ("pack", "unpack", "reduce")
WIRE_DTYPES = ("float32", "bfloat16", "float16")
MIXED = "mixed"


@dataclass(frozen=True)
class BucketSpec(Spec):
    """pack: `tensors` tensors of `dtype`, `numel` elements in all, into one flat buffer of `wire_dtype`; with
    `error_feedback` an fp32 residual of `numel` is read and written. unpack: the way back. reduce: `ranks` flat buffers
    of `numel` elements into one of `dtype`. `dtype` is "mixed" where the tensors differ."""

    op = "bucket"

    direction: str
    numel: int
    tensors: int = 1
    dtype: str = "float32"
    wire_dtype: str = "float32"
    ranks: int = 1
    error_feedback: bool = False
    device: str = "cpu"

    @property
    def flops(self) -> int:
        """One product an element, one addition for each further rank; two more operations with error feedback."""
        additions = self.ranks - 1 if self.direction == "reduce" else 2 * self.error_feedback
        return self.numel * (1 + additions)

    @property
    def bytes(self) -> int:
        """Mixed tensors are counted as float32, an upper bound."""
        tensors = 4 if self.dtype == MIXED else ITEMSIZE[self.dtype]
        wires = ITEMSIZE[self.wire_dtype] * (self.ranks if self.direction == "reduce" else 1)
        return self.numel * (tensors + wires + (8 if self.error_feedback else 0))
