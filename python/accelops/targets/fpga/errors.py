"""What can go wrong with a board that is there: each kind says what happened, with figures, and what to do.

A target that is not there at all (no pynq, no board) is TargetUnavailable instead. Nothing here is ever answered by
computing on the CPU.
"""

from __future__ import annotations


class BoardError(RuntimeError):
    """A board did not do what it was asked to do; no result of the launch can be read."""


class BoardHung(BoardError):
    """A kernel did not finish before its deadline. The message holds its registers and arguments; the board counts as
    dead until its overlay is loaded again, which its next use does."""


class BoardLost(BoardError):
    """The connection broke or did not answer in time. The driver is of no use any more: connect anew."""


class BoardMemoryExhausted(BoardError):
    """The board has no contiguous memory left for a buffer. All sizes are bytes; `free` is None where the board does not
    tell."""

    def __init__(self, where: str, asked: int, held: int, free: int | None):
        self.asked, self.held, self.free = asked, held, free
        left = "how much is free is not known" if free is None else f"{free} bytes are free, not all contiguous"
        super().__init__(
            f"{where}: no memory for a buffer of {asked} bytes; {held} bytes are held by buffers in use, {left}. Free "
            f"buffers, use smaller batches, or give the board's Linux a larger CMA (its boot argument cma=)"
        )


class OverlayMismatch(BoardError):
    """A bitstream is not what it should be: missing, damaged, without its .hwh or with another's, built for another
    board, or from other kernels than this version of accelops drives (VERSION, CONFIG_HASH)."""


class BoardFault(BoardError):
    """The board reports an error: of its operating system, or what only an emulated one can see, such as an access to
    an address in no buffer or an input that was never flushed."""
