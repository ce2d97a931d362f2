"""Many tensors in one flat buffer, ready for one message: packed, scaled and cast to the dtype of the wire in one pass.

Tensors lie in the buffer one after the other without gaps, as in DDP's buckets: each that is dense in memory (contiguous,
channels_last, any permutation) in its memory order, any other in logical order. All ranks, and both ways, must therefore
use tensors of the same shapes and strides. Buffers may be float32, bfloat16 or float16.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from accelops.dispatch import bucket as _ops  # noqa: F401  # defines torch.ops.accelops.bucket_*
from accelops.kernels.bucket.layout import views


def pack(
    tensors: Sequence[Tensor],
    flat: Tensor,
    scale: float = 1.0,
    residual: Tensor | None = None,
    target: str | None = None,
) -> Tensor:
    """Write scale * tensors, rounded once to flat's dtype, into `flat`, and return it.

    With a `residual` (float32, as long as `flat`, zero at first) what the rounding loses is kept there and added the next
    time, so that over many steps nothing is lost: y = scale * tensors + residual, flat = cast(y), residual = y - flat
    (Seide et al. 2014, "1-bit stochastic gradient descent"; Karimireddy et al. 2019, "Error feedback fixes SignSGD"). Where
    flat is not finite the residual becomes zero: an overflow is seen once, and the steps after it are clean.

    Shape: flat (sum of the tensors' numel,). NaN and infinities arrive as they are. Raises RuntimeError for operands that
    do not fit, are on different devices or require grad; TargetUnavailable where `target` cannot serve.
    """
    torch.ops.accelops.bucket_pack_(tensors, flat, scale, residual, target)
    return flat


def unpack(flat: Tensor, tensors: Sequence[Tensor], scale: float = 1.0, target: str | None = None) -> Sequence[Tensor]:
    """Write scale * flat, rounded once to each tensor's dtype, into `tensors`, and return them.

    Raises RuntimeError as `pack` does, and where elements of `tensors` share memory.
    """
    torch.ops.accelops.bucket_unpack_(flat, tensors, scale, target)
    return tensors


def reduce(flats: Sequence[Tensor], out: Tensor, scale: float = 1.0, target: str | None = None) -> Tensor:
    """Write scale * (flats[0] + flats[1] + ...) into `out`, and return it: added in this order in float32, rounded once,
    so that the result does not depend on who adds. `out` may be one of `flats`.

    Shape: each of flats (N,), all of one dtype; out (N,). Raises RuntimeError as `pack` does, and for an empty `flats`.
    """
    torch.ops.accelops.bucket_reduce_(flats, out, scale, target)
    return out


class Bucket:
    """A list of tensors with the flat buffer that carries them, and with the residual of error feedback where asked for.

        bucket = Bucket([p.grad for p in model.parameters()], torch.bfloat16, error_feedback=True)
        torch.distributed.all_reduce(bucket.pack(scale=1 / world_size))
        bucket.unpack()

    `tensors`, `flat` (as long as they are together, of `wire_dtype`) and `residual` (float32, or None) are plain
    attributes; the tensors may be given new memory between calls, not new shapes or strides.
    """

    def __init__(
        self,
        tensors: Iterable[Tensor],
        wire_dtype: torch.dtype = torch.float32,
        error_feedback: bool = False,
        target: str | None = None,
    ) -> None:
        self.tensors = list(tensors)
        device = self.tensors[0].device if self.tensors else None
        self.flat = torch.empty(sum(t.numel() for t in self.tensors), dtype=wire_dtype, device=device)
        self.residual = torch.zeros_like(self.flat, dtype=torch.float32) if error_feedback else None
        self.target = target

    def pack(self, scale: float = 1.0) -> Tensor:
        """Write scale * tensors (+ residual) into `flat`, and return it; see accelops.distributed.pack."""
        return pack(self.tensors, self.flat, scale, self.residual, self.target)

    def unpack(self, scale: float = 1.0) -> list[Tensor]:
        """Write scale * flat into `tensors`, and return them."""
        unpack(self.flat, self.tensors, scale, self.target)
        return self.tensors

    def views(self) -> list[Tensor]:
        """The place of each tensor in `flat`, in the tensor's shape."""
        return views(self.flat, self.tensors)
