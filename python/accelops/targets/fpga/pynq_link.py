"""A board through the pynq client: on a network (PYNQ.remote's gRPC services) or the one that this process runs on.

The only file that imports pynq. What pynq 4.0.0 leaves to its users is done here:
- no gRPC call of pynq has a deadline: an interceptor gives each one, by the bytes that it moves;
- Zynq-7000: the clocks' frequencies are missing in its metadata, and are taken from the .hwh's parameters;
- a bitstream whose file name the board has is not sent again (PYNQ issue 1545), not even where it arrived in part: the name
  is a hash of the contents, and a second file says that the first is whole;
- whether Linux took the bitstream is not looked at;
- of a remote device no metadata kept under a hash of the .bit alone is read, and none is written, for processes race on it;
- exhausted memory is an empty buffer_id, not an error;
- a buffer frees itself by a gRPC call from the garbage collector, which crashes the process once the channel is closed:
  it is told that it is free already;
- some of it uses the active device whatever device it is given, and Clocks stays with the first device that it set: the
  board is made active and Clocks forgets the other, by one thread at a time.

On a board itself (`local`) nothing of this was tried, for no board was at hand.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
import numpy as np
import pynq
from pynq.pl_server.embedded_device import EmbeddedDevice
from pynq.pl_server.global_state import clear_global_state
from pynq.pl_server.remote_device import FIRMWARE, GrpcChannel, RemoteDevice

from .boards import Board, board
from .errors import BoardError, BoardFault, BoardLost
from .link import BOARD_NAME, Memory, board_named
from .overlay import Overlay

CALL_SECONDS = 5.0  # for a call that moves next to nothing
SLOWEST = 2e6  # bytes/s that a connection must carry; a PYNQ-Z2's 100 Mbit/s are six times as much
LOADING_SECONDS = 60.0  # besides sending; Linux takes less than one, an emulated board may compile its kernels
CONNECTING_SECONDS = 3.0

STATE = "/sys/class/fpga_manager/fpga0/state"

_loading = threading.Lock()  # pynq keeps the active device and its clocks in variables of the process


class _Deadlines(
    grpc.UnaryUnaryClientInterceptor, grpc.UnaryStreamClientInterceptor, grpc.StreamUnaryClientInterceptor
):
    """Gives every call that has none a deadline of `seconds`."""

    def __init__(self) -> None:
        self.seconds = CALL_SECONDS

    def _timed(self, proceed: Any, details: grpc.ClientCallDetails, request: Any) -> Any:
        return proceed(_Details(details, self.seconds), request)

    intercept_unary_unary = intercept_unary_stream = intercept_stream_unary = _timed


class _Details(grpc.ClientCallDetails):
    def __init__(self, of: grpc.ClientCallDetails, seconds: float):
        self.method, self.metadata, self.credentials = of.method, of.metadata, of.credentials
        self.wait_for_ready, self.compression = of.wait_for_ready, of.compression
        self.timeout = seconds if of.timeout is None else of.timeout


class _Remote(RemoteDevice):
    """pynq's remote device with deadlines: its constructor makes the channel, then the stubs from it."""

    def __init__(self, host: str, port: int):
        self.deadlines = _Deadlines()
        super().__init__(0, host, port, tag=f"{host}:{port}")

    @property
    def client(self) -> GrpcChannel:
        return self._client

    @client.setter
    def client(self, made: GrpcChannel) -> None:
        self._client, self._plain = made, made.channel
        made.channel = grpc.intercept_channel(made.channel, self.deadlines)

    def hang_up(self) -> None:
        self._plain.close()


def remote(host: str, port: int, name: str | None = None) -> PynqLink:
    """PYNQ.remote's server at `host`:`port`; `name` is the board where its Linux does not say it."""
    where = f"{host}:{port}"
    try:
        # At once where nothing listens; gRPC would try again until its deadline.
        socket.create_connection((host.strip("[]"), port), CONNECTING_SECONDS).close()
        device = _Remote(host, port)
    except (OSError, RuntimeError, grpc.RpcError) as error:
        raise BoardLost(
            f"{where}: no board answers ({error}). Is it on, its network reachable, and PYNQ.remote's server running?"
        ) from error
    try:
        return PynqLink(where, device, name)
    except Exception:
        device.hang_up()
        raise


def local(name: str | None = None) -> PynqLink:
    """The board that this process runs on."""
    with _translated("this board"):
        device = EmbeddedDevice()
    return PynqLink("this board", device, name)


class PynqLink:
    """Link over a device of pynq."""

    def __init__(self, where: str, device: RemoteDevice | EmbeddedDevice, name: str | None):
        self.where, self.device = where, device
        self.loads_first = not isinstance(device, RemoteDevice)  # XRT allocates in the memories of an overlay
        self._windows: dict[int, pynq.MMIO] = {}
        self.board: Board = board(name) if name else board_named(where, self.read_file(BOARD_NAME))

    def load(self, overlay: Overlay) -> None:
        size = overlay.bit.stat().st_size
        with _loading, self._within(LOADING_SECONDS + size / SLOWEST):
            pynq.Device.active_device = self.device
            if hasattr(pynq.Clocks, "_real_instance"):
                del pynq.Clocks._real_instance
            if isinstance(self.device, RemoteDevice):
                clear_global_state()  # as pynq does itself before it loads on a remote device
            loaded = pynq.Overlay(str(overlay.bit), download=False, device=self.device)
            loaded.parser._from_cache = True  # "there is nothing to be kept"
            if isinstance(self.device, RemoteDevice):
                loaded.binfile_name = f"accelops-{overlay.digest[:32]}.bin"
                self._send(self.device, loaded.binfile_name, loaded.parser.bin_data)
            self._give_clocks(loaded)
            loaded.download()
        state = (self.read_file(STATE) or b"").strip()
        if state not in (b"operating", b""):
            raise BoardFault(f"{self.where}: Linux did not take {overlay.bit}: {STATE} says {state.decode()!r}")

    @staticmethod
    def _send(device: RemoteDevice, name: str, data: bytes) -> None:
        whole = f"{FIRMWARE}{name}.whole"
        if not device.exists_file(whole).exists:
            device.write_file(FIRMWARE + name, data)
            device.write_file(whole, b"yes\n")

    def _give_clocks(self, loaded: pynq.Overlay) -> None:
        parameters = loaded.ip_dict[loaded.parser.ps_name]["parameters"]
        for i, clock in loaded.clock_dict.items():
            if clock.get("enable") and clock.get("frequency") is None:
                clock["frequency"] = float(parameters[f"PCW_ACT_FPGA{i}_PERIPHERAL_FREQMHZ"])

    def allocate(self, nbytes: int) -> Memory | None:
        with self._within(CALL_SECONDS):
            try:
                array = self.device.allocate((nbytes,), np.uint8)
            except RuntimeError as error:
                if "BO allocation failed" in str(error):  # XRT's words for exhausted memory
                    return None
                raise
            if isinstance(self.device, RemoteDevice):
                array.freed = True
                if not array.buffer_id:
                    return None
            return PynqMemory(self, array)

    def read(self, address: int) -> int:
        with self._within(CALL_SECONDS):
            window, offset = self._window(address)
            return int(window.read(offset))

    def write(self, address: int, data: bytes) -> None:
        with self._within(CALL_SECONDS):
            window, offset = self._window(address)
            window.write(offset, data)

    def _window(self, address: int) -> tuple[pynq.MMIO, int]:
        base = address // self.board.control_stride * self.board.control_stride
        if base not in self._windows:
            self._windows[base] = pynq.MMIO(base, self.board.control_stride, device=self.device)
        return self._windows[base], address - base

    def read_file(self, path: str) -> bytes | None:
        if not isinstance(self.device, RemoteDevice):
            try:
                with open(path, "rb") as file:
                    return file.read()
            except FileNotFoundError:
                return None
        with self._within(CALL_SECONDS):
            return self.device.read_file(path) if self.device.exists_file(path).exists else None

    def close(self) -> None:
        self._windows.clear()
        if isinstance(self.device, _Remote):
            self.device.hang_up()

    @contextmanager
    def _within(self, seconds: float) -> Iterator[None]:
        if isinstance(self.device, _Remote):
            self.device.deadlines.seconds = seconds
        with _translated(self.where):
            yield


class PynqMemory:
    """A whole buffer of pynq. Its address is asked for once."""

    def __init__(self, link: PynqLink, array: Any):
        self._link, self._buffer = link, array
        self.address = int(array.device_address)
        self.array = np.asarray(array)

    def flush(self) -> None:
        with self._moving():
            self._buffer.flush()

    def invalidate(self) -> None:
        with self._moving():
            self._buffer.invalidate()  # replaces the array's contents once all has arrived

    def free(self) -> None:
        with self._link._within(CALL_SECONDS):
            self._buffer.freed = False
            self._buffer.freebuffer()

    @contextmanager
    def _moving(self) -> Iterator[None]:
        with self._link._within(CALL_SECONDS + self.array.nbytes / SLOWEST):
            try:
                yield
            except ValueError as error:
                raise BoardLost(f"{self._link.where}: a buffer arrived in part ({error})") from error
            except RuntimeError as error:
                if isinstance(error, grpc.RpcError):
                    raise
                raise BoardLost(
                    f"{self._link.where}: the server does not know a buffer of this client any more ({error}); was it "
                    f"started again? Connect anew"
                ) from error


@contextmanager
def _translated(where: str) -> Iterator[None]:
    """Errors of gRPC and pynq as those of a Link."""
    try:
        yield
    except BoardError:
        raise
    except grpc.RpcError as error:
        code, said = error.code(), f"{where}: {error.details()} ({error.code().name})"
        if code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED):
            raise BoardLost(f"{said}. Check the connection and PYNQ.remote's server, then connect anew") from error
        raise BoardFault(said) from error
    except (RuntimeError, OSError, ValueError, KeyError) as error:
        raise BoardFault(f"{where}: {error or type(error).__name__}") from error
