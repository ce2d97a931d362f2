"""`import accelops` is light, and brings the faces when they are asked for."""

from __future__ import annotations

import subprocess
import sys

HEAVY = ("triton", "jax", "pynq", "torch_xla", "typer", "rich", "matplotlib", "sklearn", "transformers")


def python(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=True).stdout


def test_nothing_heavy_comes_with_it():
    loaded = python(
        "import torch, sys; before = set(sys.modules); import accelops; print(*(set(sys.modules) - before))"
    )
    assert not {name.partition(".")[0] for name in loaded.split()} & set(HEAVY)


def test_the_faces_are_attributes():
    code = "import accelops; print(accelops.nn.Conv2d, accelops.optim.Adam, accelops.functional.conv2d, accelops.distributed)"
    assert "accelops" in python(code)


def test_an_unknown_name_is_an_attribute_error():
    assert "no attribute 'nonsense'" in python(
        "import accelops\ntry: accelops.nonsense\nexcept AttributeError as e: print(e)"
    )
