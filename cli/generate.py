"""wavediff generate: sounds that nobody recorded."""

from dataclasses import asdict
from math import ceil, sqrt
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wavediff.cli import options
from wavediff.cli.output import count, emit, say
from wavediff.cli.progress import Progress
from wavediff.cli.status import reported
from wavediff.cli.vocode import report
from wavediff.errors import TaskError

if TYPE_CHECKING:
    from wavediff.jobs import Invention

EXAMPLES = """\b
Examples:
  wavediff generate -m drums-44k --label snare --count 16 -o snares/ --plot
  wavediff generate -m drums-44k --label kick=0.7 --label tom=0.3 -o thud.wav
  wavediff generate -m digits-8k --all-labels --count 100 -o digits/
  wavediff generate -m speech-22k --seconds 20 --seed 3 -o babble.wav
  wavediff generate -m drums-44k --loop 120 "kick:x---x--- rim:--x---x-"

\b
Files are called LABEL-SEED-0000.wav …; a number stands for the same sound
however many there are. wavediff models show MODEL tells its labels. In a loop x
is a hit, X an accent, - or . a rest, and *4 behind a row repeats it; a row is a
bar of four beats.
"""
ROW = 8  # sounds of a label on a contact sheet
MOST = 100  # sounds on one without rows


@reported
def generate(
    model: options.ModelName,
    output: Annotated[
        str | None,
        typer.Option("-o", "--output", metavar="OUT", help="A folder; for one sound its file."),
    ] = None,
    number: Annotated[
        int, typer.Option("--count", min=1, metavar="N", help="How many, of each mixture.")
    ] = 1,
    label: Annotated[
        list[str] | None,
        typer.Option(metavar="LABEL", help="What to make; several are mixed, as kick=0.7."),
    ] = None,
    all_labels: Annotated[
        bool, typer.Option("--all-labels", help="So many of each label, in folders of their own.")
    ] = False,
    seconds: Annotated[
        float | None, typer.Option(metavar="S", help="Length, where the model leaves it open.")
    ] = None,
    steps: Annotated[
        int | None,
        typer.Option(metavar="N", help="Network calls that invent a mel spectrogram."),
    ] = None,
    render_steps: Annotated[
        int | None, typer.Option(metavar="N", help="Network calls that make sound of it.")
    ] = None,
    guidance: Annotated[
        float | None,
        typer.Option(metavar="W", help="Above 1 labels are followed more closely."),
    ] = None,
    sampler: Annotated[
        str, typer.Option(metavar="NAME", help="How the steps are taken.")
    ] = "ancestral",
    seed: options.Seed = 0,
    loop: Annotated[
        tuple[float, str] | None,
        typer.Option(metavar="BPM PATTERN", help="Make a drum loop of a pattern of labels."),
    ] = None,
    bars: Annotated[int, typer.Option(metavar="N", help="Bars of the loop.")] = 1,
    tail: Annotated[
        bool, typer.Option("--tail", help="Let the loop ring out; else it is seamless.")
    ] = False,
    device: options.DeviceName = options.Device.AUTO,
    precision: options.PrecisionName = options.Precision.FP32,
    draw: Annotated[
        bool, typer.Option("--plot", help="Also draw a contact sheet of spectrograms, as PNG.")
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Make only what is missing.")
    ] = False,
    json: options.Json = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Invent sounds: drums, words, voices."""
    from wavediff import jobs, plot
    from wavediff import loop as loops
    from wavediff.files import generate_file, loop_file, mixtures
    from wavediff.generating import GenerateSettings
    from wavediff.model import load

    settings = GenerateSettings(steps, sampler, guidance, {}, seconds, seed, render_steps)
    if loop and (label or all_labels or number > 1 or skip_existing):
        raise typer.BadParameter("--loop is one sound, and takes its labels from the pattern")
    if not loop and (bars != 1 or tail):
        raise typer.BadParameter("--bars and --tail are for --loop")
    if label and all_labels:
        raise typer.BadParameter("--label or --all-labels, not both")
    if output == jobs.PIPE and (draw or json):
        raise typer.BadParameter("standard output carries the sound: no room for JSON or --plot")
    if draw:
        plot.require()
    if loop:
        bpm, text = loop
        pattern = loops.parse(text)
        loops.check(bpm, bars)
        asked = dict.fromkeys(pattern.labels, 1.0)
    else:
        asked = _labels(label or [])
    loaded = load(model, device, precision)
    name = Path(loaded.name).stem
    mixed = mixtures(loaded, asked, all_labels, seconds)
    if loop:
        planned = [jobs.Invention(" ".join(pattern.labels), jobs.within(output, "loop.wav"))]
    else:
        planned = jobs.inventions(output, mixed, seed, number, name, all_labels)
    sheet = _sheet(planned, output, seed, all_labels)
    todo = jobs.outstanding(planned, force, skip_existing)
    if draw and sheet.exists() and not (force or skip_existing):
        raise TaskError(f"{sheet} exists", "-f overwrites")
    if len(todo) < len(planned):
        say(f"{count(len(planned) - len(todo), 'sound')} there already, left as is", quiet)
    say(f"{loaded.name} on {loaded.device}", quiet or not verbose)
    with Progress("", quiet) as progress:
        for done_before, item in enumerate(todo):

            def tell(part: float, before: int = done_before, name: str = item.source) -> None:
                progress.update((before + part) / len(todo), name)

            if loop:
                place = item.target
                done = loop_file(loaded, pattern, bpm, bars, not tail, place, settings, tell)
            else:
                done = generate_file(loaded, item, settings, tell)
            if json:
                emit({**asdict(done), "number": item.number, "labels": dict(item.labels)})
            else:
                report(done, quiet, verbose)
    if draw:
        shown, columns = _shown(planned, number if all_labels else 0)
        some = f"{len(shown)} of " if len(shown) < len(planned) else ""
        title = f"{some}{len(planned)} sounds" if planned[1:] else planned[0].source
        plot.save_sheet([item.target for item in shown], columns, sheet, f"{title}, by {name}")
        say(f"drawn in {sheet}", quiet)


def _labels(words: list[str]) -> dict[str, float]:
    """The shares of labels that are given as kick or kick=0.7."""
    found: dict[str, float] = {}
    for word in words:
        label, equals, share = word.rpartition("=")
        try:
            found[label if equals else word] = float(share) if equals else 1.0
        except ValueError:
            raise typer.BadParameter(f"--label {word}: {share} is no number") from None
    return found


def _sheet(planned: list["Invention"], output: str | None, seed: int, all_labels: bool) -> Path:
    """Where the contact sheet goes."""
    first = planned[0]
    if len(planned) == 1:
        return first.picture
    if all_labels:
        return Path(output or ".", f"labels-{seed}.png")
    return first.picture.with_stem(first.picture.stem.rpartition("-")[0])


def _shown(planned: list["Invention"], rows_of: int) -> tuple[list["Invention"], int]:
    """The sounds on the contact sheet, and its columns: `rows_of` so many, or as a square for 0."""
    if rows_of:
        return [item for item in planned if item.number < ROW], min(rows_of, ROW)
    shown = planned[:MOST]
    return shown, ceil(sqrt(len(shown)))
