"""What the Specs of all ops share: a frozen dataclass of plain values that goes to JSON and back.

A Spec describes one problem of an op completely. Dispatch selects by it, tuned tables are keyed by it, benchmarks are fed
it. Dtypes and memory formats are torch's names as strings ("bfloat16", "channels_last"), so that this file needs no torch.
"""

from __future__ import annotations

import dataclasses
import json
from typing import Any, ClassVar, TypeVar

S = TypeVar("S", bound="Spec")

ITEMSIZE = {"float64": 8, "float32": 4, "bfloat16": 2, "float16": 2, "complex64": 8, "complex128": 16, "complex32": 4}


class Spec:
    """Base of ConvSpec, AdamSpec and BucketSpec; each sets `op` and computes its own `flops` and minimal `bytes`."""

    op: ClassVar[str]
    device: str

    @property
    def flops(self) -> int:
        """Floating-point operations, a fused multiply-add counted as two."""
        raise NotImplementedError

    @property
    def bytes(self) -> int:
        """Bytes that must be read and written at least once."""
        raise NotImplementedError

    def to_json(self) -> str:
        """A canonical JSON object: the key of this Spec in a tuned table."""
        return json.dumps(dataclasses.asdict(self), separators=(",", ":"))  # type: ignore[call-overload]

    @classmethod
    def from_json(cls: type[S], text: str) -> S:
        """The inverse of to_json. Raises ValueError for text that is not such an object."""
        fields: Any = json.loads(text)
        if not isinstance(fields, dict):
            raise ValueError(f"{cls.__name__}.from_json: expected a JSON object, got {type(fields).__name__}")
        try:
            return cls(**{k: tuple(v) if isinstance(v, list) else v for k, v in fields.items()})
        except TypeError as error:
            raise ValueError(f"{cls.__name__}.from_json: {error}") from None
