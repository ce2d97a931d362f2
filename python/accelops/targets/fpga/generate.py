"""Writes hls/generated/ from hls/boards/*.json and hls/*/kernel*.json: `python -m accelops.targets.fpga.generate`.

For each board: board.hpp (sizes, for the kernels), board.svh (sizes and registers, for hls/rtl), board.tcl (variables, for
the scripts of Vivado), registers.json (the register map, for drivers), link.cfg (for an Alveo card, AMD UG1393 "v++
Command") and, per kernel, hls_config.cfg (for vitis-run and v++, AMD UG1399 "HLS Config File Commands").
With --check nothing is written; exit status 1 says that a file is not what would be written.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from .boards import Board, board, hls_folder, names
from .registers import CONTROL_BITS, FIRST_ARGUMENT, Kernel, config_hash, kernels, offsets

NEVER = "Generated from hls/boards/{name}.json by `python -m accelops.targets.fpga.generate`: never edit it."


def header(b: Board) -> str:
    identities = [
        f"constexpr uint64_t k{_camel(k.top)}Identity = {config_hash(k, b) << 32 | k.version:#018x}ull;"
        for k in kernels().values()
    ]
    sizes = [
        f"constexpr int k{_camel(kernel)}{_camel(size)} = {value};"
        for kernel, of_kernel in b.sizes.items()
        for size, value in of_kernel.items()
    ]
    lines = [
        f"// {NEVER.format(name=b.name)}",
        f"// {b.title}: {b.part}, {b.clock_mhz} MHz.",
        "#pragma once",
        "",
        "#include <cstdint>",
        "",
        "namespace accelops {",
        "",
        f"constexpr int kPortBits = {b.ports.bits};",
        f"constexpr int kPorts = {b.ports.number};",
        f"constexpr int kStreamDepth = {b.stream_depth};",
        *sizes,
        "",
        "// CONFIG_HASH in the upper word, VERSION in the lower.",
        *identities,
        "",
        "}  // namespace accelops",
    ]
    return "\n".join(lines) + "\n"


def _camel(name: str) -> str:
    return "".join(word.capitalize() for word in name.split("_"))


def svh(b: Board) -> str:
    """Registers are counted in words from the first argument; bit i of ARGUMENTS: word i is one, or half of a pointer."""
    lines = [
        f"// {NEVER.format(name=b.name)}",
        f"`define ACCELOPS_PORT_BITS {b.ports.bits}",
        f"`define ACCELOPS_STREAM_DEPTH {b.stream_depth}",
        f"`define ACCELOPS_BURST_BEATS {b.burst.beats}",
        f"`define ACCELOPS_BURST_OUTSTANDING {b.burst.outstanding}",
    ]
    for kernel, of_kernel in b.sizes.items():
        lines += [f"`define ACCELOPS_{kernel.upper()}_{size.upper()} {value}" for size, value in of_kernel.items()]
    for k in kernels().values():
        at = offsets(k)
        words = {a.name: (at["VERSION" if a.kind == "identity" else a.name] - FIRST_ARGUMENT) // 4 for a in k.arguments}
        held = [words[a.name] + half for a in k.arguments if a.kind != "identity" for half in range(1 + a.pointer)]
        count = words["identity"] + 2
        values = {name.upper(): word for name, word in words.items()} | {
            "WORDS": count,
            "ARGUMENTS": f"{count}'h{sum(1 << word for word in held):x}",
            "VERSION": f"32'h{k.version:x}",
            "CONFIG_HASH": f"32'h{config_hash(k, b):x}",
        }
        lines += [f"`define ACCELOPS_{k.top.upper()}_{name} {value}" for name, value in values.items()]
    return "\n".join(lines) + "\n"


def tcl(b: Board) -> str:
    values = {
        "board": b.name,
        "part": b.part,
        "board_part": b.board_part or "",
        "family": b.family,
        "platform": b.platform or "",
        "clock_mhz": b.clock_mhz,
        "control_base": "" if b.control_base is None else f"{b.control_base:#x}",
        "control_stride": f"{b.control_stride:#x}",
        "port_bits": b.ports.bits,
        "ports": list(b.ports.names),
        "kernels": list(kernels()),
    }
    lines = [f"# {NEVER.format(name=b.name)}"]
    for name, value in values.items():
        lines.append(f"set accelops_{name} {{{' '.join(value) if isinstance(value, list) else value}}}")
    for kernel in kernels().values():
        lines.append(f"set accelops_bundles({kernel.top}) {{{' '.join(kernel.bundles)}}}")
    return "\n".join(lines) + "\n"


def registers(b: Board) -> str:
    result = {
        "about": NEVER.format(name=b.name),
        "board": b.name,
        "control_bits": CONTROL_BITS,
        "overlays": b.overlays,
        "kernels": {
            k.top: {
                "base": None if b.control_base is None else f"{b.control_base + i * b.control_stride:#x}",
                "version": k.version,
                "config_hash": f"{config_hash(k, b):#010x}",
                "registers": {name: f"{offset:#04x}" for name, offset in offsets(k).items()},
                "pointers": {a.name: a.bundle for a in k.arguments if a.pointer},
            }
            for i, k in enumerate(kernels().values())
        },
    }
    return json.dumps(result, indent=2) + "\n"


def config(k: Kernel, b: Board) -> str:
    """Paths are relative to the file, which is where hls/Makefile runs the tools."""
    flags = f"-std=c++14 -I../../../include -I.. -I../../../{k.op}"
    lines = [
        f"# {NEVER.format(name=b.name)}",
        f"part={b.part}",
        "",
        "[hls]",
        f"flow_target={b.flow}",
        f"package.output.format={'xo' if b.flow == 'vitis' else 'ip_catalog'}",
        f"clock={b.clock_mhz}MHz",
        f"syn.top={k.top}",
        *(f"syn.op=op:{op} impl:fabric" for op in ("fadd", "fsub") if k.top in b.fabric_adders),
        *(f"syn.file=../../../{source}" for source in k.sources),
        f"syn.cflags={flags}",
        f"tb.file=../../../{k.testbench}",
        f"tb.cflags={flags}",
    ]
    return "\n".join(lines) + "\n"


def link(b: Board) -> str:
    """v++ --link: a compute unit of every kernel for each bank of memory, so that each bank has its own."""
    lines = [
        f"# {NEVER.format(name=b.name)}",
        f"platform={b.platform}",
        f"kernel_frequency={b.clock_mhz}",
        "",
        "[connectivity]",
    ]
    for k in kernels().values():
        units = [f"{k.top}_{i + 1}" for i in range(b.ddr.banks)]
        lines.append(f"nk={k.top}:{b.ddr.banks}:{'.'.join(units)}")
        lines += [f"sp={unit}.{a.name}:DDR[{i}]" for i, unit in enumerate(units) for a in k.arguments if a.pointer]
    return "\n".join(lines) + "\n"


def generated() -> dict[Path, str]:
    """Every generated file and its text."""
    files = {}
    for name in names():
        b, folder = board(name), hls_folder() / "generated" / name
        files |= {
            folder / "board.hpp": header(b),
            folder / "board.svh": svh(b),
            folder / "board.tcl": tcl(b),
            folder / "registers.json": registers(b),
        }
        if b.family == "alveo":
            files[folder / "link.cfg"] = link(b)
        files |= {folder / k.top / "hls_config.cfg": config(k, b) for k in kernels().values()}
    return files


def stale() -> list[Path]:
    """Generated files that are missing, differ, or belong to no board or kernel any more."""
    files = generated()
    present = {path for path in (hls_folder() / "generated").rglob("*") if path.is_file()}
    differ = [path for path, text in files.items() if path not in present or path.read_text() != text]
    return differ + sorted(present - set(files))


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        for path in stale():
            print(f"{path} is not current: python -m accelops.targets.fpga.generate")
        return int(bool(stale()))
    files = generated()
    for path in stale():
        if path in files:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(files[path])
        else:
            path.unlink()
        print(path)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
