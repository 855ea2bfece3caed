"""wavediff vocode: mel spectrograms in, sound out."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wavediff.cli import options
from wavediff.cli.output import complain, count, duration, emit, say
from wavediff.cli.progress import Progress
from wavediff.cli.status import ExitCode, reported
from wavediff.errors import AudioError, MelError

if TYPE_CHECKING:
    from wavediff.files import Made

DEFAULT_MODEL = "vocode-22k"
EXAMPLES = """\b
Examples:
  wavediff vocode tts-output.npy
  wavediff vocode tts-output.npy -o speech.flac --steps 4 --plot
  wavediff vocode mels/ -o speech/ --skip-existing
  wavediff vocode mels.npz --scaling log10
  wavediff vocode interview.wav -o again.wav
  cat mel.npy | wavediff vocode - -o - | aplay

\b
Mels come as .npy, .npz, .pt or .safetensors: (bands, frames), (frames, bands)
or batches. NAME.npy becomes NAME.wav, a file with several mels NAME-0.wav,
NAME-1.wav … or NAME-KEY.wav. A mel that the model's preset cannot have made is
converted where that is exact, else refused: wavediff check NAME.npy tells what
it probably is. Of a recording the mel is made here; its rate, channels, length
and level come back, without -o beside it as NAME.vocoded.EXT.
"""


@reported
def vocode(
    inputs: Annotated[
        list[str],
        typer.Argument(
            metavar="INPUTS", help="Mels, recordings, folders, patterns, or - for a pipe."
        ),
    ],
    output: options.Output = None,
    model: options.ModelName = DEFAULT_MODEL,
    mel_preset: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What the mels are, if not the model's own kind."),
    ] = None,
    scaling: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="What their values are: ln, log10, db, magnitude …"),
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Network calls; the model knows how many.")
    ] = None,
    seed: options.Seed = 0,
    block: options.Block = 24.0,
    device: options.DeviceName = options.Device.AUTO,
    precision: options.PrecisionName = options.Precision.FP32,
    draw: Annotated[
        bool, typer.Option("--plot", help="Also draw what was given and what came out, as PNG.")
    ] = False,
    skip_existing: options.SkipExisting = False,
    shard: options.Shard = None,
    json: options.Json = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Make sound of mel spectrograms."""
    from wavediff import jobs, plot
    from wavediff.crew import Crew, Tell, able
    from wavediff.files import Made, vocode_file
    from wavediff.given import Given
    from wavediff.model import load
    from wavediff.vocoding import VocodeSettings

    settings = VocodeSettings(steps, seed, block)
    loaded = load(model, device, precision)
    preset = loaded.preset
    given = Given(preset, mel_preset, scaling)

    def seconds(job: jobs.Job) -> float:
        return given.length(job.source, job.part)

    def work(job: jobs.Job, tell: Tell) -> Made:
        return vocode_file(loaded, given, job, settings, tell)

    with given, Crew(work, seconds, able(loaded)) as crew, Progress("", quiet) as progress:
        planned = jobs.share(jobs.plan(inputs, output, "vocoded", given.parts), shard)
        if json and any(job.target == jobs.PIPE for job in planned):
            raise typer.BadParameter(
                "standard output carries the sound, so there is no room for JSON"
            )
        todo = jobs.outstanding(planned, force, skip_existing, draw)
        if len(todo) < len(planned):
            say(f"{count(len(planned) - len(todo), 'result')} there already, left as is", quiet)
        if draw:
            plot.require()
        say(f"{loaded.name} on {loaded.device}", quiet or not verbose)
        failed = 0
        for number, (job, finish) in enumerate(crew.each(todo)):

            def tell(part: float, number: int = number, name: str = job.source) -> None:
                progress.update((number + part) / len(todo), name)

            try:
                done = finish(tell)
                tell(1.0)
                if draw and given.is_mel(job.source):
                    mel, _ = given.mel(job.source, job.part)
                    name = job.part or Path(job.source).name
                    plot.save_mel(mel, preset, job.target, job.picture, _short(model), name)
                elif draw:
                    plot.save_comparison(
                        job.source, job.target, job.picture, _short(model), "vocoded"
                    )
            except (AudioError, MelError) as error:
                failed += 1
                complain(error.message, error.hint)
                if json:
                    facts = {"source": job.source, "part": job.part}
                    emit({**facts, "error": error.message, "hint": error.hint})
                continue
            if json:
                emit({**asdict(done), "picture": str(job.picture) if draw else None})
            else:
                report(done, quiet, verbose)
                say(f"  drawn in {job.picture}", quiet or not draw)
    if failed:
        if len(todo) > 1:
            complain(f"{failed} of {len(todo)} inputs could not be vocoded")
        raise typer.Exit(ExitCode.FAILED)


def report(done: "Made", quiet: bool, verbose: bool) -> None:
    """Say what was made of what."""
    part = f": {done.part}" if done.part else ""
    say(f"{done.source}{part} -> {done.target}: {duration(done.seconds)}", quiet)
    say(f"  {done.note}", quiet or not done.note)
    if done.limited:
        say(f"  {count(done.limited, 'sample')} beyond full scale limited", quiet)
    if verbose:
        each = done.work_seconds / done.seconds
        say(
            f"  {done.rate} Hz, {count(done.channels, 'channel')}, in "
            f"{duration(done.work_seconds)} ({each:.3f} s per second of audio)",
            quiet,
        )


def _short(model: str) -> str:
    return Path(model).name
