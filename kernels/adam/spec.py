"""AdamSpec: one Adam or AdamW step over a list of parameters."""

from __future__ import annotations

from dataclasses import dataclass

from ..spec import ITEMSIZE, Spec

MIXED = "mixed"

_SIZES = {MIXED: ITEMSIZE["float32"], "uint8": 1 + 4 / 256}


@dataclass(frozen=True)
class AdamSpec(Spec):
    """`numel` elements in `tensors` parameters of `dtype`, their moments in `state_dtype`: "mixed" where parameters differ,
    and where moments each have their parameter's, "uint8" in blocks of 8 bits (blockwise.py). `master`: fp32 copies of the
    parameters are stepped and rounded into them; `ema`: an fp32 average of the parameters is kept too; `stochastic`: bf16
    parameters are rounded stochastically. Hyperparameters are operands, not part of the problem: no choice depends on them.
    """

    op = "adam"

    numel: int
    tensors: int = 1
    dtype: str = "float32"
    state_dtype: str = "float32"
    amsgrad: bool = False
    master: bool = False
    ema: bool = False
    stochastic: bool = False
    device: str = "cpu"

    @property
    def flops(self) -> int:
        """Moments 3 + 3, denominator 2 and a root, update 2 and a quotient; 1 for the maximum, 3 for the average."""
        return self.numel * (12 + self.amsgrad + 3 * self.ema)

    @property
    def bytes(self) -> int:
        """Gradient read; parameter, moments, maximum, master and average read and written: 28 a parameter in fp32. What is
        mixed is counted as float32, an upper bound."""
        parameter, state = (_SIZES.get(d) or ITEMSIZE[d] for d in (self.dtype, self.state_dtype))
        read_parameter = 0 if self.master else parameter  # the master is read in its place
        an_element = 2 * parameter + read_parameter + state * (4 + 2 * self.amsgrad) + 8 * self.master + 8 * self.ema
        return round(self.numel * an_element)
