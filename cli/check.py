"""wavediff check: what is in recordings, what training on them would cost; what a mel is."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wavediff.cli import options
from wavediff.cli.models import describe
from wavediff.cli.output import complain, count, duration, emit, say, table
from wavediff.cli.progress import Progress
from wavediff.cli.status import ExitCode, reported
from wavediff.errors import MelError

if TYPE_CHECKING:
    from wavediff.recipe import Recipe
    from wavediff.survey import Advice, Cost, Measured, Survey

EXAMPLES = """\b
Examples:
  wavediff check my-recordings/
  wavediff check speech/ noise/ --json
  wavediff check my-recordings/ --recipe mine.toml --set training.crop=1
  wavediff check runs/mine/checkpoint.safetensors
  wavediff check mel.npy

\b
The speech-to-noise figure is an estimate: what sounds against the quietest
tenth of it. The exit code is 1 only if nothing at all can be used. Of mels
(.npy, .npz, .pt, .safetensors) it is guessed which preset they are of, and on
what scale their values are.
"""
HEAD = ("rate", "ch", "length", "level", "clipped", "silent", "S/N", "up to", "file")
MOST = 20  # files that are listed without -v
NAMED = 3  # files that are named for a problem


@reported
def check(
    paths: Annotated[
        list[Path],
        typer.Argument(metavar="PATHS", help="Folders and files of audio, a model, or mels."),
    ],
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Training to judge them for.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as training.crop=1.5."),
    ] = None,
    no_cost: Annotated[
        bool, typer.Option("--no-cost", help="Do not time a training step.")
    ] = False,
    device: options.DeviceName = options.Device.AUTO,
    json: options.Json = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
    debug: options.Debug = False,
) -> None:
    """Look for faults in recordings, and say what training would cost."""
    from wavediff import card, survey
    from wavediff.data import find
    from wavediff.errors import DataError, TaskError
    from wavediff.plan import resolve

    mels = [path for path in paths if _is_mel(path)]
    if mels and mels != paths:
        raise TaskError(f"{mels[0]} is a mel, others are not", "check them one by one")
    if mels:
        _check_mels(mels, json, verbose)
        return
    if len(paths) == 1 and card.is_model(paths[0]):
        found_card = card.read(paths[0])
        if json:
            emit(found_card.facts(), indent=2)
        else:
            print(describe(found_card))
        return
    chosen = resolve(recipe, None, {}, set_ or ())
    files = find(paths)
    if not files:
        raise DataError(f"no audio file in {', '.join(map(str, paths))}", "name another folder")
    with Progress("measuring", quiet) as progress:
        found = survey.survey(files, progress.update)
    if not found.files and not json:
        _print_broken(found)
        raise DataError("none of the files can be used", "the reasons are above")
    advice = survey.advise(found, chosen)
    cost = survey.cost(chosen, device, not no_cost)
    if json:
        emit(_facts(found, advice, cost, chosen), indent=2)
    else:
        _print(found, advice, cost, chosen, verbose)
    if not found.files:
        raise typer.Exit(ExitCode.FAILED)


def _is_mel(path: Path) -> bool:
    """Whether a file is meant as a mel: by its extension, a safetensors by not being a model."""
    from safetensors import SafetensorError, safe_open

    from wavediff.melfile import SUFFIXES

    if path.suffix != ".safetensors":
        return path.suffix.lower() in SUFFIXES
    try:
        with safe_open(path, "pt") as file:
            return "wavediff" not in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def _check_mels(paths: list[Path], json: bool, verbose: bool) -> None:
    """Say of each mel in each file what it probably is."""
    from wavediff import melfile, melguess

    failed = False
    for path in paths:
        try:
            mels = melfile.read(path)
        except MelError as error:
            failed = True
            complain(error.message, error.hint)
            if json:
                emit({"file": str(path), "error": error.message, "hint": error.hint})
            continue
        shown = mels if verbose or json else mels[:NAMED]
        for name, mel in shown:
            if json:
                guesses = [one._asdict() for one in melguess.guess(mel)]
                emit({"file": str(path), "mel": name, "shape": tuple(mel.shape), "is": guesses})
                continue
            print(f"{path}: {name}" if mels[1:] else path)
            print("\n".join(f"  {line}" for line in melguess.describe(mel)))
        if len(mels) > len(shown):
            say(f"{path}: {len(mels) - len(shown)} more mels; -v shows all")
    if failed:
        raise typer.Exit(ExitCode.FAILED)


def _print(
    found: "Survey", advice: list["Advice"], cost: "Cost", recipe: "Recipe", verbose: bool
) -> None:
    if verbose or len(found.files) <= MOST:
        print(table(HEAD, [_row(file) for file in found.files]) + "\n")
    _print_broken(found)
    rates = sorted({file.rate for file in found.files})
    print(
        f"{count(len(found.files), 'file')}, {duration(found.seconds)}, "
        f"{', '.join(map(str, rates))} Hz"
    )
    for item in advice:
        names = ", ".join(path.name for path in item.files[:NAMED])
        more = f" and {len(item.files) - NAMED} more" if len(item.files) > NAMED else ""
        files = f"{count(len(item.files), 'file')} ({names}{more}) " if item.files else ""
        print(f"{item.problem}: {files}{item.text}")
    settings = recipe.training
    print(
        f"network: {cost.parameters:,} parameters at {recipe.rate} Hz, hears {cost.reach:.2f} s to "
        f"either side; trained on crops of {settings.crop:g} s"
    )
    if cost.step_seconds == cost.step_seconds:  # not nan
        passes = settings.steps * cost.audio_per_step / found.seconds
        print(
            f"training: {cost.step_seconds:.2f} s a step here, "
            f"{cost.audio_per_step / cost.step_seconds:.0f} s of audio a second; "
            f"{settings.steps:,} steps take {cost.hours(settings.steps):.1f} h and hear all of "
            f"this {passes:.0f} times"
        )


def _print_broken(found: "Survey") -> None:
    for skipped in found.broken:
        print(f"broken: {skipped.reason}")


def _row(file: "Measured") -> tuple[str, ...]:
    return (
        f"{file.rate}",
        f"{file.channels}",
        duration(file.seconds),
        f"{file.level:.0f} dB",
        f"{100 * file.clipped:.2f} %",
        f"{100 * file.silent:.0f} %",
        f"{file.speech_to_noise:.0f} dB",
        f"{file.bandwidth / 1000:.1f} kHz",
        str(file.path),
    )


def _facts(
    found: "Survey", advice: list["Advice"], cost: "Cost", recipe: "Recipe"
) -> dict[str, object]:
    return {
        "files": [asdict(file) for file in found.files],
        "broken": [asdict(skipped) for skipped in found.broken],
        "duplicates": found.duplicates,
        "seconds": found.seconds,
        "advice": [asdict(item) for item in advice],
        "cost": {**asdict(cost), "steps": recipe.training.steps},
        "recipe": recipe.model_dump(mode="json"),
    }
