"""Writes what the package knows of itself from the committed results: kernels/<op>/evidence.json, which `accelops verify`
shows, and kernels/<op>/tuned/<device>.json, the tables that benchmarks/gpu.py has made.

    python benchmarks/record.py

For each (op, target) that ran in a result, the newest evidence of each kind. Everything is derived: run it again after
results have changed, never edit the files.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from accelops.dispatch import tuned

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "benchmarks" / "results"


def main() -> None:
    newest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for op, target, evidence in pieces():
        key = (op, target, evidence["kind"])
        if key not in newest or newest[key]["date"] <= evidence["date"]:
            newest[key] = evidence
    for op in sorted({op for op, _, _ in newest}):
        found: dict[str, list[dict[str, Any]]] = {}
        for (of, target, _), evidence in sorted(newest.items()):
            if of == op:
                found.setdefault(target, []).append(evidence)
        write(ROOT / "kernels" / op / "evidence.json", found)
    for file in sorted(RESULTS.glob("*.json")):
        for op, table in json.loads(file.read_text()).get("tuned", {}).items():
            write(ROOT / "kernels" / op / "tuned" / tuned.file_name(table["device"]), table)


def pieces() -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(op, target, evidence) of every result: what ran in a row, and what was compiled."""
    for file, result in committed():
        evidence = {k: result["evidence"][k] for k in ("kind", "device", "versions", "date", "command")}
        evidence["result"] = f"benchmarks/results/{file.name}"
        ran = {(line["op"], line["target"]) for row in result.get("rows", ()) for line in row.get("ran", ())}
        compiled = {
            (kernel.split()[0], "triton") for part in result.get("compiled", ()) for kernel in part["by_kernel"]
        }
        compiled |= {(row["op"], "xla") for row in result.get("rows", ()) if row.get("ours")}  # of accelops tpu aot
        for op, target in ran | (compiled if evidence["kind"] == "compiled" else set()):
            if target != "aten":
                yield op, target, evidence


def committed() -> Iterator[tuple[Path, dict[str, Any]]]:
    """Every result that has evidence, with its file: one to a file, or several in one of benchmarks/gpu.py."""
    for file in sorted(RESULTS.glob("*.json")):
        content = json.loads(file.read_text())
        yield from ((file, result) for result in (content, *content.get("results", ())) if "evidence" in result)


def write(path: Path, content: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content, indent=1) + "\n")
    print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
