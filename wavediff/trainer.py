"""The state of a training and its single step."""

import contextlib
import ctypes
import math
from collections.abc import Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from wavediff import shares, stack
from wavediff.checkpoint import Checkpoint
from wavediff.errors import CheckpointError, TrainingError
from wavediff.network import Blocks
from wavediff.noise import derive_seed
from wavediff.objective import OBJECTIVES, Batch, Draw, Objective
from wavediff.optimizers import Optimizers
from wavediff.packed import ONEDNN
from wavediff.recipe import Recipe
from wavediff.tasks import Trained, build

BUCKETS = 4  # parts of the path for which the loss is told apart
LABELS = "label.weight"  # the tensor that a model may lack from which a training begins
# glibc's M_TRIM_THRESHOLD and M_MMAP_THRESHOLD, bytes, and M_ARENA_MAX: one for all threads.
KEPT = ((-1, 2**31 - 1), (-3, 1 << 25), (-8, 1))
SMALLEST_SCALE = 1e-3  # of fp16's loss: below, it is not the scale that makes gradients overflow


@dataclass(frozen=True)
class Step:
    """What one step of a training says."""

    loss: float
    learning_rate: float
    norm: float  # of the gradient, before clipping
    by_time: tuple[float, ...]  # loss by quarter of the path, from clean to corrupted; nan for none


@dataclass
class Trainer:
    """The state of a training: everything that a checkpoint must hold to go on exactly."""

    recipe: Recipe
    device: torch.device
    denoiser: Trained = field(init=False)
    objective: Objective = field(init=False)
    average: dict[str, Tensor] = field(init=False)
    optimizers: Optimizers = field(init=False)
    step: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        settings = self.recipe.training
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(settings.seed)
            self.denoiser = build(self.recipe).to(self.device)
        if self.device.type == "cpu":
            _hurry(self.denoiser)
        self.objective = OBJECTIVES[self.recipe.task](self.recipe, self.denoiser).to(self.device)
        self.average = {
            name: p.detach().clone() for name, p in self.denoiser.network.named_parameters()
        }
        muon = settings.optimizer == "muon"
        self.optimizers = Optimizers(self.denoiser.network, muon, settings.weight_decay)
        fp16 = settings.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)
        self.model: torch.nn.Module = self.objective
        if dist.is_initialized():
            self.model = DistributedDataParallel(self.objective)

    def initialise(self, weights: dict[str, Tensor], name: str) -> None:
        """Begin from the weights of another training. Raises CheckpointError if they do not fit."""
        own = self.denoiser.network.state_dict()
        kept = {LABELS: own[LABELS]} if LABELS in own else {}
        try:
            self.denoiser.network.load_state_dict({**kept, **weights})
        except RuntimeError:
            raise CheckpointError(
                f"the weights of {name} do not fit the network of this recipe",
                "leave out the settings under [network]: they come with --init",
            ) from None
        self._average_anew()

    def measure(self, batch: Batch) -> None:
        """Fit to the data, before the first step, what is no weight."""
        self.objective.measure(tuple(tensor.to(self.device) for tensor in batch))
        self._average_anew()

    def _average_anew(self) -> None:
        for key, tensor in self.denoiser.network.named_parameters():
            self.average[key].copy_(tensor.detach())

    def snapshot(self, facts: dict[str, Any]) -> Checkpoint:
        """Everything needed to go on, as a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.denoiser.network.named_parameters():
            tensors[f"network.{name}"] = parameter
            tensors[f"average.{name}"] = self.average[name]
        tensors |= self.optimizers.tensors()
        state = {
            **facts,
            "step": self.step,
            "updates": self.optimizers.updates,
            "seconds": self.seconds,
            "scaler": self.scaler.state_dict(),
        }
        tensors = {key: t.detach().to("cpu", copy=True) for key, t in tensors.items()}
        return Checkpoint(self.recipe, tensors, state)

    def restore(self, saved: Checkpoint) -> None:
        """Go on where a snapshot was taken. Raises CheckpointError when it is not one of ours."""
        state, average = saved.state, saved.part("average")
        try:
            self.denoiser.network.load_state_dict(saved.part("network"))
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            if state["scaler"]:
                self.scaler.load_state_dict(state["scaler"])
            for name in self.average:
                self.average[name].copy_(average[name])
            self.optimizers.restore(saved, int(state["updates"]))
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint is not one of a training that can go on ({error!r:.60})",
                "begin in another folder, with --init and this file",
            ) from None

    def progress(self) -> float:
        """How much of the training is done, 0 to 1, by steps or by time, whichever is further."""
        settings = self.recipe.training
        done = self.step / settings.steps
        if settings.max_minutes is not None:
            done = max(done, self.seconds / 60 / settings.max_minutes)
        return min(done, 1.0)

    def learning_rate(self) -> float:
        """Rises over the warm-up, falls to zero over the last share of the training."""
        settings = self.recipe.training
        rising = min(1.0, (self.step + 1) / max(1, settings.warmup))
        falling = (1 - self.progress()) / settings.decay if settings.decay else 1.0
        return settings.learning_rate * min(rising, max(falling, 0.0), 1.0)

    def advance(self, batch: Batch, first: int = 0) -> Step:
        """One step on a batch, the items `first …` of that over all processes.

        Raises TrainingError for a loss or gradient that is not finite; the weights stay as they
        were.
        """
        batch = tuple(tensor.to(self.device) for tensor in batch)
        settings, rate, items = self.recipe.training, self.learning_rate(), batch[0].shape[0]
        # Drawn for the items of all processes, so that how they are shared changes nothing.
        generator = torch.Generator().manual_seed(derive_seed(settings.seed, 1, self.step))
        draw = self.objective.draw(batch, settings.batch, generator)
        draw = draw.part(slice(first, first + items)).to(self.device)

        per_item = []
        weight = self.scaler.scale(torch.ones((), device=self.device)) / items
        self.optimizers.zero_grad()
        for part in torch.arange(items).chunk(settings.accumulate):
            here = slice(int(part[0]), int(part[-1]) + 1)
            with self._synchronised(here.stop == items):
                per_item.append(self._learn(*_part(batch, draw, here), weight))
        losses = torch.cat(per_item)
        for optimizer in self.optimizers.each:
            self.scaler.unscale_(optimizer)
        total = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), settings.clip)
        told = (_mean_over_processes(losses.mean()), total, *_by_time(losses, draw.t))
        loss, norm, *by_time = torch.stack(told).tolist()  # an accelerator is waited for once
        self._check(loss, norm)
        if math.isfinite(norm):  # fp16 leaves out a step whose gradient overflows
            self.optimizers.step(rate)
        self.scaler.update()
        decay = min(settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.values()), list(self.denoiser.network.parameters()), 1 - decay
            )
        self.step += 1
        return Step(loss, rate, norm, tuple(by_time))

    def _learn(self, batch: Batch, draw: Draw, weight: Tensor) -> Tensor:
        """The losses of some items; the gradients of `weight` times their sum are added up."""
        if self.device.type != "cpu" or self.model is not self.objective:
            losses: Tensor = self.model(batch, draw)
            (weight * losses.sum()).backward()
            return losses.detach()
        parameters = list(self.optimizers.names.values())

        def learn(share: slice) -> tuple[Tensor, tuple[Tensor | None, ...]]:
            losses = self.objective(*_part(batch, draw, share))
            whole = weight * losses.sum()
            return losses.detach(), torch.autograd.grad(whole, parameters, allow_unused=True)

        done = shares.each(learn, len(batch[0]))
        for _, gradients in done:  # in their order, so that the last bits are always the same
            for parameter, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    before = 0 if parameter.grad is None else parameter.grad
                    parameter.grad = gradient + before
        return torch.cat([losses for losses, _ in done])

    def _check(self, loss: float, norm: float) -> None:
        """Raises TrainingError for what is not finite. fp16 may overflow now and then."""
        if not math.isfinite(loss):
            found = f"the loss is {loss}"
        elif not math.isfinite(norm) and not self.scaler.is_enabled():
            found = f"the gradient is {norm}"
        elif self.scaler.is_enabled() and self.scaler.get_scale() < SMALLEST_SCALE:
            found = "the gradient overflows fp16 whatever its scale"
        else:
            return
        raise TrainingError(
            f"{found} at step {self.step}",
            "lower training.learning_rate, or use training.precision=fp32",
        )

    def _synchronised(self, now: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients only with the last part of a step."""
        if isinstance(self.model, DistributedDataParallel) and not now:
            return self.model.no_sync()
        return contextlib.nullcontext()


def _hurry(denoiser: torch.nn.Module) -> None:
    """What is faster on a processor: other blocks, and memory that is kept from step to step.

    Of an allocator that is not glibc's nothing is asked.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):
        for parameter, value in KEPT:
            ctypes.CDLL(None).mallopt(parameter, value)
    for part in denoiser.modules():
        if ONEDNN and isinstance(part, Blocks):
            part.twin = stack.through


def _part(batch: Batch, draw: Draw, items: slice) -> tuple[Batch, Draw]:
    """Some items of a batch, with what is drawn for them."""
    return tuple(tensor[items] for tensor in batch), draw.part(items)


def _by_time(losses: Tensor, times: Tensor) -> Iterator[Tensor]:
    """The mean loss of the items in each quarter of the path; nan where there is none."""
    bucket = (times * BUCKETS).long().clamp(max=BUCKETS - 1)
    for number in range(BUCKETS):
        inside = bucket == number
        yield torch.where(inside, losses, 0).sum() / inside.sum()


def _mean_over_processes(loss: Tensor) -> Tensor:
    if dist.is_initialized():
        loss = loss.detach().clone()
        dist.all_reduce(loss)
        loss /= dist.get_world_size()
    return loss
