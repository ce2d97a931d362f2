"""An emulated board: what the real pynq client, unmodified, cannot tell from a board on its network.

machine.py is the board without any wire: memory with a cache (ddr.py), kernels behind their registers (slot.py, csim.py,
rtl.py), clocks (clocks.py), files (files.py), bitstreams (handoff.py). server.py gives it PYNQ.remote's gRPC services.
Results are *simulated*, cycles and times *modelled*: nothing here says how fast a real board is.
"""
