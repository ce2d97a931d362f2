"""Writes kernels/<op>/evidence.json, what `accelops verify` shows, from the committed results of `accelops bench --json`.

    python benchmarks/record.py

For each (op, target) that ran in a result, the newest evidence of each kind. Everything is derived: run it again after
results have changed, never edit the files.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]


def main() -> None:
    newest: dict[tuple[str, str, str], dict[str, Any]] = {}
    for file in sorted((ROOT / "benchmarks" / "results").glob("*.json")):
        result = json.loads(file.read_text())
        if "evidence" not in result or "rows" not in result:
            continue
        evidence = {k: result["evidence"][k] for k in ("kind", "device", "versions", "date", "command")}
        evidence["result"] = f"benchmarks/results/{file.name}"
        ran = {(line["op"], line["target"]) for row in result["rows"] for line in row.get("ran", ())}
        for op, target in ran - {(op, "aten") for op, _ in ran}:
            key = (op, target, evidence["kind"])
            if key not in newest or newest[key]["date"] <= evidence["date"]:
                newest[key] = evidence
    for op in sorted({op for op, _, _ in newest}):
        found: dict[str, list[dict[str, Any]]] = {}
        for (of, target, _), evidence in sorted(newest.items()):
            if of == op:
                found.setdefault(target, []).append(evidence)
        path = ROOT / "kernels" / op / "evidence.json"
        path.write_text(json.dumps(found, indent=1) + "\n")
        print(path.relative_to(ROOT))


if __name__ == "__main__":
    main()
