"""PYNQ.remote's gRPC services around a Machine, on 127.0.0.1 alone: what the pynq client calls of a board.

The messages are pynq's own (pynq.remote.*_pb2), so this needs pynq installed; nothing of its client is used. An error is
the response's `msg` where it has one, else the call's status. Left out, because no client of pynq 4.0.0 calls them:
RemoteDevice.download, set_pl_clk and shutdown, which answer UNIMPLEMENTED.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ... import TargetUnavailable
from .faults import Dropped, Refused
from .machine import Machine

HOST = "127.0.0.1"
CHUNK = 2 << 20  # bytes of a message, as the client's; gRPC takes 4 MiB
THREADS = 8

GPIO_BASE = {"zynq7000": (906, 118), "zynquplus": (338, 174)}  # Linux's number of the first pin, and how many there are


def require_pynq() -> None:
    """Raises TargetUnavailable where the messages are missing."""
    try:
        import grpc  # noqa: F401
        import pynq.remote.remote_device_pb2  # noqa: F401
    except ImportError as error:
        raise TargetUnavailable(
            f"the emulated board's server needs pynq and grpc ({error}): pip install 'accelops[fpga]'"
        ) from None


class Server:
    """Serves `machine` until `stop`; `port` 0 takes a free one. Raises TargetUnavailable without pynq, OSError where the
    port is taken."""

    def __init__(self, machine: Machine, port: int = 0):
        require_pynq()
        import grpc
        from pynq.remote import buffer_pb2_grpc, gpio_pb2_grpc, mmio_pb2_grpc, remote_device_pb2_grpc

        # Without SO_REUSEPORT a second server on the port fails instead of taking half of the calls.
        self._server = grpc.server(ThreadPoolExecutor(THREADS), options=[("grpc.so_reuseport", 0)])
        remote_device_pb2_grpc.add_RemoteDeviceServicer_to_server(_device(machine), self._server)
        mmio_pb2_grpc.add_MmioServicer_to_server(_mmio(machine), self._server)
        buffer_pb2_grpc.add_RemoteBufferServicer_to_server(_buffer(machine), self._server)
        gpio_pb2_grpc.add_GpioServicer_to_server(_gpio(machine), self._server)
        try:
            self.port = self._server.add_insecure_port(f"{HOST}:{port}")
        except RuntimeError as error:
            raise OSError(f"{HOST}:{port} cannot be listened on, another board may be there: {error}") from None
        self._server.start()

    def stop(self) -> None:
        self._server.stop(grace=1).wait(timeout=5)

    def ended_within(self, seconds: float) -> bool:
        return not self._server.wait_for_termination(seconds)


def _answered(
    response: Callable[..., Any], context: Any, method: Callable[..., dict[str, Any]], *arguments: Any
) -> Any:
    """`method`'s fields as a response; what it refuses as the response's message."""
    import grpc

    try:
        return response(**method(*arguments))
    except Refused as refused:
        return response(msg=str(refused))
    except Dropped as dropped:
        context.abort(grpc.StatusCode.UNAVAILABLE, str(dropped))


def _device(machine: Machine) -> Any:
    import grpc
    from pynq.remote import remote_device_pb2 as messages
    from pynq.remote.remote_device_pb2_grpc import RemoteDeviceServicer

    class Device(RemoteDeviceServicer):
        """Files, and through them the FPGA manager."""

        def set_bitstream_attrs(self, request: Any, context: Any) -> Any:
            return messages.SetBitstreamAttrsResponse(status=not request.partial)

        def existsfile(self, request: Any, context: Any) -> Any:
            return messages.ExistsFileResponse(exists=machine.files.exists(request.file_path))

        def readfile(self, request: Any, context: Any) -> Iterator[Any]:
            data = machine.files.read(request.file_path)
            if data is None:
                context.abort(grpc.StatusCode.NOT_FOUND, f"{request.file_path}: no such file")
            for at in range(0, max(len(data), 1), CHUNK):
                yield messages.ReadFileResponse(data=data[at : at + CHUNK])

        def writefile(self, requests: Iterator[Any], context: Any) -> Any:
            parts = [(request.file_path, request.data) for request in requests]
            try:
                if parts:
                    machine.files.write(parts[0][0], b"".join(data for _, data in parts))
            except (Refused, ValueError) as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            return messages.WriteFileResponse()

    return Device()


def _mmio(machine: Machine) -> Any:
    from pynq.remote import mmio_pb2 as messages
    from pynq.remote.mmio_pb2_grpc import MmioServicer

    class Mmio(MmioServicer):
        """A mapping is made of any address, as by Linux; only an access finds out what is there. Its id is its address."""

        def get_mmio(self, request: Any, context: Any) -> Any:
            return messages.GetMmioResponse(status=True, mmio_id=f"{request.base_addr:x}")

        def read(self, request: Any, context: Any) -> Any:
            def words() -> dict[str, Any]:
                value = machine.mmio_read(int(request.mmio_id, 16) + request.offset, request.length)
                return {"status": True, "data": value}

            return _answered(messages.ReadResponse, context, words)

        def write(self, request: Any, context: Any) -> Any:
            def words() -> dict[str, Any]:
                machine.mmio_write(int(request.mmio_id, 16) + request.offset, request.data)
                return {"status": True}

            return _answered(messages.WriteResponse, context, words)

    return Mmio()


def _buffer(machine: Machine) -> Any:
    import grpc
    from pynq.remote import buffer_pb2 as messages
    from pynq.remote.buffer_pb2_grpc import RemoteBufferServicer

    addresses: dict[str, int] = {}
    ids = itertools.count(1)  # never given twice, as addresses are

    def address(request: Any) -> int:
        if request.buffer_id not in addresses:
            raise Refused(f"there is no buffer {request.buffer_id!r}: it was freed, or never allocated")
        return addresses[request.buffer_id]

    class Buffer(RemoteBufferServicer):
        def allocate(self, request: Any, context: Any) -> Any:
            def made() -> dict[str, Any]:
                at, buffer_id = machine.allocate(request.size), str(next(ids))
                addresses[buffer_id] = at
                return {"buffer_id": buffer_id}

            return _answered(messages.AllocateResponse, context, made)

        def freebuffer(self, request: Any, context: Any) -> Any:
            def freed() -> dict[str, Any]:
                machine.free(address(request))
                del addresses[request.buffer_id]
                return {}

            return _answered(messages.FreeBufferResponse, context, freed)

        def write(self, requests: Iterator[Any], context: Any) -> Any:
            def written() -> dict[str, Any]:
                offset = 0
                for request in requests:
                    offset = request.start if request.end else offset
                    machine.write(address(request), request.data, offset)
                    offset += len(request.data)
                return {}

            return _answered(messages.BufferWriteResponse, context, written)

        def read(self, request: Any, context: Any) -> Iterator[Any]:
            try:
                at = address(request)
                end = request.end or machine.ddr.buffer(at).nbytes
                for offset in range(request.start, end, CHUNK):
                    yield messages.BufferReadResponse(data=machine.read(at, min(CHUNK, end - offset), offset))
            except Refused as refused:
                yield messages.BufferReadResponse(msg=str(refused))
            except Dropped as dropped:
                yield messages.BufferReadResponse(data=dropped.before)
                context.abort(grpc.StatusCode.UNAVAILABLE, str(dropped))

        def flush(self, request: Any, context: Any) -> Any:
            return _answered(messages.FlushResponse, context, lambda: machine.flush(address(request)) or {})

        def invalidate(self, request: Any, context: Any) -> Any:
            return _answered(messages.InvalidateResponse, context, lambda: machine.invalidate(address(request)) or {})

        def physical_address(self, request: Any, context: Any) -> Any:
            return _answered(messages.AddressResponse, context, lambda: {"address": address(request)})

        def virtual_address(self, request: Any, context: Any) -> Any:
            return _answered(messages.AddressResponse, context, lambda: {"address": machine.ddr.host(address(request))})

        def cacheable(self, request: Any, context: Any) -> Any:
            return _answered(messages.CacheableResponse, context, lambda: {"cacheable": address(request) > 0})

    return Buffer()


def _gpio(machine: Machine) -> Any:
    from pynq.remote import gpio_pb2 as messages
    from pynq.remote.gpio_pb2_grpc import GpioServicer

    first, pins = GPIO_BASE[machine.board.family]
    values: dict[str, int] = {}  # of exported pins

    class Gpio(GpioServicer):
        """Pins that read back what was written; nothing is connected to them."""

        def get_gpio(self, request: Any, context: Any) -> Any:
            if not first <= request.index < first + pins:
                return messages.GetGpioResponse(message=f"pin {request.index}: there are {first} to {first + pins - 1}")
            values.setdefault(str(request.index), 0)
            return messages.GetGpioResponse(gpio_id=str(request.index))

        def read(self, request: Any, context: Any) -> Any:
            return messages.GpioReadResponse(value=values.get(request.gpio_id, 0))

        def write(self, request: Any, context: Any) -> Any:
            values[request.gpio_id] = request.value
            return messages.GpioWriteResponse()

        def unexport(self, request: Any, context: Any) -> Any:
            values.pop(request.gpio_id, None)
            return messages.GpioUnexportResponse()

        def is_exported(self, request: Any, context: Any) -> Any:
            return messages.GpioIsExportedResponse(is_exported=request.gpio_id in values)

        def get_gpio_base_path(self, request: Any, context: Any) -> Any:
            return messages.GetGpioBasePathResponse(base_path=f"/sys/class/gpio/gpiochip{first}")

        def get_gpio_npins(self, request: Any, context: Any) -> Any:
            return messages.GetGpioNPinsResponse(npins=pins)

    return Gpio()
