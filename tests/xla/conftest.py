"""These tests run on torch_xla's CPU device, where torch_xla is installed."""

from __future__ import annotations

import os
from importlib.util import find_spec

if find_spec("torch_xla") is None:
    collect_ignore_glob = ["*"]
else:
    os.environ.setdefault("PJRT_DEVICE", "CPU")  # before anything imports torch_xla
