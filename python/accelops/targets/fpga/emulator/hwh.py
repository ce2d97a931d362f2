"""The least .hwh that pynq reads: a processing system with its clocks and ports, and the kernels with their registers.

Real ones are written by Vivado; this one describes the same system for an overlay that is emulated.
"""

from __future__ import annotations

from xml.sax.saxutils import quoteattr

from ..boards import Board
from ..model import ceil_div
from ..registers import CONTROL_BITS, Kernel, kernels, offsets

DESIGN = "accelops"
AXIMM = 'VLNV="xilinx.com:interface:aximm:1.0"'
READ_ONLY = ("AP_DONE", "AP_IDLE", "AP_READY")
PL_CLOCKS = range(4)


def hwh(board: Board, addresses: dict[str, int]) -> str:
    """Of the kernels at `addresses`."""
    zynq7000 = board.family == "zynq7000"
    system = "processing_system7" if zynq7000 else "zynq_ultra_ps_e"
    port = "M_AXI_GP0" if zynq7000 else "M_AXI_HPM0_FPD"
    parameters = _zynq7000(board) if zynq7000 else _ultrascale(board)
    ranges = [_range(board, port, top, base) for top, base in addresses.items()]
    lines = [
        '<?xml version="1.0" encoding="UTF-8"?>',
        "<EDKSYSTEM>",
        _tag("SYSTEMINFO", ARCH="zynq" if zynq7000 else "zynquplus", DEVICE=_device(board), NAME=DESIGN),
        "<EXTERNALPORTS/><EXTERNALINTERFACES/>",
        "<MODULES>",
        _open("MODULE", FULLNAME="/ps", INSTANCE="ps", MODTYPE=system, VLNV=f"xilinx.com:ip:{system}:1.0"),
        "<PARAMETERS>",
        *(_tag("PARAMETER", NAME=name, VALUE=value) for name, value in parameters.items()),
        "</PARAMETERS>",
        f'<BUSINTERFACES><BUSINTERFACE NAME="{port}" TYPE="MASTER" {AXIMM}/></BUSINTERFACES>',
        "<MEMORYMAP>",
        *ranges,
        "</MEMORYMAP>",
        "</MODULE>",
        *(line for top in addresses for line in _module(board, kernels()[top])),
        "</MODULES>",
        "</EDKSYSTEM>",
    ]
    return "\n".join(lines) + "\n"


def _open(tag: str, **attributes: object) -> str:
    return f"<{tag} {' '.join(f'{name}={quoteattr(str(value))}' for name, value in attributes.items())}>"


def _tag(tag: str, **attributes: object) -> str:
    return _open(tag, **attributes)[:-1] + "/>"


def _device(board: Board) -> str:
    """xc7z020clg400-1 is a 7z020, xczu7ev-ffvc1156-2-e a xczu7ev."""
    return board.part.removeprefix("xc")[:5] if board.family == "zynq7000" else board.part.split("-")[0]


def _zynq7000(board: Board) -> dict[str, object]:
    """PL clocks from an IO PLL at 1000 MHz; only the first is used."""
    clocks = {
        f"PCW_FCLK{i}_PERIPHERAL_{name}": value
        for i in PL_CLOCKS
        for name, value in (("DIVISOR0", ceil_div(1000, board.clock_mhz)), ("DIVISOR1", 1), ("CLKSRC", "IO PLL"))
    }
    enabled = {f"PCW_FPGA_FCLK{i}_ENABLE": int(i == 0) for i in PL_CLOCKS}
    frequencies = {f"PCW_ACT_FPGA{i}_PERIPHERAL_FREQMHZ": f"{board.clock_mhz:.6f}" for i in PL_CLOCKS}
    return clocks | enabled | frequencies


def _ultrascale(board: Board) -> dict[str, object]:
    """PL clocks from an IOPLL at 1500 MHz; only the first is used."""
    clocks = {
        f"PSU__CRL_APB__PL{i}_REF_CTRL__{name}": value
        for i in PL_CLOCKS
        for name, value in (
            ("DIVISOR0", ceil_div(1500, board.clock_mhz)),
            ("DIVISOR1", 1),
            ("SRCSEL", "IOPLL"),
            ("ACT_FREQMHZ", f"{board.clock_mhz:.6f}"),
        )
    }
    enabled = {f"PSU__FPGA_PL{i}_ENABLE": int(i == 0) for i in PL_CLOCKS}
    # High-performance port i is slave port i + 2 of the processing system.
    widths = {f"C_SAXIGP{i + 2}_DATA_WIDTH": board.ports.bits for i in range(board.ports.number)}
    return clocks | enabled | widths


def _range(board: Board, port: str, top: str, base: int) -> str:
    return _tag(
        "MEMRANGE",
        ADDRESSBLOCK="Reg",
        BASEVALUE=f"{base:#010x}",
        HIGHVALUE=f"{base + board.control_stride - 1:#010x}",
        INSTANCE=top,
        MASTERBUSINTERFACE=port,
        MEMTYPE="REGISTER",
        SLAVEBUSINTERFACE="s_axi_control",
    )


def _module(board: Board, kernel: Kernel) -> list[str]:
    top = kernel.top
    block = _open("ADDRESSBLOCK", INTERFACE="s_axi_control", NAME="Reg", RANGE=board.control_stride, USAGE="register")
    return [
        _open("MODULE", FULLNAME=f"/{top}", INSTANCE=top, MODTYPE=top, VLNV=f"xilinx.com:hls:{top}:1.0"),
        f"<ADDRESSBLOCKS>{block}<REGISTERS>",
        *_registers(kernel),
        "</REGISTERS></ADDRESSBLOCK></ADDRESSBLOCKS>",
        f'<BUSINTERFACES><BUSINTERFACE NAME="s_axi_control" TYPE="SLAVE" {AXIMM}/></BUSINTERFACES>',
        "</MODULE>",
    ]


def _registers(kernel: Kernel) -> list[str]:
    """As Vitis HLS names them: a pointer's two words are NAME_1 and NAME_2."""
    pointers = {a.name for a in kernel.arguments if a.pointer}
    lines = []
    for name, offset in offsets(kernel).items():
        if name in pointers:
            lines += [_register(f"{name}_1", offset), _register(f"{name}_2", offset + 4)]
        elif name == "CTRL":
            lines.append(_register(name, offset, CONTROL_BITS))
        else:
            lines.append(_register({"IER": "IP_IER", "ISR": "IP_ISR"}.get(name, name), offset))
    return lines


def _register(name: str, offset: int, bits: dict[str, int] | None = None) -> str:
    properties = {
        "DESCRIPTION": name,
        "ADDRESS_OFFSET": f"{offset:#x}",
        "SIZE": 32,
        "ACCESS": "read-write",
        "IS_ENABLED": "true",
    }
    fields = [_field(field, bit) for field, bit in (bits or {}).items()]
    return f"{_open('REGISTER', NAME=name)}{_properties(properties)}<FIELDS>{''.join(fields)}</FIELDS></REGISTER>"


def _field(name: str, bit: int) -> str:
    access = "read-only" if name in READ_ONLY else "read-write"
    properties = {"DESCRIPTION": name, "ACCESS": access, "BIT_OFFSET": bit, "BIT_WIDTH": 1}
    return f"{_open('FIELD', NAME=name)}{_properties(properties)}</FIELD>"


def _properties(values: dict[str, object]) -> str:
    return "".join(_tag("PROPERTY", NAME=name, VALUE=value) for name, value in values.items())
