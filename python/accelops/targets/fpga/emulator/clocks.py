"""The processing system's registers that a client sets: clocks, which count, and port widths, which are only kept.

Zynq-7000 has them in its SLCR (AMD UG585), Zynq UltraScale+ in CRL_APB and CRF_APB (AMD UG1087). After reset PL clock 0
runs at the board's clock, as a first-stage loader sets it.
"""

from __future__ import annotations

from ..boards import Board
from ..model import ceil_div

ZYNQ_REFERENCE_MHZ, ULTRASCALE_REFERENCE_MHZ = 50.0, 33.333
SLCR, CRL_APB, CRF_APB = 0xF8000000, 0xFF5E0000, 0xFD1A0000

# Where pynq writes the width of the ports of Zynq UltraScale+: FPD_SLCR, LPD_SLCR, and one AFIFM a port.
WIDTHS = (0xFD615000, 0xFF419000, 0xFF9B0000, *range(0xFD360000, 0xFD3C0000, 0x10000))
BLOCK_BYTES = 0x1000


class Registers:
    """A block of registers that keep what is written."""

    def __init__(self, words: dict[int, int] | None = None):
        self._words = dict(words or {})

    def read(self, offset: int) -> int:
        return self._words.get(offset, 0)

    def write(self, offset: int, value: int) -> None:
        self._words[offset] = value


class Clocks:
    """`blocks`: by address, what a client reads and writes."""

    def __init__(self, board: Board):
        self._zynq7000 = board.family == "zynq7000"
        self.blocks = self._slcr(board) if self._zynq7000 else self._crl_crf(board)

    @property
    def pl_mhz(self) -> float:
        """PL clock 0, from the registers; 0 where they stop it."""
        if self._zynq7000:
            slcr = self.blocks[SLCR]
            source = ZYNQ_REFERENCE_MHZ * (slcr.read(0x108) >> 12 & 0x7F)
            control = slcr.read(0x170)
            divisor = (control >> 8 & 0x3F) * (control >> 20 & 0x3F)
        else:
            crl = self.blocks[CRL_APB]
            pll, control = crl.read(0x20), crl.read(0xC0)
            source = ULTRASCALE_REFERENCE_MHZ * (pll >> 8 & 0x7F) / (2 if pll >> 16 & 1 else 1) * (control >> 24 & 1)
            divisor = (control >> 8 & 0x3F) * (control >> 16 & 0x3F)
        return source / divisor if divisor else 0.0

    @staticmethod
    def _slcr(board: Board) -> dict[int, Registers]:
        """PLLs at 1300, 1050 and 1000 MHz, the processor at 650 MHz, PL clocks from the 1000."""
        control = ceil_div(1000, board.clock_mhz) << 8 | 1 << 20
        plls = {0x100: 26 << 12, 0x104: 21 << 12, 0x108: 20 << 12, 0x120: 2 << 8}
        return {SLCR: Registers(plls | {0x170 + 0x10 * i: control for i in range(4)})}

    @staticmethod
    def _crl_crf(board: Board) -> dict[int, Registers]:
        """IOPLL at 1500 MHz, RPLL at 1500, APLL, DPLL and VPLL at 1200; PL clocks from the IOPLL."""
        control = 1 << 24 | 1 << 16 | ceil_div(1500, board.clock_mhz) << 8
        crl = Registers({0x20: 1 << 16 | 90 << 8, 0x30: 1 << 16 | 90 << 8} | {0xC0 + 4 * i: control for i in range(4)})
        crf = Registers({pll: 1 << 16 | 72 << 8 for pll in (0x20, 0x2C, 0x38)} | {0x60: 1 << 8})
        return {CRL_APB: crl, CRF_APB: crf} | {address: Registers() for address in WIDTHS}
