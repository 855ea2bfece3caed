"""wavediff bench: how fast a model is on this machine, and what stands in its way."""

from dataclasses import asdict
from math import isnan
from typing import TYPE_CHECKING, Annotated

import typer

from wavediff.cli import options
from wavediff.cli.output import emit, say, table
from wavediff.cli.progress import Progress
from wavediff.cli.status import reported
from wavediff.errors import TaskError

if TYPE_CHECKING:
    from wavediff.bench import Bench, Figure

EXAMPLES = """\b
Examples:
  wavediff bench
  wavediff bench -m vocode-22k --steps 1,4 --precision fp32,bf16
  wavediff bench --batch 1,8 --threads 2 --json

\b
Beside the model the published DiffWave runs as it was published: 30 layers of
64 channels, 6 steps, fp32, a whole sound at once. Times are medians of turns
taken alternately. "of rate" is the share of the multiply-adds that the machine
can do at best, "of mem" that of the bytes that have to be moved at least.
"""


@reported
def bench(
    model: options.ModelName = options.DEFAULT_MODEL,
    steps: Annotated[
        str,
        typer.Option(metavar="N,…", help="Network calls; empty for what the model is made for."),
    ] = "",
    batch: Annotated[str, typer.Option(metavar="N,…", help="Sounds at once.")] = "1",
    precision: Annotated[
        str, typer.Option(metavar="NAME,…", help="Of the network's products: fp32, bf16, auto.")
    ] = "fp32",
    seconds: Annotated[
        float, typer.Option(min=0.1, metavar="SECONDS", help="Length of each sound.")
    ] = 10.0,
    repeats: Annotated[
        int, typer.Option(min=1, metavar="N", help="Turns, of which the median counts.")
    ] = 5,
    threads: Annotated[
        int | None, typer.Option(min=1, metavar="N", help="Of the processor; all without it.")
    ] = None,
    published: Annotated[
        bool, typer.Option(help="Time the published network as well.", show_default=False)
    ] = True,
    device: options.DeviceName = options.Device.AUTO,
    json: options.Json = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Time a model on this machine."""
    import torch

    from wavediff import bench as benches

    cases = [
        benches.Case(s, b, p)
        for s in (_numbers("--steps", steps) or (None,))
        for b in _numbers("--batch", batch)
        for p in precision.split(",")
    ]
    if threads:
        torch.set_num_threads(threads)
    with Progress("", quiet) as progress:
        done = benches.run(
            model,
            device,
            cases,
            seconds,
            repeats,
            published,
            lambda share: progress.update(share, model),
        )
    if json:
        emit(asdict(done), indent=2)
    else:
        print(_table(done))
        say(f"{done.model} on {done.device} ({done.way}), sounds of {seconds:g} s", quiet)


def _numbers(option: str, given: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(word) for word in given.split(",") if word.strip())
    except ValueError:
        numbers = (0,)
    if any(number < 1 for number in numbers):
        raise TaskError(f"{option} {given} is no list of numbers", f"as in {option} 1,2,4")
    return numbers


def _table(done: "Bench") -> str:
    """Figures for people, in 80 columns."""
    rates = ", ".join(
        f"{rate / 1e9:.0f} G/s {name}" for name, rate in done.ceilings.multiply_adds.items()
    )
    head = (
        "steps",
        "batch",
        "type",
        "work s/s",
        "x real",
        "ratio",
        "of rate",
        "of mem",
        "peak",
        "first",
    )
    rows = [_row(f"{figure.steps}", figure) for figure in done.figures]
    if done.published:
        rows.append(_row(f"{done.published.steps}*", done.published))
    lines = [
        f"{done.processor}, {done.threads} threads, torch {done.torch}",
        f"multiply-adds at best {rates}; memory {done.ceilings.bandwidth / 1e9:.1f} GB/s",
        f"{done.parameters:,} parameters, {done.per_call.multiply_adds / 1e9:.2f} G multiply-adds "
        "per second of sound and call",
        "",
        table(head, rows),
    ]
    return "\n".join(
        [*lines, *(["* the published network, as published"] if done.published else [])]
    )


def _row(steps: str, figure: "Figure") -> list[str]:
    return [
        steps,
        f"{figure.batch}",
        figure.precision,
        f"{figure.work:.4f}",
        f"{1 / figure.work:.4g}",
        "" if isnan(figure.ratio) else f"{figure.ratio:.4g}",
        f"{figure.of_rate:.0%}",
        f"{figure.of_bandwidth:.0%}",
        f"{figure.memory / 1e6:.0f} MB",
        f"{figure.first:.3f} s",
    ]
