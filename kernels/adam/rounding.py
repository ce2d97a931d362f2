"""Stochastic rounding to bf16: up or down with the probabilities that make the mean exact, so that a sum of many small
updates is not lost to a parameter that is coarser than each of them. From torch's ops, on any device; triton/rounding.py
draws the same numbers within the step.

16 random bits are added to the 16 that bf16 has not, which are then cut off. They come from Philox4x32-10 (Salmon et al.
2011, "Parallel Random Numbers: As Easy as 1, 2, 3"): key is the seed, the counter (group of 8 elements, row, step, 0), with
the elements in the order of memory and the row that of the parameter in its list. So a step is reproducible, and no state
is kept but the seed and the count of steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .blockwise import in_memory

GROUP = 8  # elements for which one counter has bits

_LOW = 0xFFFFFFFF
_MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
_WEYL = (0x9E3779B9, 0xBB67AE85)


def philox(seed: int, counters: tuple[Tensor, Tensor, Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Four random 32-bit numbers for each counter; all are int64 tensors."""
    c0, c1, c2, c3 = counters
    k0, k1 = seed & _LOW, (seed >> 32) & _LOW
    for _ in range(10):
        a, b = _MULTIPLIERS[0] * c0, _MULTIPLIERS[1] * c2  # modulo 2^64: their bits are right, if not their signs
        c0, c1, c2, c3 = (b >> 32) & _LOW ^ c1 ^ k0, b & _LOW, (a >> 32) & _LOW ^ c3 ^ k1, a & _LOW
        k0, k1 = (k0 + _WEYL[0]) & _LOW, (k1 + _WEYL[1]) & _LOW
    return c0, c1, c2, c3


def bits(numel: int, seed: int, row: int, step: Tensor) -> Tensor:
    """16 random bits for each element of the parameter in `row`, as int32; `step` is its count."""
    group = torch.arange(-(-numel // GROUP), device=step.device)
    same = torch.zeros_like(group)
    words = torch.stack(philox(seed, (group, same + row, same + step.reshape(()).long(), same)), 1)
    return torch.stack((words & 0xFFFF, words >> 16), 2).flatten()[:numel].int()


def round_(target: Tensor, values: Tensor, seed: int, row: int, step: Tensor) -> None:
    """Write fp32 `values` into `target`, which is bf16."""
    ordered = torch.empty_like(target, dtype=torch.float32).copy_(values)
    flat = in_memory(ordered)
    raised = flat.view(torch.int32) + bits(values.numel(), seed, row, step.to(target.device))
    rounded = (raised >> 16 << 16).view(torch.float32)
    flat.copy_(torch.where(flat.isfinite(), rounded, flat))
    target.copy_(ordered)
