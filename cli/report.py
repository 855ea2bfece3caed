"""wavediff report: a page on which systems can be compared by figures, eyes and ears."""

from pathlib import Path
from typing import Annotated

import typer

from wavediff.cli import options
from wavediff.cli.output import complain, count, emit, say, size, write
from wavediff.cli.progress import Progress
from wavediff.cli.status import reported
from wavediff.errors import TaskError

EXAMPLES = """\b
Examples:
  wavediff report clean/ ours=denoised/ theirs=others/ --noisy noisy/ -o a.html
  wavediff report clean/ --noisy noisy/ -m denoise-16k --steps 4 -o a.html
  wavediff report --figures ours=a.json --figures theirs=b.json -o a.html

\b
One file that opens from disk, with everything in it. Folders are matched by
path without extension; only recordings that all have, up to 60 s long, are on
the page. With -m a slider plays the guess at each step of the model's path.
--figures takes what wavediff evaluate --json wrote, also of systems whose
sounds are not here.
"""


@reported
def report(
    reference: Annotated[
        Path | None, typer.Argument(metavar="REFERENCE", help="Clean file or folder.")
    ] = None,
    systems: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME=FOLDER", help="What each system made of them."),
    ] = None,
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE", help="The page.")
    ] = Path("report.html"),
    noisy: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What the systems were given.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="MODEL", help="Show the path of this model too."),
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Its steps: 4 of a denoiser, a vocoder knows its own."),
    ] = None,
    figures: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=JSON", help="Figures that are there already; repeatable."),
    ] = None,
    title: Annotated[str, typer.Option(metavar="TEXT", help="The page's heading.")] = "",
    most: Annotated[
        int, typer.Option(min=1, metavar="N", help="Recordings to show; figures are of all.")
    ] = 20,
    seed: options.Seed = 0,
    device: options.DeviceName = options.Device.AUTO,
    json: options.Json = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Compare systems on one page, by figures, eye and ear."""
    from wavediff import report as reports
    from wavediff.exhibit import Walked
    from wavediff.model import load

    if output.exists() and not force:
        raise TaskError(f"{output} exists", "-f overwrites")
    request = reports.Request(
        reference,
        reports.named(systems or []),
        noisy,
        reports.named(figures or []),
        Walked(load(model, device), steps, seed) if model else None,
        title,
        most,
    )
    with Progress("comparing", quiet) as progress:
        made = reports.build(request, lambda done, total: progress.update(done / total))
    write(output, made.html, force)
    if json:
        skipped = [{"path": str(skip.path), "reason": skip.reason} for skip in made.left_out]
        facts = {"recordings": made.shown, "bytes": made.bytes, "missing": made.missing}
        emit({"page": str(output), **facts, "left_out": skipped})
    say(f"{output}: {count(made.shown, 'recording')}, {size(made.bytes)}", quiet)
    if made.left_out:
        say(f"{count(len(made.left_out), 'file')} left out, the page says why", quiet)
    if made.bytes > reports.LARGE:
        complain(f"{output} is so large that browsers are slow with it", "--most N shows fewer")
