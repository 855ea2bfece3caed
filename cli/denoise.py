"""wavediff denoise: recordings in, clean recordings out."""

from dataclasses import asdict
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wavediff.cli import options
from wavediff.cli.output import complain, count, duration, emit, say
from wavediff.cli.progress import Progress
from wavediff.cli.status import ExitCode, reported
from wavediff.errors import WavediffError

if TYPE_CHECKING:
    from wavediff.files import Denoised

EXAMPLES = """\b
Examples:
  wavediff denoise interview.wav
  wavediff denoise interview.wav -o clean.flac --plot
  wavediff denoise recordings/ -o clean/ --max-attenuation 18
  wavediff denoise "takes/**/*.wav" -o clean/ --skip-existing
  ffmpeg -i talk.mp4 -f wav - | wavediff denoise - -o - | aplay

\b
Without -o results go beside their inputs as NAME.denoised.EXT, those of - to
standard output. Rate, channels, length, level and sample format come back;
the extension of the output chooses its format. The background, whose level is
said, is the quietest tenth of a recording.
"""


@reported
def denoise(
    inputs: Annotated[
        list[str],
        typer.Argument(metavar="INPUTS", help="Files, folders, patterns, or - for a pipe."),
    ],
    output: options.Output = None,
    model: options.ModelName = options.DEFAULT_MODEL,
    mix: Annotated[
        float,
        typer.Option(metavar="SHARE", help="How much of the denoised sound to use, 0 to 1."),
    ] = 1.0,
    max_attenuation: Annotated[
        float | None,
        typer.Option(metavar="DB", help="Take noise down by this much and no further."),
    ] = None,
    steps: options.Steps = 1,
    spins: options.Spins = 2,
    sampler: Annotated[
        str,
        typer.Option(metavar="NAME", help="ddim, or ancestral, which draws a sample by chance."),
    ] = "ddim",
    seed: options.Seed = 0,
    block: options.Block = 24.0,
    device: options.DeviceName = options.Device.AUTO,
    precision: options.PrecisionName = options.Precision.FP32,
    draw: Annotated[
        bool, typer.Option("--plot", help="Also draw spectrograms before and after, as PNG.")
    ] = False,
    skip_existing: options.SkipExisting = False,
    shard: options.Shard = None,
    json: options.Json = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Take the noise out of recordings."""
    from wavediff import jobs, plot
    from wavediff.audio import length
    from wavediff.crew import Crew, Tell, able
    from wavediff.files import Denoised, denoise_file
    from wavediff.model import load
    from wavediff.tasks import DenoiseSettings

    settings = DenoiseSettings(steps, sampler, seed, mix, max_attenuation, block, spins)
    planned = jobs.share(jobs.plan(inputs, output, "denoised"), shard)
    if json and any(job.target == jobs.PIPE for job in planned):
        raise typer.BadParameter("standard output carries the sound, so there is no room for JSON")
    todo = jobs.outstanding(planned, force, skip_existing, draw)
    if len(todo) < len(planned):
        say(f"{count(len(planned) - len(todo), 'result')} there already, left as is", quiet)
    if draw:
        plot.require()
    loaded = load(model, device, precision)
    say(f"{loaded.name} on {loaded.device}, {count(steps, 'step')}", quiet or not verbose)
    failed = 0

    def seconds(job: jobs.Job) -> float:
        return length(job.source)

    def work(job: jobs.Job, tell: Tell) -> Denoised:
        return denoise_file(loaded, job, settings, tell)

    with Crew(work, seconds, able(loaded)) as crew, Progress("", quiet) as progress:
        for number, (job, finish) in enumerate(crew.each(todo)):

            def tell(part: float, number: int = number, name: str = job.source) -> None:
                progress.update((number + part) / len(todo), name)

            try:
                done = finish(tell)
                tell(1.0)
                if draw:
                    plot.save_comparison(
                        job.source, job.target, job.picture, Path(loaded.name).name
                    )
            except WavediffError as error:
                failed += 1
                complain(error.message, error.hint)
                if json:
                    emit({"source": job.source, "error": error.message, "hint": error.hint})
                continue
            if json:
                picture = str(job.picture) if draw else None
                emit({**asdict(done), "reduction": done.reduction, "picture": picture})
            else:
                _report(done, quiet, verbose)
                say(f"  drawn in {job.picture}", quiet or not draw)
    if failed:
        if len(todo) > 1:
            complain(f"{failed} of {len(todo)} recordings could not be denoised")
        raise typer.Exit(ExitCode.FAILED)


def _report(done: "Denoised", quiet: bool, verbose: bool) -> None:
    if isnan(done.reduction):
        change = "nothing but silence"
    elif abs(done.reduction) < 0.5:
        change = f"background as loud as before, {done.background_before:.0f} dB"
    else:
        levels = f"{done.background_before:.0f} to {done.background_after:.0f} dB"
        word = "quieter" if done.reduction > 0 else "louder"
        change = f"background {abs(done.reduction):.0f} dB {word}, from {levels}"
    say(f"{done.source} -> {done.target}: {change}", quiet)
    if done.limited:
        say(f"  {count(done.limited, 'sample')} beyond full scale limited", quiet)
    if verbose:
        each = done.work_seconds / done.seconds
        say(
            f"  {done.rate} Hz, {count(done.channels, 'channel')}, {duration(done.seconds)}, "
            f"in {duration(done.work_seconds)} ({each:.3f} s per second of audio)",
            quiet,
        )
