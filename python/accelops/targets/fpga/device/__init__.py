"""FPGA boards as a device of torch's: `model.to("fpga")`, built on first use for the torch that is installed.

device.cpp has memory, copies and views, and sends what no board does to the CPU; residence.py knows what lies on a board;
interface.py is torch.fpga; build.py compiles. Which ops boards do is dispatch's to say (dispatch/fpga_device.py).
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence

import torch

from ... import TargetUnavailable
from ..discovery import found
from ..driver import Driver

MOST_BOARDS = 8  # a thread of torch's autograd waits for each

_lock = threading.Lock()
_registered = False


def register_device(drivers: Sequence[Driver] = ()) -> None:
    """Make `drivers`, or every board that is found, torch's devices fpga:0, fpga:1 and so on. Again, with others, is
    possible: tensors keep their values. Raises TargetUnavailable without a board or a C++ compiler, or where another
    package has taken the one place that torch has for such devices."""
    drivers = list(drivers) or found()
    if len(drivers) > MOST_BOARDS:
        raise ValueError(f"fpga: {len(drivers)} boards are too many for a process; give {MOST_BOARDS} at most")
    if not drivers:
        raise TargetUnavailable(
            "no FPGA board is found: connect to one, as in accelops.fpga_device(accelops.targets.fpga.connect(HOST))"
        )
    with _lock:
        _register()
        from . import residence

        residence.attach(drivers)
        _prepare_autograd(len(drivers))


def _register() -> None:
    global _registered
    if _registered:
        return
    taken = torch._C._get_privateuse1_backend_name()
    if taken not in ("privateuseone", "fpga"):
        raise TargetUnavailable(f"torch has one place for devices that packages bring, and {taken!r} has it here")
    from .build import library

    torch.ops.load_library(str(library()))
    from . import interface, residence

    torch.utils.rename_privateuse1_backend("fpga")
    torch._register_device_module("fpga", interface)
    torch.utils.generate_methods_for_privateuse1_backend(for_storage=True)
    kernels = torch.library.Library("accelops_fpga", "IMPL")
    kernels.impl("fetch", residence.fetch, "CompositeExplicitAutograd")
    _kept.append(kernels)
    _registered = True


def _prepare_autograd(boards: int) -> None:
    """Autograd makes one thread for each device there is when it first runs, and none later: so it runs now, and is told of
    as many as there may ever be. Where it ran before, with less, it has to do without threads."""
    ops = torch.ops.accelops_fpga
    ops.set_autograd_devices(MOST_BOARDS)
    try:
        with torch.inference_mode(False), torch.enable_grad():
            probe = torch.empty(1, device=f"fpga:{boards - 1}", requires_grad=True)
            probe.view(1).backward(torch.empty(1, device=probe.device))
    except RuntimeError:
        torch.autograd.set_multithreading_enabled(False)
        warnings.warn(
            "accelops: torch's autograd ran before it knew of device fpga, and makes no threads later: from this thread "
            "backward works, from others call torch.autograd.set_multithreading_enabled(False) first. To have threads, make "
            "accelops.fpga_device() the first thing that a process does",
            stacklevel=4,
        )
    finally:
        ops.set_autograd_devices(boards)


_kept: list[torch.library.Library] = []  # unregistered when it is collected
