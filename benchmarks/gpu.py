"""Everything that accelops can show on one GPU, in stages, within minutes.

    python benchmarks/gpu.py [STAGE ...] [--suites ...] [--dtypes ...] [--minutes 9] [--output FILE]
    python benchmarks/gpu.py --list        what would be done
    python benchmarks/gpu.py --dry-run     everything but launching: needs no GPU, and compiles for --architectures

It needs torch and Triton, no installation and no C++ extension: what is missing serves nobody. The file is written anew after
every step, so that one that is cut short has lost nothing but its end; what time did not allow stands in "left_out". Then
`python benchmarks/record.py` makes the evidence and the shipped tables of it, `python benchmarks/readme.py` the tables.
"""

from __future__ import annotations

import argparse
import atexit
import importlib.util
import json
import os
import random
import shutil
import sys
import tempfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def use_this_tree() -> None:
    """Where accelops is not installed: a folder in which this source tree's parts lie as an installation puts them, for
    this process and those that it starts."""
    if importlib.util.find_spec("accelops") is not None:
        return
    folder = Path(tempfile.mkdtemp(prefix="accelops-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    package = folder / "accelops"
    package.mkdir()
    for part in (*(ROOT / "python" / "accelops").iterdir(), ROOT / "kernels", ROOT / "hls"):
        if not (package / part.name).exists():
            (package / part.name).symlink_to(part)
    sys.path.insert(0, str(folder))
    os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


use_this_tree()

import torch  # noqa: E402
from gpu_report import Report  # noqa: E402

from accelops import judge  # noqa: E402
from accelops.bench import roofline, tuning  # noqa: E402
from accelops.bench.rows import Setting  # noqa: E402
from accelops.bench.run import evidence  # noqa: E402
from accelops.bench.run import run as run_suite  # noqa: E402
from accelops.dispatch import tune, tuned  # noqa: E402
from accelops.kernels.adam.spec import AdamSpec  # noqa: E402
from accelops.kernels.bucket.spec import BucketSpec  # noqa: E402
from accelops.kernels.conv.spec import ACTIVATIONS, ConvSpec  # noqa: E402
from accelops.kernels.spec import Spec  # noqa: E402
from accelops.targets import unavailable  # noqa: E402

SUITES = ("fused", "mobilenet_v3", "convnext", "conformer", "resnext50", "resnet50")
DTYPES = ("bfloat16", "float32")
SECONDS = 0.1  # a row of a suite, and a problem in tuning
SLOWEST = 1.0  # what either may take, graphs and all, for the decision whether there is time for a suite
CHECKED_BATCH = 2
CHECKED_OF_A_KIND = 2
N = 10**6 + 7
LISTS = (
    AdamSpec(N, 13),
    AdamSpec(N, 13, "bfloat16", "bfloat16", amsgrad=True),
    AdamSpec(N, 13, "bfloat16", master=True, ema=True),
    BucketSpec("pack", N, 13, "mixed", "bfloat16", error_feedback=True),
    BucketSpec("unpack", N, 13, wire_dtype="float16"),
    BucketSpec("reduce", N, wire_dtype="bfloat16", ranks=4),
)


# ---- stages ---------------------------------------------------------------------------------------------------------


def environment(report: Report, arguments: argparse.Namespace) -> None:
    """The device, and what a copy and a matrix product reach on it."""
    if arguments.device == "cuda":
        device = torch.cuda.get_device_properties(torch.cuda.current_device())
        names = ("multi_processor_count", "L2_cache_size", "total_memory", "shared_memory_per_block_optin")
        report.content["device"] = {name: getattr(device, name) for name in names}
        report.content["device"]["cudnn"] = torch.backends.cudnn.version()
    report.content["ceilings"] = asdict(roofline.measure(arguments.device))
    print(report.content["ceilings"])


def correctness(report: Report, arguments: argparse.Namespace) -> None:
    """Every Config on a drawn sample of the suites' layers and on lists of tensors, against fp64."""
    specs = checked_specs(arguments, arguments.device)
    compile_ahead(report, specs)
    found = report.content["correctness"] = {"configs": 0, "worst_share_of_allowed": 0.0, "wrong": []}
    for spec in specs:
        if not report.time_for(f"correctness of {spec.to_json()}", 2):
            continue
        for config, verdict in judge.every_config(spec, "triton", arguments.seed):
            found["configs"] += 1
            if isinstance(verdict, float) and verdict <= 1:
                found["worst_share_of_allowed"] = max(found["worst_share_of_allowed"], verdict)
            else:
                found["wrong"].append({"spec": spec.to_json(), "config": tuned.describe(config), "why": verdict})
        report.write()
    print(f"correctness: {found['configs']} configs ran, {len(found['wrong'])} wrong")


def tuning_(report: Report, arguments: argparse.Namespace) -> None:
    """The fastest Config of every layer of the suites, torch's own among them: the tables."""
    report.content["tuned"] = {}
    for name, setting in settings(arguments):
        specs = tuning.specs(name, setting)
        if not report.time_for(f"tuning of {name} in {setting.dtype}", 2 * SLOWEST * len(specs)):
            continue
        compile_ahead(report, specs)
        measured = []
        for spec in specs:
            if report.time_for(f"tuning of {spec.to_json()}", SLOWEST):
                measured.append(tune.measure(spec, SECONDS))
        tune.write([m for m in measured if m is not None])
        taken = Counter(m.target for m in measured if m is not None)
        if taken:
            report.content["tuned"]["conv"] = json.loads(tuned.path("conv", arguments.device, "tuned").read_text())
        print(f"tuning {name} {setting.dtype}: {dict(taken)}")
        report.write()


def layers(report: Report, arguments: argparse.Namespace) -> None:
    """The suites through dispatch, replayed from graphs."""
    for name, setting in settings(arguments):
        bench(report, name, setting, SLOWEST * len(tuning.specs(name, setting)) / 2)


def lists(report: Report, arguments: argparse.Namespace) -> None:
    """Adam and bucketing, launched as scripts launch them; by name, and so without a table."""
    for name in ("adam", "bucket"):
        bench(report, name, Setting(arguments.device, target="triton"), 30)


def overhead(report: Report, arguments: argparse.Namespace) -> None:
    """What a rerouted call costs on the host."""
    bench(report, "overhead", Setting(arguments.device, target="triton"), 30)


def steps(report: Report, arguments: argparse.Namespace) -> None:
    """Whole training steps: eager and in one graph, contiguous and channels_last."""
    for dtype in arguments.dtypes:
        bench(report, "steps", Setting(arguments.device, dtype), 60)


STAGES: dict[str, Callable[[Report, argparse.Namespace], None]] = {
    "environment": environment,
    "correctness": correctness,
    "tuning": tuning_,
    "layers": layers,
    "lists": lists,
    "overhead": overhead,
    "steps": steps,
}


def bench(report: Report, name: str, setting: Setting, seconds: float) -> None:
    if not report.time_for(f"{name} in {setting.dtype}", seconds):
        return
    known = report.content.get("ceilings")
    try:
        result = run_suite(name, SECONDS, setting, ceilings=roofline.Ceilings(**known) if known else None).to_dict()
    except ModuleNotFoundError as missing:
        report.content["left_out"].append(f"{name}: {missing}")
        return
    report.content["results"].append({**result, "dtype": setting.dtype})
    means = {kind: round(mean["unweighted"], 3) for kind, mean in result["geometric_means"].items()}
    print(f"{name} {setting.dtype}: {means}, losses: {len(result['losses'])} of {len(result['rows'])}")
    report.write()


# ---- what is checked and compiled -----------------------------------------------------------------------------------


def checked_specs(arguments: argparse.Namespace, device: str) -> list[Spec]:
    """LISTS; and of every suite's layers CHECKED_OF_A_KIND for each family, direction, dtype and memory format, with one
    activation or another, drawn by the seed."""
    from accelops.kernels.conv import triton

    draw = random.Random(arguments.seed)
    kinds: dict[tuple[str, ...], list[ConvSpec]] = defaultdict(list)
    for name in arguments.suites:
        for dtype in arguments.dtypes:
            for spec in suite_specs(name, dtype, device, CHECKED_BATCH):
                family = next((f for f, module in triton.FAMILIES.items() if not module.unsupported(spec)), None)
                if family is not None:
                    kinds[family, spec.direction, dtype, spec.memory_format].append(spec)
    drawn = [s for specs in kinds.values() for s in draw.sample(specs, min(len(specs), CHECKED_OF_A_KIND))]
    layers = [replace(spec, activation=draw.choice(ACTIVATIONS)) for spec in drawn]
    return [*(replace(spec, device=device) for spec in LISTS), *layers]


def suite_specs(name: str, dtype: str, device: str, batch: int | None = None) -> Iterator[ConvSpec]:
    for spec in tuning.specs(name, Setting(dtype=dtype, batch=batch)):
        yield replace(spec, device=device)


def compile_ahead(report: Report, specs: Sequence[Spec]) -> None:
    """Compile what `specs` will launch on this GPU, on all cores, into Triton's cache."""
    from accelops.bench.triton_aot import compile_on_all_cores, summary
    from accelops.targets.triton import ARCHITECTURES, architecture, emulated

    if not emulated() and architecture().name in ARCHITECTURES:
        compiled = list(compile_on_all_cores(architecture().name, specs))
        report.content.setdefault("compiled", []).append(summary(compiled))


# ---- the command ----------------------------------------------------------------------------------------------------


def main(argv: list[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.list:
        print_plan(arguments)
        return 0
    if arguments.dry_run:
        return dry_run(arguments)
    missing = unavailable("triton")
    if missing is not None:
        print(f"{missing}; --list and --dry-run need no GPU", file=sys.stderr)
        return 2
    os.environ.setdefault("ACCELOPS_CACHE", tempfile.mkdtemp(prefix="accelops-"))
    kind = "measured" if arguments.device == "cuda" else "simulated"
    about = {**evidence(arguments.device), "kind": kind}
    report = Report(arguments.output, arguments.minutes, arguments.seed, about)
    for stage in arguments.stages:
        print(f"---- {stage}", flush=True)
        STAGES[stage](report, arguments)
        report.write()
    print(f"{arguments.output}; left out: {len(report.content['left_out'])}")
    return 1 if report.content.get("correctness", {}).get("wrong") else 0


def settings(arguments: argparse.Namespace) -> list[tuple[str, Setting]]:
    return [(name, Setting(arguments.device, dtype)) for dtype in arguments.dtypes for name in arguments.suites]


def parse(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", default=[], metavar="STAGE", help=f"of {', '.join(STAGES)}; default: all")
    parser.add_argument("--suites", nargs="+", default=SUITES, choices=tuning.SUITES, metavar="SUITE")
    parser.add_argument("--dtypes", nargs="+", default=DTYPES, choices=("bfloat16", "float16", "float32"))
    parser.add_argument("--minutes", type=float, default=9.0, help="when to stop (default: 9)")
    parser.add_argument(
        "--device", default="cuda", choices=("cuda", "cpu"), help="cpu: a rehearsal, with TRITON_INTERPRET=1"
    )
    parser.add_argument("--seed", type=int, default=random.randrange(1 << 30), help="default: another one every time")
    parser.add_argument("--output", type=Path, default=ROOT / "benchmarks" / "results" / "gpu.json")
    parser.add_argument("--list", action="store_true", help="print the stages, suites and problems, and stop")
    parser.add_argument("--dry-run", action="store_true", help="compile all that correctness would run; launch nothing")
    parser.add_argument("--architectures", nargs="+", default=["sm_90"], help="of --dry-run: sm_80 sm_90 sm_100 gfx942")
    arguments = parser.parse_args(argv)
    arguments.stages = arguments.stages or list(STAGES)
    unknown = sorted(set(arguments.stages) - set(STAGES))
    if unknown:
        parser.error(f"no stage {', '.join(unknown)}; choose among {', '.join(STAGES)}")
    return arguments


def print_plan(arguments: argparse.Namespace) -> None:
    for stage in arguments.stages:
        print(f"{stage}: {STAGES[stage].__doc__}")
    for name in arguments.suites:
        for dtype in arguments.dtypes:
            print(f"{name} {dtype}: {sum(1 for _ in suite_specs(name, dtype, 'meta'))} problems")
    print(f"checked: {len(checked_specs(arguments, 'meta'))} problems, drawn by seed {arguments.seed}")


def dry_run(arguments: argparse.Namespace) -> int:
    """The plan, and its kernels compiled; the file says "compiled", and has no time in it."""
    from accelops.bench.triton_aot import compile_on_all_cores, summary

    print_plan(arguments)
    about = {**evidence(), "kind": "compiled", "device": ", ".join(arguments.architectures)}
    report = Report(arguments.output, arguments.minutes, arguments.seed, about)
    specs = checked_specs(arguments, "meta")
    compiled = [piece for name in arguments.architectures for piece in compile_on_all_cores(name, specs)]
    report.content["compiled"] = [summary(compiled)]
    report.write()
    failed = report.content["compiled"][0]["failed"]
    print(f"{arguments.output}: {len(compiled)} kernels compiled, {len(failed)} failed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
