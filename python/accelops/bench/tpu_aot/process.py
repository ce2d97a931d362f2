"""The parent's side of child.py: a process that compiles, a deadline for each request, and words for how it can fail.

The compiler runs in a process of its own because it can abort it, and because libtpu reads its flags once, at its start.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import signal
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from time import monotonic
from typing import Any

from accelops.kernels.spec import Spec
from accelops.targets import TargetUnavailable

from . import profile
from .executable import Executable

DEADLINE = 300.0  # seconds for one request
GOODBYE = 5.0  # seconds for a child whose stdin has ended
INSTALL = "pip install 'accelops[tpu]'"

ENVIRONMENT = {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",  # no question to the metadata server of a cloud machine
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_LOG_DIR": "disabled",
    # libtpu's lock file guards a device; no device is touched here, and several may compile at once.
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

_FATAL = re.compile(r"^F\d{4} [^\]]*\] (.*)$", re.MULTILINE)
_ADVICE = (
    ("lockfile", "another process holds libtpu's lock file; end it, or remove /tmp/libtpu_lockfile where none runs"),
    ("No module named 'jax'", f"install what compiles for TPUs: {INSTALL}"),
    ("No module named 'libtpu'", f"install what compiles for TPUs: {INSTALL}"),
    (
        "Unable to initialize backend 'tpu'",
        f"libtpu cannot be loaded; install the versions that go together: {INSTALL}",
    ),
    ("Invalid TPU external name", "this libtpu does not know the generation; see `accelops tpu aot --help`"),
    ("Topology layout", "this libtpu has no such topology; name one such as v5e:2x4 or v5p:2x2x1"),
    ("the topology", "name a larger one, such as v5e:2x4 or v5p:2x2x4"),
    (
        "Mosaic",
        f"this libtpu rejects the kernel that this jax writes; install the versions that go together: {INSTALL}",
    ),
)


class CompilerFailed(RuntimeError):
    """A request that has no answer: the compiler refused it, died over it, or did not come back."""


def check_installed() -> None:
    """Raises TargetUnavailable, with what to do, where jax or libtpu is missing."""
    missing = [name for name in ("jax", "libtpu") if find_spec(name) is None]
    if missing:
        raise TargetUnavailable(f"compiling for TPUs needs {' and '.join(missing)}: {INSTALL}")


@dataclass(frozen=True)
class Request:
    """`builder` ("package.module:function") makes the Launches of `spec`, for the first `devices` of `topology`."""

    builder: str
    spec: Spec
    topology: str
    devices: int = 1
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def to_json(self) -> str:
        kind = type(self.spec)
        return json.dumps(
            {
                "builder": self.builder,
                "spec_type": f"{kind.__module__}:{kind.__name__}",
                "spec": self.spec.to_json(),
                "topology": self.topology,
                "devices": self.devices,
                "options": self.options,
            }
        )


class Compiler:
    """A child that is started at the first request, and again after one that it did not survive. A context. `module` is the
    child's, `flags` are libtpu's, `folder` is where they have it write its profile."""

    def __init__(
        self,
        deadline: float = DEADLINE,
        flags: Sequence[str] = (),
        folder: Path | None = None,
        module: str = f"{__package__}.child",
    ) -> None:
        self.deadline = deadline
        self._environment = {**os.environ, **ENVIRONMENT, "LIBTPU_INIT_ARGS": " ".join(flags)}
        self._command = [sys.executable, "-m", module, *([str(folder)] if folder else [])]
        self._process: subprocess.Popen[bytes] | None = None
        self._log: Any = None

    def __enter__(self) -> Compiler:
        return self

    def __exit__(self, *exception: object) -> None:
        self._end()

    def compile(self, request: Request) -> tuple[Executable, ...]:
        """Raises CompilerFailed, with what to do where that is known."""
        if self._process is None:
            self._start()
        reply = self._reply_to(request.to_json())
        if "error" in reply:
            raise CompilerFailed(_advised(reply["error"]))
        return tuple(Executable.from_dict(launch) for launch in reply["launches"])

    def _start(self) -> None:
        self._log = tempfile.TemporaryFile()  # noqa: SIM115 closed in _end
        self._process = subprocess.Popen(
            self._command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            env=self._environment,
            start_new_session=True,
        )

    def _reply_to(self, line: str) -> dict[str, Any]:
        process = self._process
        assert process is not None and process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):  # it has died: its end is found below
            process.stdin.write(line.encode() + b"\n")
            process.stdin.flush()
        received, end = b"", monotonic() + self.deadline
        with selectors.DefaultSelector() as selector:
            selector.register(process.stdout, selectors.EVENT_READ)
            while not received.endswith(b"\n"):
                if not selector.select(max(0.0, end - monotonic())):
                    self._end(patience=0.0)
                    raise CompilerFailed(
                        f"the compiler gave no answer within {self.deadline:g} s and was ended; --deadline allows it more"
                    )
                piece = os.read(process.stdout.fileno(), 1 << 16)
                if not piece:
                    code, log = self._end()
                    raise CompilerFailed(_last_words(code, log))
                received += piece
        return json.loads(received)

    def _end(self, patience: float = GOODBYE) -> tuple[int, str]:
        """End the child and all that it started; its exit code and what it logged."""
        process, log = self._process, self._log
        if process is None:
            return 0, ""
        self._process = None
        process.stdin.close()
        with suppress(subprocess.TimeoutExpired):
            process.wait(patience)
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        process.stdout.close()
        log.seek(0)
        with log:
            return code, log.read().decode(errors="replace")


def _last_words(code: int, log: str) -> str:
    """Why a child died, from its log."""
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"exited with code {code}"
    fatal = _FATAL.search(log)
    lines = log.strip().splitlines()
    why = profile.abortion(log) or (fatal[1] if fatal else lines[-1] if lines else "it left no message")
    return _advised(f"the compiler's process {how}: {why}")


def _advised(message: str) -> str:
    advice = next((advice for words, advice in _ADVICE if words in message), None)
    return f"{message} ({advice})" if advice else message
