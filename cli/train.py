"""wavediff train: a model out of folders of sound."""

import os
import shlex
import sys
import time
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from wavediff.cli import options
from wavediff.cli.interrupt import Interrupt
from wavediff.cli.output import complain, count, duration, emit, say
from wavediff.cli.progress import Progress
from wavediff.cli.status import ExitCode, reported

if TYPE_CHECKING:
    from wavediff.plan import Contents
    from wavediff.recipe import Recipe
    from wavediff.training import Event

EXAMPLES = """\b
Examples:
  wavediff train my-speech/ --noise my-noise/ -o runs/mine
  wavediff train my-speech/ --init denoise-16k --max-minutes 30
  wavediff train --noisy noisy/ --clean clean/ --set training.crop=1.5
  wavediff train my-voices/ --task vocode --max-minutes 60
  wavediff train my-drums/ --task generate --max-minutes 30 -o runs/drums
  wavediff train my-drums/ --task classify --export judge.safetensors
  wavediff train my-speech/ --dry-run > mine.toml
  wavediff train my-speech/ --recipe mine.toml --export mine.safetensors
  torchrun --nproc-per-node 2 --no-python wavediff train my-speech/

\b
Folders may hold any mixture of rates, lengths and formats. For denoise, noise
is mixed into them on the fly; for generate and classify, sub-folders are
labels. Ctrl-C stops after the current step and saves; the same command goes
on from there.
"""
CLASSIFIER_STEPS = 1500
NEWS_SECONDS = 30.0  # between lines where there is no terminal


class Task(StrEnum):
    """What a model can be trained for."""

    DENOISE = "denoise"
    VOCODE = "vocode"
    GENERATE = "generate"
    CLASSIFY = "classify"


RECIPES = {Task.DENOISE: None, Task.VOCODE: "vocode-22k", Task.GENERATE: "drums-44k"}


@reported
def train(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDERS", help="Folders of recordings, clean ones."),
    ] = None,
    recipe: Annotated[
        str | None, typer.Option(metavar="NAME|FILE", help="Settings: a name, or a TOML file.")
    ] = None,
    task: Annotated[
        Task | None,
        typer.Option(metavar="TASK", help="denoise, vocode, generate, or classify as a judge."),
    ] = None,
    init: Annotated[
        str | None,
        typer.Option(metavar="MODEL", help="Begin from this model, and take its network."),
    ] = None,
    noise: Annotated[
        list[Path] | None,
        typer.Option(metavar="DIR", help="Noise to mix in; may be given several times."),
    ] = None,
    rooms: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Room responses to mix with.")
    ] = None,
    noisy: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Ready-made pairs: the noisy side.")
    ] = None,
    clean: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The clean side, under the same names.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Any setting, as training.crop=1.5."),
    ] = None,
    max_minutes: Annotated[
        float | None, typer.Option(metavar="M", help="End after this much training in all.")
    ] = None,
    steps: Annotated[
        int | None, typer.Option(metavar="N", help="Steps of the whole training.")
    ] = None,
    batch: Annotated[int | None, typer.Option(metavar="N", help="Items of a step.")] = None,
    seed: Annotated[
        int | None, typer.Option(metavar="N", help="Decides all random numbers.")
    ] = None,
    device: options.DeviceName = options.Device.AUTO,
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="DIR", help="Folder of the run; else one in runs/."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print all settings as TOML; train nothing.")
    ] = False,
    export: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Write the finished model there, .safetensors."),
    ] = None,
    json: options.Json = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Train a model on your own sounds, or go on training one."""
    from wavediff import plan
    from wavediff.checkpoint import load, save
    from wavediff.errors import TaskError
    from wavediff.model import export as exported
    from wavediff.recipe import to_toml
    from wavediff.training import CHECKPOINT
    from wavediff.training import train as run

    quiet = quiet or os.environ.get("RANK", "0") != "0"
    if task is Task.CLASSIFY:
        _classify(folders or [], export, steps, max_minutes, seed or 0, force, quiet)
        return
    if recipe is None and init is None and task is not None:
        recipe = RECIPES[task]
    given = {
        "data.sounds": list(map(str, folders or ())),
        "data.noise": list(map(str, noise or ())),
        "data.rooms": rooms and str(rooms),
        "data.noisy": noisy and str(noisy),
        "data.clean": clean and str(clean),
        "training.max_minutes": max_minutes,
        "training.steps": steps,
        "training.batch": batch,
        "training.seed": seed,
    }
    chosen = plan.resolve(recipe, init, given, set_ or ())
    if task is not None and chosen.task != task.value:
        raise TaskError(
            f"{init or recipe} is for {chosen.task}, not for {task.value}", "leave out --task"
        )
    folder = output or plan.run_folder(chosen)
    if dry_run:
        print(to_toml(chosen), end="")
        for part in plan.contents(chosen):
            _describe(part, quiet)
        _say_noise(chosen, quiet)
        say(f"would train in {folder}", quiet)
        return
    _must_be_writable(export, force)
    if folder.is_file():
        raise TaskError(f"{folder} is a file", "-o names the folder of the run")
    last = None
    news = _News(chosen, folder, quiet or json)
    with Interrupt("stopping after this step", quiet) as stop, Progress("reading", quiet) as bar:
        for last in run(chosen, folder, init=init, device=device, stop=stop):
            news.tell(last, bar)
            if json and not quiet:
                emit(_facts(last))
    if last is None:
        say(f"nothing left to do: raise --steps or --max-minutes to go on in {folder}", quiet)
    elif last.skipped:
        say(f"{count(last.skipped, 'broken file')} left out: wavediff check lists them", quiet)
    if stop() and (last is None or last.progress < 1):
        again = shlex.join(["wavediff", *sys.argv[1:]])
        say(
            f"saved at step {last.step if last else 0}; the same command goes on:\n  {again}", quiet
        )
        raise typer.Exit(ExitCode.INTERRUPTED)
    if export and os.environ.get("RANK", "0") == "0":
        save(export, exported(load(folder / CHECKPOINT), {"name": export.stem}))
        say(f"exported to {export}", quiet)
    file = "" if chosen.command == "generate" else " FILE"
    say(f"use it: wavediff {chosen.command} -m {shlex.quote(str(export or folder))}{file}", quiet)


def _classify(
    folders: list[Path],
    export: Path | None,
    steps: int | None,
    minutes: float | None,
    seed: int,
    force: bool,
    quiet: bool,
) -> None:
    """A judge of generated sounds: it tells the sub-folders of FOLDERS apart."""
    from wavediff.classifier import save, train_classifier

    target = export or Path("classifier.safetensors")
    _must_be_writable(target, force)
    with Progress("training", quiet) as bar:
        for event in train_classifier(
            folders, steps=steps or CLASSIFIER_STEPS, minutes=minutes, seed=seed
        ):
            bar.update(event.progress, f"loss {event.loss:.3f}")
            if event.classifier is not None:
                save(target, event.classifier)
                say(f"{event.accuracy:.1%} of held-out sounds are told rightly", quiet)
    say(f"use it: wavediff evaluate --classifier {shlex.quote(str(target))} …", quiet)


def _must_be_writable(target: Path | None, force: bool) -> None:
    """Raises TaskError for a model's file that could not be written after a long training."""
    from wavediff.errors import TaskError

    if target is None:
        return
    if target.suffix != ".safetensors":
        raise TaskError(f"{target} is no name for a model", "it ends with .safetensors")
    if target.is_dir() or not target.absolute().parent.is_dir():
        raise TaskError(f"{target} cannot be written", "name a file in a folder that is there")
    if target.exists() and not force:
        raise TaskError(f"{target} exists", "-f overwrites")


class _News:
    """What is said while a training runs."""

    def __init__(self, recipe: "Recipe", folder: Path, quiet: bool) -> None:
        self._recipe, self._folder = recipe, folder
        self._audio = recipe.training.batch * recipe.training.crop  # seconds in a step
        self._quiet, self._said = quiet, time.monotonic()
        self._last: tuple[float, float] | None = None  # seconds and progress at the line before

    def tell(self, event: "Event", bar: Progress) -> None:
        if self._last is None:
            say(f"training in {self._folder} from step {event.step - 1}", self._quiet)
            _say_noise(self._recipe, self._quiet)
            self._first_step, self._last = event.step, (event.seconds, event.progress)
        steps, seconds = event.step - self._first_step, event.seconds - self._last[0]
        speed = f", {steps * self._audio / seconds:.0f} s of audio a second" if seconds > 0 else ""
        line = f"step {event.step}, loss {event.loss:.4f}{speed}"
        bar.update(event.progress, line)
        if event.validation is not None:
            say(f"{line}; validation {event.validation.table() or 'drawn'}", self._quiet)
        elif not bar.shown and time.monotonic() - self._said > NEWS_SECONDS:
            gained = event.progress - self._last[1]
            left = (1 - event.progress) * seconds / gained if gained > 0 else 0.0
            say(f"{line}, {duration(left)} left", self._quiet)
        else:
            return
        self._said = time.monotonic()


def _facts(event: "Event") -> dict[str, object]:
    """An event as JSON, without its sounds."""
    scores = event.validation
    return {
        "step": event.step,
        "progress": event.progress,
        "seconds": event.seconds,
        "skipped": event.skipped,
        "saved": event.saved,
        **asdict(event.detail),
        **(scores.scores if scores else {}),
    }


def _describe(part: "Contents", quiet: bool) -> None:
    broken = f", {count(len(part.skipped), 'file')} broken" if part.skipped else ""
    say(f"{part.role}: {count(part.files, 'file')}, {duration(part.seconds)}{broken}", quiet)
    for skipped in part.skipped[:5]:
        complain(skipped.reason)


def _say_noise(recipe: "Recipe", quiet: bool) -> None:
    if recipe.data.sounds and not recipe.data.noise:
        say("no noise is named: only synthetic noise is mixed in; --noise DIR adds yours", quiet)
