"""Training: a generator that yields its progress and can be stopped and resumed at any step."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import torch
import torch.distributed as dist

from wavediff import batches, data
from wavediff import checkpoint as checkpoints
from wavediff.data import Clips
from wavediff.errors import CheckpointError, RecipeError, TrainingError
from wavediff.logs import Log
from wavediff.model import choose_device, from_checkpoint, locate
from wavediff.recipe import Recipe
from wavediff.trainer import Step, Trainer
from wavediff.validation import Validation, validate

CHECKPOINT = "checkpoint.safetensors"
RECIPE = "recipe.json"
EARLY = 50  # steps whose loss later ones are held against
DIVERGED = 4.0  # times the early loss: beyond that a training has diverged


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
) -> Iterator[Event]:
    """Train what `recipe` says in `folder`, and go on there if a training was begun before.

    Yields an `Event` after every step; closing the generator saves and stops. `init` names a model
    to begin from. A training that was killed goes on from its last checkpoint, on a CPU to the
    same weights, bit for bit. Under `torchrun` every process calls this and does its share.

    Raises DataError, RecipeError, CheckpointError, and TrainingError for a loss that is not finite
    or has diverged; the last good checkpoint stays.
    """
    folder = Path(folder)
    rank, world = _join_processes()
    chosen = choose_device(_own_device(device))
    trainer = Trainer(recipe, chosen)
    _begin(trainer, folder, init)
    prepared = batches.prepare(recipe)
    pairs = _validation_pairs(recipe)
    share = recipe.training.batch // world
    if share * world != recipe.training.batch:
        raise RecipeError(
            f"a batch of {recipe.training.batch} cannot be shared by {world} processes",
            "set training.batch to a multiple of the processes",
        )
    if rank == 0:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RECIPE).write_text(recipe.model_dump_json(indent=2) + "\n")
    items = range(rank * share, (rank + 1) * share)
    writer = Log(folder, trainer.step) if rank == 0 and log else None
    watch = Watch()
    try:
        before = time.monotonic()
        for noisy, clean in prepared.stream(trainer.step, recipe.training.steps, items):
            if _anywhere(trainer.progress() >= 1):
                break
            step = trainer.advance(noisy.to(chosen), clean.to(chosen), items.start)
            watch.see(step.loss, trainer.step)
            now = time.monotonic()
            trainer.seconds, before = trainer.seconds + now - before, now
            event = Event(
                trainer.step,
                step.loss,
                trainer.progress(),
                trainer.seconds,
                step,
                len(prepared.skipped),
            )
            if rank == 0:
                event = _report(trainer, event, pairs, folder, writer)
            yield event
        _save(trainer, folder, rank)
    except GeneratorExit:  # closed between two steps: nothing is half done
        _save(trainer, folder, rank)
        raise
    finally:
        if writer is not None:
            writer.close()


@dataclass
class Watch:
    """Stops a training whose loss has left for good."""

    first: float = 0.0  # mean absolute loss of the first steps
    recent: float = 0.0
    seen: int = 0

    def see(self, loss: float, step: int) -> None:
        """Raises TrainingError when the recent loss is far above the first."""
        self.seen += 1
        if self.seen <= EARLY:
            self.first += abs(loss) / EARLY
        self.recent = loss if self.seen == 1 else 0.95 * self.recent + 0.05 * loss
        if self.seen > EARLY and self.recent > DIVERGED * self.first + 0.1:
            raise TrainingError(
                f"the training diverges: the loss at step {step} is {self.recent:.3g}, "
                f"it began at {self.first:.3g}",
                "lower training.learning_rate; the last good checkpoint is kept",
            )


def _begin(trainer: Trainer, folder: Path, init: str | Path | None) -> None:
    """Go on from the checkpoint in `folder`, else start from `init`, else from nothing."""
    path = folder / CHECKPOINT
    if path.exists() or checkpoints.previous(path).exists():
        try:
            saved = checkpoints.load(path)
        except CheckpointError:
            saved = checkpoints.load(checkpoints.previous(path))
        if (saved.recipe.network, saved.recipe.path) != (
            trainer.recipe.network,
            trainer.recipe.path,
        ):
            raise RecipeError(
                f"{folder} holds a training with another network",
                "choose another folder, or give the settings it was begun with",
            )
        trainer.restore(saved)
    elif init is not None:
        trainer.initialise(checkpoints.load(locate(init)).weights(), str(init))


def _report(
    trainer: Trainer,
    event: Event,
    pairs: tuple[Clips, Clips] | None,
    folder: Path,
    writer: Log | None,
) -> Event:
    settings = trainer.recipe.training
    last = event.progress >= 1
    if pairs is not None and (event.step % settings.validate_every == 0 or last):
        model = from_checkpoint(trainer.snapshot({}), str(folder), trainer.device)
        event = replace(event, validation=validate(model, pairs))
    if event.step % settings.save_every == 0 or last:
        event = replace(event, saved=_save(trainer, folder, 0))
    if writer is not None:
        writer.write(event.step, event.detail, event.validation)
    return event


def _save(trainer: Trainer, folder: Path, rank: int) -> Path:
    path = folder / CHECKPOINT
    if rank == 0:
        checkpoints.save(path, trainer.snapshot({}), keep_previous=True)
    return path


def _validation_pairs(recipe: Recipe) -> tuple[Clips, Clips] | None:
    settings = recipe.data
    if settings.validation_noisy is None or settings.validation_clean is None:
        return None
    return data.twins(
        settings.validation_noisy, settings.validation_clean, recipe.rate, settings.memory_limit
    )


def _join_processes() -> tuple[int, int]:
    """This process's rank and the number of them, as `torchrun` says."""
    world = int(os.environ.get("WORLD_SIZE", "1"))
    if world == 1:
        return 0, 1
    if not dist.is_initialized():
        dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    return dist.get_rank(), world


def _own_device(device: str) -> str:
    """Each process of `torchrun` takes an accelerator of its own."""
    if device == "auto" and "LOCAL_RANK" in os.environ and torch.cuda.is_available():
        return f"cuda:{os.environ['LOCAL_RANK']}"
    return device


def _anywhere(true: bool) -> bool:
    """Whether it is true in any process, so that all stop at the same step."""
    if not dist.is_initialized():
        return true
    flag = torch.tensor(float(true))
    if torch.cuda.is_available():
        flag = flag.cuda()
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return bool(flag > 0)
