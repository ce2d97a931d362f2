"""Programs on disk: read as they were written, and nothing in a file is unpickled, linked or evaluated."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from contextlib import suppress

import pytest
import torch
from torch import nn

from accelops import deploy
from accelops.deploy.graph import export

MODEL = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU()).eval()
X = torch.randn(2, 1, 3, 3)
ran: list[str] = []


class Trap:
    """What runs when it is unpickled."""

    def __reduce__(self):
        return spring, ("unpickled",)


def spring(what: str) -> None:
    ran.append(what)


@pytest.fixture
def archive(tmp_path):
    ran.clear()
    path = tmp_path / "model.pt2"
    deploy.save(export(MODEL, (X,)), path)
    return path


def rewritten(path, change):
    """The archive with records changed: `change` takes their contents by name and returns them. As torch writes them."""
    with zipfile.ZipFile(path) as old:
        root = old.namelist()[0].split("/")[0]
        records = {name.removeprefix(f"{root}/"): old.read(name) for name in old.namelist()}
    records = {name: content for name, content in records.items() if name not in ("version", ".data/serialization_id")}
    writer = torch._C.PyTorchFileWriter(str(path))
    for name, content in change(records).items():
        if name not in (".data/version", "byteorder"):
            writer.write_record(name, content, len(content))
    writer.write_end_of_file()


def test_a_program_comes_back_and_the_folder_holds_nothing_else(archive):
    program = deploy.load(archive)
    x = torch.randn(5, 1, 3, 3)
    torch.testing.assert_close(program.module()(x), MODEL(x), atol=0, rtol=0)
    assert [p.name for p in archive.parent.iterdir()] == ["model.pt2"]


def test_rewriting_alone_changes_nothing(archive):
    rewritten(archive, lambda records: records)
    assert deploy.load(archive).graph_signature.user_inputs


def test_a_write_that_fails_leaves_no_file(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.export, "save", lambda *_: (_ for _ in ()).throw(OSError("disk full")))
    with pytest.raises(OSError, match="disk full"):
        deploy.save(export(MODEL, (X,)), tmp_path / "model.pt2")
    assert not list(tmp_path.iterdir())


def changed_json(records, name, change):
    content = json.loads(records[name])
    change(content)
    return {**records, name: json.dumps(content).encode()}


def pickled_weight(records):
    def change(config):
        config["config"]["0.weight"]["use_pickle"] = True

    records = {**records, "data/weights/weight_0": pickle.dumps(Trap())}
    return changed_json(records, "data/weights/model_weights_config.json", change)


def custom_constant(records):
    def change(config):
        config["config"]["c"] = {
            "path_name": "opaque_obj_0",
            "is_param": False,
            "use_pickle": True,
            "tensor_meta": None,
        }

    records = {**records, "data/constants/opaque_obj_0": pickle.dumps(Trap())}
    return changed_json(records, "data/constants/model_constants_config.json", change)


def old_weights(records):
    return {**records, "data/weights/model.pt": pickle.dumps(Trap())}


def sample_inputs(records):
    buffer = io.BytesIO()
    torch.save(((Trap(),), {}), buffer)
    return {**records, "data/sample_inputs/model.pt": buffer.getvalue()}


def library(records):
    return {**records, "data/aotinductor/model/model.so": b"\x7fELF"}


def _first_expression(value, new):
    if isinstance(value, dict):
        if "expr_str" in value:
            value["expr_str"] = new
            return True
        value = list(value.values())
    return isinstance(value, list) and any(_first_expression(item, new) for item in value)


def expression(records):
    def change(program):
        assert _first_expression(program, "eval(Symbol('x'))")

    return changed_json(records, "models/model.json", change)


def any_function(records):
    def change(program):
        program["graph_module"]["graph"]["nodes"][-1]["target"] = "torch._C._set_grad_enabled"

    return changed_json(records, "models/model.json", change)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (pickled_weight, "a pickled 0.weight"),
        (custom_constant, "a pickled c"),
        (old_weights, r"pickled tensors \(data/weights/model.pt\)"),
        (sample_inputs, "sample inputs that are not tensors"),
        (library, "a compiled library"),
        (expression, r"the size \"eval\(Symbol\('x'\)\)\""),
        (any_function, "the call of <built-in function _set_grad_enabled"),
    ],
)
def test_what_would_be_unpickled_linked_or_run_is_refused_by_name(archive, change, words):
    rewritten(archive, change)
    with pytest.raises(ValueError, match=words):
        deploy.load(archive)
    assert not ran


def test_torch_itself_would_have_run_it(archive):
    """Why load does not trust torch.export.load: its guard gives way."""
    rewritten(archive, sample_inputs)
    with suppress(TypeError):  # its warning of this has an argument too few (torch 2.13)
        torch.export.load(archive)
    assert ran


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"not an archive"])
def test_a_file_that_is_no_archive_is_refused(tmp_path, content):
    path = tmp_path / "model.pt2"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"is no archive of torch\.export\.save"):
        deploy.load(path)
    with pytest.raises(FileNotFoundError):
        deploy.load(tmp_path / "other.pt2")
