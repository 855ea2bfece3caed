"""wavediff trace: what a model does to a recording, step by step."""

from pathlib import Path
from typing import Annotated, Any

import typer

from wavediff.cli import options
from wavediff.cli.output import count, emit, say, table
from wavediff.cli.status import reported

EXAMPLES = """\b
Examples:
  wavediff trace interview.wav
  wavediff trace noisy.wav --reference clean.wav --steps 4 -o path/
  wavediff trace speech.wav -m vocode-22k --steps 3

\b
Writes into a folder, without -o NAME.trace: strip.png (the state and the guess
at each step), trace.gif (the same as an animation), mask.png (what a denoiser
let through), step-1.flac … (the guess at each step, as a sound), trace.json.

\b
The path is that of one grid of frames (denoise --spins 1). The numbers are the
share of the error that is left, over all and by bands: of the reference, of a
vocoder's own recording, else of the last guess.
"""


@reported
def trace(
    recording: Annotated[Path, typer.Argument(metavar="FILE", help="A recording, up to 60 s.")],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="The folder to write to.")
    ] = None,
    model: options.ModelName = options.DEFAULT_MODEL,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Network calls: 4 of a denoiser, a vocoder knows its own."),
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="ddim, or ancestral, which draws a sample by chance."),
    ] = None,
    reference: Annotated[
        Path | None, typer.Option(metavar="CLEAN", help="The same recording without noise.")
    ] = None,
    seed: options.Seed = 0,
    device: options.DeviceName = options.Device.AUTO,
    json: options.Json = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Show what a model does to a recording, step by step."""
    from wavediff import film
    from wavediff.model import load

    folder = output or recording.with_name(f"{recording.stem}.trace")
    film.check_folder(folder, force)
    done = film.film(load(model, device), recording, reference, steps, sampler, seed)
    files = film.write(done, folder, force)
    if json:
        emit({**done.facts, "folder": str(folder)}, indent=2)
        return
    print(_table(done.facts))
    say(f"{done.title}: {count(len(files), 'file')} in {folder}", quiet)


def _table(facts: dict[str, Any]) -> str:
    """Percent of the error that is left, one line a guess."""
    head = ["guess", "t", "all", *(f"to {high / 1000:g} kHz" for _, high in facts["bands"])]
    rows = [
        [f"{step['step']}", f"{step['t']:.2f}"]
        + [_percent(share) for share in (step["guess"]["error"], *step["guess"]["bands"])]
        for step in facts["steps"]
    ]
    return f"{facts['error']}\n{table(head, rows)}"


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"
