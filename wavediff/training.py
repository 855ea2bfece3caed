"""Training: a generator that yields its progress and can be stopped and resumed at any step."""

import contextlib
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.nn  # before any group is there: its functions keep the one they meet

from wavediff import batches
from wavediff import checkpoint as checkpoints
from wavediff.errors import CheckpointError, RecipeError, TrainingError
from wavediff.logs import Log
from wavediff.model import choose_device, from_checkpoint, locate
from wavediff.recipe import Recipe, to_toml
from wavediff.trainer import LABELS, Step, Trainer
from wavediff.validation import Examples, Validation, examples, validate

CHECKPOINT = "checkpoint.safetensors"
RECIPE = "recipe.toml"
MEASURED = 64  # items by which a new training gets to know its data
DIVERGED = 4.0  # times the first loss, and MARGIN more: beyond that a training has diverged
MARGIN = 0.5  # because a good loss may be zero


@dataclass(frozen=True)
class Event:
    """What a training says after a step."""

    step: int  # steps done
    loss: float
    progress: float  # 0 to 1
    seconds: float  # of training, earlier sessions included
    detail: Step
    skipped: int  # files that could not be used
    validation: Validation | None = None
    saved: Path | None = None


def train(
    recipe: Recipe,
    folder: Path | str,
    *,
    init: str | Path | None = None,
    device: str = "auto",
    log: bool = True,
    stop: Callable[[], bool] = lambda: False,
) -> Iterator[Event]:
    """Train what `recipe` says in `folder`, and go on there if a training was begun before.

    Yields an `Event` after every step; closing the generator saves and stops, and so does a true
    answer of `stop`, in all processes at the same step. `init` names a model to begin from. A
    training that was killed goes on from its last checkpoint, on a CPU to the same weights, bit
    for bit, unless it is `max_minutes` that ends it. Under `torchrun` every process calls this and
    does its share.

    Raises DataError, RecipeError, CheckpointError, and TrainingError for a loss that is not finite
    or has diverged; the last good checkpoint stays.
    """
    chosen = choose_device(_own_device(device))
    recipe = batches.completed(recipe)
    with _processes(chosen) as (rank, world):
        trainer = Trainer(recipe, chosen)
        whole = _begin(trainer, Path(folder), init)
        share = recipe.training.batch // world
        if share * world != recipe.training.batch:
            raise RecipeError(
                f"a batch of {recipe.training.batch} cannot be shared by {world} processes",
                "set training.batch to a multiple of the processes",
            )
        prepared = batches.prepare(recipe)
        if trainer.step == 0 and init is None:
            trainer.measure(prepared.source.batch(0, range(MEASURED)))
        items = range(rank * share, (rank + 1) * share)
        run = _Run(trainer, Path(folder), rank == 0, trainer.step, whole)
        try:
            with run.opened(prepared, log):
                yield from _steps(run, prepared, items, stop)
        except OSError as error:
            raise TrainingError(
                f"{folder} cannot be written: {error}", "is the disk full, or the folder read-only?"
            ) from error
        except RuntimeError as error:
            if not isinstance(error, dist.DistError) and "gloo" not in str(error):
                raise
            raise TrainingError(
                "another process of this training has ended",
                "the same command goes on, by itself with torchrun --max-restarts 3",
            ) from error


def _steps(
    run: "_Run", prepared: batches.Batches, items: range, stop: Callable[[], bool]
) -> Iterator[Event]:
    trainer, device = run.trainer, run.trainer.device
    watch, before = Watch(), time.monotonic()
    try:
        stream = prepared.stream(trainer.step, trainer.recipe.training.steps, items)
        with contextlib.closing(stream):
            for batch in stream:
                trainer.seconds, stopped = _agree(trainer.seconds, stop(), device)
                if stopped or trainer.progress() >= 1:
                    break
                step = trainer.advance(batch, items.start)
                watch.see(step.loss, trainer.step)
                now = time.monotonic()
                # All processes end with the same step, which validates and saves.
                trainer.seconds, _ = _agree(trainer.seconds + now - before, False, device)
                before = now
                progress, skipped = trainer.progress(), len(prepared.skipped)
                yield run.report(
                    Event(trainer.step, step.loss, progress, trainer.seconds, step, skipped)
                )
        run.save()
    except GeneratorExit:  # closed between two steps: nothing is half done
        run.save()
        raise
    finally:
        trainer.model = trainer.objective  # without what would keep the processes' group alive


@dataclass
class _Run:
    """A training's folder: what is written there, by the first process alone."""

    trainer: Trainer
    folder: Path
    writes: bool
    saved: int  # the step of the checkpoint in the folder
    whole: bool  # whether that one can be read, and is worth keeping
    log: Log | None = None
    pairs: Examples = ()

    @contextlib.contextmanager
    def opened(self, prepared: batches.Batches, log: bool) -> Iterator[None]:
        """With its log, and with sounds to validate on."""
        recipe = self.trainer.recipe
        if not self.writes:
            yield
            return
        self.pairs = examples(recipe, prepared)
        self.folder.mkdir(parents=True, exist_ok=True)
        (self.folder / RECIPE).write_text(to_toml(recipe), "utf-8")
        self.log = Log(self.folder, self.trainer.step) if log else None
        try:
            yield
        finally:
            if self.log is not None:
                self.log.close()

    def report(self, event: Event) -> Event:
        """Validate, save and log what is due after a step."""
        if not self.writes:
            return event
        settings, last = self.trainer.recipe.training, event.progress >= 1
        if event.step % settings.validate_every == 0 or last:
            model = from_checkpoint(
                self.trainer.snapshot({}), str(self.folder), self.trainer.device, alone=True
            )
            event = replace(event, validation=validate(model, self.pairs, self.trainer.recipe.rate))
        if event.step % settings.save_every == 0 or last:
            event = replace(event, saved=self.save())
        if self.log is not None:
            self.log.write(event.step, event.detail, event.validation)
        return event

    def save(self) -> Path | None:
        """Write a checkpoint, unless this step's is there. Raises TrainingError for bad weights."""
        if not self.writes or self.trainer.step == self.saved:
            return None
        snapshot = self.trainer.snapshot({})
        if not all(bool(tensor.isfinite().all()) for tensor in snapshot.tensors.values()):
            raise TrainingError(
                f"the weights are not finite at step {self.trainer.step}",
                "lower training.learning_rate; the last good checkpoint is kept",
            )
        checkpoints.save(self.folder / CHECKPOINT, snapshot, keep_previous=self.whole)
        self.saved, self.whole = self.trainer.step, True
        return self.folder / CHECKPOINT


@dataclass
class Watch:
    """Stops a training whose loss has left for good."""

    first: float | None = None  # before anything was learned: the loss of changing nothing
    recent: float = 0.0  # mean of about the last 20

    def see(self, loss: float, step: int) -> None:
        """Raises TrainingError when the recent loss is far above the first."""
        if self.first is None:
            self.first = self.recent = loss
        self.recent = 0.95 * self.recent + 0.05 * loss
        if self.recent > DIVERGED * abs(self.first) + MARGIN:
            raise TrainingError(
                f"the training diverges: the loss at step {step} is {self.recent:.3g}, "
                f"it began at {self.first:.3g}",
                "lower training.learning_rate; the last good checkpoint is kept",
            )


def _begin(trainer: Trainer, folder: Path, init: str | Path | None) -> bool:
    """Go on from the checkpoint in `folder`, else start from `init`, else from nothing.

    Answers whether the checkpoint is whole: if not, it is the previous one that goes on.
    """
    path = folder / CHECKPOINT
    before, whole = checkpoints.previous(path), True
    if path.exists() or before.exists():
        try:
            saved = checkpoints.load(path)
        except CheckpointError:
            if not before.exists():
                raise
            saved, whole = checkpoints.load(before), False
        ours = _lasting(trainer.recipe)
        for part, value in _lasting(saved.recipe).items():
            if ours[part] != value:
                raise RecipeError(
                    f"{folder} holds a training with another {part}",
                    "choose another folder, or give the settings it was begun with",
                )
        trainer.restore(saved)
    elif init is not None:
        given = checkpoints.load(locate(init))
        weights = given.weights()
        if given.recipe.prior.labels != trainer.recipe.prior.labels:
            weights.pop(LABELS, None)  # other labels are learned anew
        trainer.initialise(weights, str(init))
    return whole


def _lasting(recipe: Recipe) -> dict[str, Any]:
    """What a training cannot change on its way; all other settings may differ when it goes on."""
    path = (recipe.path.kind, recipe.path.scale, recipe.path.growth)
    fixed = {"task": recipe.task, "rate": recipe.rate, "path": path, "mel": recipe.mel}
    fixed |= {"length": recipe.generate.frames, "optimizer": recipe.training.optimizer}
    sizes = ("network", "upper", "prior", "diffwave")
    return fixed | {name: getattr(recipe, name) for name in sizes}


@contextlib.contextmanager
def _processes(device: torch.device) -> Iterator[tuple[int, int]]:
    """This process's rank and the number of them, as `torchrun` says."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        yield 0, 1
        return
    if device.type == "cuda":
        torch.cuda.set_device(device)
    begun = dist.is_initialized()
    if not begun:
        # What torchrun starts again must not meet the addresses of those that are gone.
        store, rank, world = next(dist.rendezvous("env://"))
        tries = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
        dist.init_process_group(
            "nccl" if device.type == "cuda" else "gloo",
            store=dist.PrefixStore(f"try {tries}", store),
            rank=rank,
            world_size=world,
        )
    try:
        yield dist.get_rank(), dist.get_world_size()
    finally:
        if not begun:
            dist.destroy_process_group()


def _own_device(device: str) -> str:
    """Each process of `torchrun` takes an accelerator of its own."""
    if device in ("auto", "cuda") and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return device


def _agree(seconds: float, stop: bool, device: torch.device) -> tuple[float, bool]:
    """The longest time and any wish to stop, so that all processes do the same."""
    if not dist.is_initialized():
        return seconds, stop
    both = torch.tensor((seconds, float(stop)), dtype=torch.float64, device=device)
    dist.all_reduce(both, dist.ReduceOp.MAX)
    return float(both[0]), bool(both[1])
