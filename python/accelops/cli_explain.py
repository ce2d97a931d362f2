"""The command `accelops explain`: which implementation runs a problem of an op, and why no other."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.markup import escape

from accelops.terminal import AsJson, Target, bad_input, emit, sizes, stdout

if TYPE_CHECKING:
    from accelops.dispatch.explain import Explanation

app = typer.Typer(no_args_is_help=True, help="Which implementation runs a problem, and why no other.")


@app.command("conv")
def explain_conv(
    input: Annotated[str, typer.Option(help="Shape: 16,144,56,56")],
    weight: Annotated[str, typer.Option(help="Shape: 144,1,3,3")],
    stride: str = "1",
    padding: str = "0",
    dilation: str = "1",
    output_padding: str = "0",
    groups: int = 1,
    transposed: Annotated[bool, typer.Option("--transposed")] = False,
    bias: Annotated[bool, typer.Option("--bias")] = False,
    activation: Annotated[str, typer.Option(help="none, relu, silu or gelu, fused.")] = "none",
    dtype: str = "float32",
    channels_last: Annotated[bool, typer.Option("--channels-last")] = False,
    device: str = "cpu",
    direction: Annotated[str | None, typer.Option(help="fprop, dgrad or wgrad; default: all.")] = None,
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """A convolution, in all three directions."""
    from accelops import TargetUnavailable, explain

    with bad_input(TargetUnavailable):
        shapes = sizes(input, "--input"), sizes(weight, "--weight")
        lists = [sizes(text, option) for text, option in ((stride, "--stride"), (padding, "--padding"), (dilation, "--dilation"), (output_padding, "--output-padding"))]  # fmt: skip
        refuse_what_torch_refuses(*shapes, *lists, transposed, groups, dtype, activation, direction)
        names = ("stride", "padding", "dilation", "output_padding")
        problem: dict[str, Any] = {name: v[0] if len(v) == 1 else v for name, v in zip(names, lists, strict=True)}
        found = explain(
            "conv",
            target,
            input=shapes[0],
            weight=shapes[1],
            groups=groups,
            transposed=transposed,
            bias=bias,
            activation=activation,
            dtype=dtype,
            memory_format="channels_last" if channels_last else "contiguous",
            device=device,
            direction=direction,
            **problem,
        )
    show_explanation(found, as_json)


def refuse_what_torch_refuses(
    input: tuple[int, ...],
    weight: tuple[int, ...],
    stride: tuple[int, ...],
    padding: tuple[int, ...],
    dilation: tuple[int, ...],
    output_padding: tuple[int, ...],
    transposed: bool,
    groups: int,
    dtype: str,
    activation: str,
    direction: str | None,
) -> None:
    """Raises ValueError, with torch's own words where torch is asked: on an empty batch, which computes nothing."""
    import torch

    from accelops.kernels.conv.spec import ACTIVATIONS, DIRECTIONS
    from accelops.kernels.spec import ITEMSIZE

    for option, value, known in (("--dtype", dtype, tuple(ITEMSIZE)), ("--activation", activation, ACTIVATIONS), ("--direction", direction or "fprop", DIRECTIONS)):  # fmt: skip
        if value not in known:
            raise ValueError(f"{option}={value!r} is unknown; choose one of {', '.join(known)}")
    if len(input) not in (3, 4, 5) or len(weight) != len(input) or min(input + weight) < 0:
        raise ValueError(
            f"--input={input} and --weight={weight}: expected 3, 4 or 5 sizes each, N C and 1 to 3 spatial"
        )
    operands = (torch.empty((0, *input[1:])), torch.empty(weight), None)
    try:
        torch.ops.aten.convolution(*operands, stride, padding, dilation, transposed, output_padding, groups)
    except RuntimeError as error:
        raise ValueError(f"torch refuses this convolution: {error}") from None


@app.command("adam")
def explain_adam(
    numel: Annotated[int, typer.Option(min=1, help="Elements in all.")],
    tensors: Annotated[int, typer.Option(min=1)] = 1,
    dtype: str = "float32",
    state_dtype: str = "float32",
    amsgrad: Annotated[bool, typer.Option("--amsgrad")] = False,
    master: Annotated[bool, typer.Option("--master", help="fp32 copies of the parameters.")] = False,
    ema: Annotated[bool, typer.Option("--ema", help="An average of the parameters is kept.")] = False,
    device: str = "cpu",
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """A step of Adam or AdamW over a list of parameters."""
    from accelops import TargetUnavailable, explain

    with bad_input(TargetUnavailable):
        found = explain("adam", target, numel=numel, tensors=tensors, dtype=dtype, state_dtype=state_dtype, amsgrad=amsgrad, master=master, ema=ema, device=device)  # fmt: skip
    show_explanation(found, as_json)


@app.command("bucket")
def explain_bucket(
    direction: Annotated[str, typer.Argument(help="pack, unpack or reduce.")],
    numel: Annotated[int, typer.Option(min=1, help="Elements in all.")],
    tensors: Annotated[int, typer.Option(min=1)] = 1,
    dtype: str = "float32",
    wire_dtype: str = "float32",
    ranks: Annotated[int, typer.Option(min=1)] = 1,
    error_feedback: Annotated[bool, typer.Option("--error-feedback")] = False,
    device: str = "cpu",
    target: Target = None,
    as_json: AsJson = False,
) -> None:
    """Packing, unpacking or reducing the flat buffers of all-reduce."""
    from accelops import TargetUnavailable, explain

    with bad_input(TargetUnavailable):
        found = explain("bucket", target, direction=direction, numel=numel, tensors=tensors, dtype=dtype, wire_dtype=wire_dtype, ranks=ranks, error_feedback=error_feedback, device=device)  # fmt: skip
    show_explanation(found, as_json)


def show_explanation(found: Explanation, as_json: bool) -> None:
    if as_json:
        emit(found.to_dict())
    else:
        stdout.print(escape(str(found)), highlight=False, soft_wrap=True)
