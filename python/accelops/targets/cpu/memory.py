"""Keeping memory: an explicit, reversible switch for the whole process.

glibc gives large blocks (from 32 MiB, at first from 128 KiB) back to the kernel when they are freed, and every fresh one is
faulted in page by page again: on a CNN with large activations that can cost more than the arithmetic. With `keep_memory()` freed memory stays
with the process and is used again.
"""

from __future__ import annotations

import ctypes

# malloc.h: parameters of mallopt (mallopt(3)).
_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3
_KEEPING = {_TRIM_THRESHOLD: 2**31 - 1, _TOP_PAD: 64 << 20, _MMAP_THRESHOLD: 1 << 30}
# Where glibc's own adaptation ends once a block of 32 MiB has been freed. Its starting value of 128 KiB, which stays fixed
# once it is set, would be far worse than never having switched.
_GIVING_BACK = {_TRIM_THRESHOLD: 64 << 20, _TOP_PAD: 0, _MMAP_THRESHOLD: 32 << 20}


def keep_memory(keep: bool = True) -> bool:
    """Keep freed memory in this process (True), or let the C library give it back again (False).

    Returns whether the C library can do it (glibc can; musl and macOS cannot, and then nothing changes). It affects every
    allocation of the process up to 1 GiB, not only torch's; what it costs is that the process stays as large as it once
    was. `keep_memory(False)` returns the free memory at the top of the heap to the kernel, and goes back to giving back
    blocks of 32 MiB and more: what a glibc that was never switched comes to by itself in a program with large blocks.
    """
    libc = ctypes.CDLL(None)
    if not hasattr(libc, "gnu_get_libc_version"):
        return False
    done = all(libc.mallopt(name, value) for name, value in (_KEEPING if keep else _GIVING_BACK).items())
    if not keep:
        libc.malloc_trim(0)
    return done
