"""Exported programs on disk (.pt2), read without unpickling anything.

torch.export.load (torch 2.13) is not safe by itself: sample inputs that torch.load(weights_only=True) refuses are unpickled
without that guard, weights and constants that are tensor subclasses or objects are always unpickled, compiled libraries in
the archive are loaded into the process, and symbolic sizes are evaluated by sympy. So the bytes are read once, everything
of that kind is refused here, and torch is given the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.pt2_archive._package import PT2ArchiveReader

# What symbolic sizes are written with; a name that is none of these could be any function of Python to sympy.
_SYMBOLIC = re.compile(
    r"Symbol|Integer|Rational|Add|Mul|Pow|Mod|PythonMod|FloorDiv|CleanDiv|CeilDiv|Max|Min|Abs|"
    r"positive|negative|nonnegative|nonzero|integer|real|True|False|[a-z]{1,3}\d+"
)
_EXPRESSION = re.compile(r"[\w\s'=,()+*/-]*")
_ARITHMETIC = re.compile(r"getitem|add|sub|mul|truediv|floordiv|mod|neg|pow|eq|ne|lt|le|gt|ge|and_|or_|not_|pos|abs")


def load(path: str | Path) -> ExportedProgram:
    """The program that torch.export.save wrote to `path`. Raises FileNotFoundError; ValueError, naming all that is wrong,
    where the file is no such archive or holds anything that would be unpickled or run."""
    content = Path(path).read_bytes()
    try:
        reader = PT2ArchiveReader(io.BytesIO(content))
        names = reader.get_file_names()
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"{path} is no archive of torch.export.save: {error}") from None
    if "models/model.json" not in names:
        raise ValueError(
            f"{path} holds no exported program named model: write it with torch.export.save(program, path)"
        )
    _raise(path, list(_refused(reader, names)))
    try:
        program = torch.export.load(io.BytesIO(content))
    except Exception as error:  # whatever torch's deserializer stumbles over, the file is what is wrong
        raise ValueError(
            f"{path} was not written by a torch that torch {torch.__version__} can read: {error}"
        ) from error
    _raise(path, sorted({f"the call of {node.target}" for node in _calls(program) if not _harmless(node.target)}))
    return program


def save(program: ExportedProgram, path: str | Path) -> None:
    """Writes `program` to `path`, whole or not at all."""
    path = Path(path)
    handle, temporary = tempfile.mkstemp(prefix=f".{path.stem}-", suffix=".pt2", dir=path.parent)
    os.close(handle)
    try:
        torch.export.save(program, temporary)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _raise(path: str | Path, refused: list[str]) -> None:
    if refused:
        raise ValueError(
            f"{path} is not loaded, because nothing from a file is unpickled or run: it holds {'; '.join(refused)}. "
            "Export the plain model, in tensors of class torch.Tensor, with torch.export.save"
        )


def _refused(reader: PT2ArchiveReader, names: list[str]) -> Iterator[str]:
    """What torch.export.load would unpickle, link or evaluate."""
    for name in names:
        if name.startswith("data/aotinductor/"):
            yield f"a compiled library ({name})"
        if name.startswith(("data/weights/", "data/constants/")) and name.endswith(".pt"):
            yield f"pickled tensors ({name})"
        if name.startswith(("data/weights/", "data/constants/")) and name.endswith("_config.json"):
            payloads = json.loads(reader.read_string(name))["config"]
            yield from (f"a pickled {key}" for key, payload in payloads.items() if payload["use_pickle"])
        if name.startswith("data/sample_inputs/") and not _plain(reader.read_bytes(name)):
            yield f"sample inputs that are not tensors ({name})"
        if name.startswith("models/"):
            expressions = _expressions(json.loads(reader.read_string(name)))
            yield from (f"the size {text!r}" for text in set(expressions) if not _symbolic(text))


def _plain(pickled: bytes) -> bool:
    if not pickled:
        return True
    try:
        torch.load(io.BytesIO(pickled), weights_only=True)
    except Exception:  # torch then unpickles without the guard, for whatever reason this failed
        return False
    return True


def _expressions(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("expr_str"), str):
            yield value["expr_str"]
        value = list(value.values())
    if isinstance(value, list):
        for item in value:
            yield from _expressions(item)


def _symbolic(text: str) -> bool:
    names = re.findall(r"[^\W\d]\w*", text)
    return bool(_EXPRESSION.fullmatch(text)) and all(_SYMBOLIC.fullmatch(n) for n in names)


def _calls(program: ExportedProgram) -> Iterator[torch.fx.Node]:
    for module in program.graph_module.modules():
        if isinstance(module, torch.fx.GraphModule):
            yield from (node for node in module.graph.nodes if node.op == "call_function")


def _harmless(target: object) -> bool:
    """An operator of torch's registry, or arithmetic on sizes; a file may name any function of torch or Python."""
    if isinstance(target, torch._ops.OpOverload | torch._ops.HigherOrderOperator):
        return True
    module, name = getattr(target, "__module__", ""), getattr(target, "__name__", "")
    return (module == "_operator" and bool(_ARITHMETIC.fullmatch(name))) or (
        module == "torch" and name.startswith("sym_")
    )
