"""FPGA boards: what they are (boards.py), the kernels' registers (registers.py), what is generated from both
(generate.py), how long a kernel takes by arithmetic (model.py, convolution.py); and how they are used: found
(discovery.py), driven (driver.py) through the pynq client (pynq_link.py), or emulated (emulator/).

The driver runs against emulated boards; no real one was at hand.
"""

from .discovery import connect, current, emulated, found, here, on, unavailable

__all__ = ["COMES_AND_GOES", "connect", "current", "emulated", "found", "here", "on", "unavailable"]

COMES_AND_GOES = True  # what unavailable() answers may change while a process runs
