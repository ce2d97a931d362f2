"""Which way onto a TPU is here, and what is said where none is or two are."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from types import SimpleNamespace

import pytest

from accelops.targets import xla


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Versions by package, as if these alone were installed."""
    packages: dict[str, str] = {}
    monkeypatch.setattr(xla, "installed", packages.get)
    return packages


@pytest.mark.parametrize(
    "packages",
    [
        {"jax": "0.10.2"},
        {"jax": "0.10.2", "torch_tpu": "0.2.0"},
        {"jax": "0.7.1", "torch_xla": "2.9.0"},
        {"jax": "0.8.3", "torch_xla": "2.9.0"},
    ],
)
def test_what_goes_together_is_ready(environment: dict[str, str], packages: dict[str, str]) -> None:
    environment.update(packages)
    assert xla.unavailable() is None


@pytest.mark.parametrize(
    ("packages", "words"),
    [
        ({}, "pip install 'accelops[tpu]'"),
        ({"torch_xla": "2.9.0"}, "pip install 'accelops[torch-xla]'"),
        ({"torch_tpu": "0.2.0"}, "pip install 'accelops[torch-tpu]'"),
        ({"jax": "0.10.2", "torch_xla": "2.9.0", "torch_tpu": "0.2.0"}, "uninstall one of them"),
        ({"jax": "0.10.2", "torch_xla": "2.9.0"}, "jax>=0.7.1,<0.9"),
        ({"jax": "0.7.1", "torch_tpu": "0.2.0"}, "jax>=0.10.2,<0.11"),
        ({"jax": "0.9.0"}, "jax 0.9.0 does not go with these kernels"),
    ],
)
def test_what_is_missing_is_said_with_the_command(
    environment: dict[str, str], packages: dict[str, str], words: str
) -> None:
    environment.update(packages)
    assert words in (xla.unavailable() or "")


@pytest.mark.parametrize(
    ("kind", "chip"),
    [("TPU v5 lite", "v5e"), ("v5litepod", "v5e"), ("v5p", "v5p"), ("TPU7x", "v7x"), ("TPU v3", None), ("", None)],
)
def test_a_chip_is_known_by_what_its_runtime_calls_it(
    kind: str, chip: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(xla, "bridge", lambda device: SimpleNamespace(kind=lambda: kind))
    assert xla.chip.__wrapped__("xla") == chip


@pytest.mark.skipif(find_spec("jax") is None, reason="needs jax")
def test_a_convolution_on_the_cpu_imports_no_jax() -> None:
    script = """
import sys, torch, accelops
accelops.enable()
torch.conv2d(torch.ones(1, 8, 8, 8), torch.ones(8, 1, 3, 3), groups=8)
assert not {"jax", "torch_xla", "pynq"} & sys.modules.keys()
"""
    subprocess.run([sys.executable, "-c", script], check=True, timeout=120)
