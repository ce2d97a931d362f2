"""An emulated board: what the real pynq client, unmodified, cannot tell from a board on its network.

machine.py is the board without any wire: memory with a cache (ddr.py), clocks (clocks.py), files (files.py), and the
programmable logic (fabric.py) that bitstreams (handoff.py) fill with kernels behind registers (slot.py), computed by C++
(csim.py) or RTL (rtl.py). Every launch is checked (checks.py) by what its arguments mean (launches.py). server.py gives it
PYNQ.remote's gRPC services. Results are *simulated*, cycles and times *modelled*: nothing here says how fast a board is.
"""
