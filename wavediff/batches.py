"""Batches for a training, from whatever its recipe names, prepared here or by worker processes."""

from collections.abc import Generator
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from wavediff import data, shares
from wavediff.crops import Crops, LabelledMels
from wavediff.data import Clips, Skipped
from wavediff.errors import DataError, WavediffError
from wavediff.labelled import Labelled, labels_in, load_labelled
from wavediff.mixtures import Mixtures, Pairs, room_responses
from wavediff.recipe import Recipe


class Drawn(Protocol):
    """What batches are drawn from, each a pure function of its step and items."""

    @property
    def seed(self) -> int: ...

    def batch(self, step: int, items: range) -> tuple[Tensor, ...]:
        """Items of step `step`, each tensor (len(items), …)."""


@dataclass(frozen=True)
class Batches:
    """A source of batches, and the clips that it draws from."""

    source: Drawn
    clips: tuple[Clips, ...]
    workers: int

    @property
    def skipped(self) -> list[Skipped]:
        """Files that could not be used."""
        return [skipped for clips in self.clips for skipped in clips.skipped]

    def stream(
        self, first: int, last: int, items: range
    ) -> Generator[tuple[Tensor, ...], None, None]:
        """The batches of steps `first` to `last`, of them the items `items`.

        Raises DataError, also for what happens in a worker process.
        """
        steps = _Steps(self.source, first, last, items)
        loader = DataLoader(
            steps,
            batch_size=None,
            num_workers=self.workers,
            prefetch_factor=4 if self.workers else None,
            worker_init_fn=_one_thread,
        )
        try:
            for batch in loader:
                if isinstance(batch, WavediffError):
                    raise batch
                yield batch
        except (RuntimeError, EOFError, ConnectionError) as error:
            if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
                raise
            raise DataError(
                "a process that prepares batches was ended from outside",
                "is the memory too small? Set data.workers or data.memory_limit lower",
            ) from error


class _Steps(Dataset[tuple[Tensor, ...] | WavediffError]):
    def __init__(self, source: Drawn, first: int, last: int, items: range) -> None:
        self.source, self.first, self.last, self.items = source, first, last, items

    def __len__(self) -> int:
        return max(0, self.last - self.first)

    def __getitem__(self, index: int) -> tuple[Tensor, ...] | WavediffError:
        def drawn(share: slice) -> tuple[Tensor, ...]:
            return self.source.batch(self.first + index, self.items[share])

        try:
            parts = shares.each(drawn, len(self.items))
            return tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
        except WavediffError as error:  # raised here, it would come out of a worker as a traceback
            return error


def _one_thread(worker: int) -> None:
    torch.set_num_threads(1)


def completed(recipe: Recipe) -> Recipe:
    """The recipe with the labels that its folders have. Raises DataError for unusable ones."""
    if recipe.task != "generate" or recipe.prior.labels:
        return recipe
    found = labels_in(list(recipe.data.sounds))
    return recipe.model_copy(update={"prior": recipe.prior.model_copy(update={"labels": found})})


def prepare(recipe: Recipe) -> Batches:
    """Read the folders that a recipe names. Raises DataError when they hold nothing to learn."""
    settings, seed = recipe.data, recipe.training.seed
    limit, samples = settings.memory_limit, round(recipe.training.crop * recipe.rate)
    if settings.noisy and settings.clean:
        noisy, clean = data.twins(settings.noisy, settings.clean, recipe.rate, limit)
        pairs = Pairs(noisy, clean, samples, seed, settings.balance, recipe.mixture.level)
        return Batches(pairs, (noisy, clean), settings.workers)
    if not settings.sounds:
        raise DataError("no folder of recordings is named", "wavediff train FOLDER …")
    folders = list(settings.sounds)
    if recipe.task == "generate":
        return _generate(recipe, load_labelled(folders, recipe.rate, limit, flat=True))
    sounds = data.load(folders, recipe.rate, limit)
    if (preset := recipe.preset) is not None:
        whole = max(1, round(samples / preset.hop)) * preset.hop
        return Batches(Crops(sounds, whole, seed, settings.balance), (sounds,), settings.workers)
    noise = data.load(list(settings.noise), recipe.rate, limit) if settings.noise else None
    rooms = room_responses(settings.rooms, recipe.rate)
    mixtures = Mixtures(sounds, noise, rooms, recipe.mixture, samples, seed, settings.balance)
    clips = (sounds,) if noise is None else (sounds, noise)
    return Batches(mixtures, clips, settings.workers)


def _generate(recipe: Recipe, labelled: Labelled) -> Batches:
    preset, wanted = recipe.preset, recipe.prior.labels
    assert preset is not None
    if wanted != tuple(label for label in labelled.labels if label):
        raise DataError(
            f"the folders have the labels {', '.join(labelled.labels) or 'none'}, "
            f"the training was begun with {', '.join(wanted) or 'none'}",
            "choose another folder for the run, or the same sounds",
        )
    frames = recipe.generate.frames or round(recipe.training.crop * recipe.rate / preset.hop)
    samples = preset.samples(frames)
    mels = LabelledMels(
        labelled, preset, samples, bool(recipe.generate.frames), recipe.training.seed
    )
    return Batches(mels, (labelled.clips,), recipe.data.workers)
