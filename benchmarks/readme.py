"""Writes the table of measured suites into README.md, between its markers, from benchmarks/results/*.json.

python benchmarks/readme.py
"""

from __future__ import annotations

from record import ROOT, committed

BEGIN, END = "<!-- measured: begin -->", "<!-- measured: end -->"


def main() -> None:
    lines = [
        "| suite | vs torch as called: rows, whole | vs torch's best: rows, whole | rows | below 0.97x of either | device, threads, torch, date |",
        "|---|---|---|---|---|---|",
    ]
    for file, result in committed():
        if "geometric_means" not in result or result["suite"] == "overhead":
            continue
        means, evidence = result["geometric_means"], result["evidence"]
        pairs = (means[name] for name in ("ratio_vs_torch", "ratio_vs_torch_best"))
        figures = (f"{pair['unweighted']:.2f}x, {pair['total']:.2f}x" for pair in pairs)
        where = f"{evidence['device']}, {evidence['threads']}, {evidence['versions']['torch']}, {evidence['date']}"
        suite = " ".join(filter(None, (result["suite"], result.get("dtype"))))
        lines.append(
            f"| [{suite}](benchmarks/results/{file.name}) | {' | '.join(figures)} | {len(result['rows'])} | {len(result['losses'])} | {where} |"
        )
    readme = ROOT / "README.md"
    before, rest = readme.read_text().split(BEGIN)
    readme.write_text(f"{before}{BEGIN}\n" + "\n".join(lines) + f"\n{END}{rest.split(END)[1]}")


if __name__ == "__main__":
    main()
