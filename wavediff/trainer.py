"""The state of a training and its single step."""

import contextlib
import math
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor
from torch.nn.parallel import DistributedDataParallel

from wavediff.checkpoint import Checkpoint
from wavediff.denoiser import Denoiser
from wavediff.errors import CheckpointError, TrainingError
from wavediff.losses import denoise_loss
from wavediff.noise import derive_seed, spectral_tilt
from wavediff.recipe import Recipe
from wavediff.samplers import SAMPLERS, zero_draw
from wavediff.tasks import build

BUCKETS = 4  # parts of the path for which the loss is told apart
AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


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
    denoiser: Denoiser = field(init=False)
    average: dict[str, Tensor] = field(init=False)
    optimizer: torch.optim.AdamW = field(init=False)
    step: int = 0
    seconds: float = 0.0

    def __post_init__(self) -> None:
        settings = self.recipe.training
        torch.manual_seed(settings.seed)
        self.denoiser = build(self.recipe).to(self.device)
        self.average = {
            name: p.detach().clone() for name, p in self.denoiser.network.named_parameters()
        }
        self.optimizer = torch.optim.AdamW(
            self.denoiser.parameters(),
            settings.learning_rate,
            (0.9, 0.98),
            weight_decay=settings.weight_decay,
            fused=True,
        )
        fp16 = settings.precision == "fp16"
        self.scaler = torch.amp.GradScaler(self.device.type, enabled=fp16)
        rate = self.recipe.rate
        self.kernel = spectral_tilt(rate).to(self.device)
        self.path = self.denoiser.path
        self.model: torch.nn.Module = self.denoiser
        if dist.is_initialized():
            self.model = DistributedDataParallel(self.denoiser)

    def initialise(self, weights: dict[str, Tensor], name: str) -> None:
        """Begin from the weights of another training. Raises CheckpointError if they do not fit."""
        try:
            self.denoiser.network.load_state_dict(weights)
        except RuntimeError:
            raise CheckpointError(
                f"the weights of {name} do not fit the network of this recipe",
                "leave out the settings under [network]: they come with --init",
            ) from None
        for key, tensor in self.denoiser.network.named_parameters():
            self.average[key].copy_(tensor.detach())

    def snapshot(self, facts: dict[str, Any]) -> Checkpoint:
        """Everything needed to go on, as a checkpoint."""
        tensors: dict[str, Tensor] = {}
        for name, parameter in self.denoiser.network.named_parameters():
            tensors[f"network.{name}"] = parameter
            tensors[f"average.{name}"] = self.average[name]
            moments = self.optimizer.state.get(parameter)
            if moments:
                tensors[f"first.{name}"] = moments["exp_avg"]
                tensors[f"second.{name}"] = moments["exp_avg_sq"]
        state = {
            **facts,
            "step": self.step,
            "seconds": self.seconds,
            "scaler": self.scaler.state_dict(),
        }
        tensors = {key: tensor.detach().cpu() for key, tensor in tensors.items()}
        return Checkpoint(self.recipe, tensors, state)

    def restore(self, saved: Checkpoint) -> None:
        """Go on where a snapshot was taken."""
        self.step, self.seconds = int(saved.state["step"]), float(saved.state["seconds"])
        self.denoiser.network.load_state_dict(saved.part("network"))
        if saved.state["scaler"]:
            self.scaler.load_state_dict(saved.state["scaler"])
        average, first, second = (saved.part(p) for p in ("average", "first", "second"))
        for name, parameter in self.denoiser.network.named_parameters():
            self.average[name].copy_(average[name])
            if name in first:
                self.optimizer.state[parameter] = {
                    "step": torch.tensor(float(self.step)),
                    "exp_avg": first[name].to(self.device),
                    "exp_avg_sq": second[name].to(self.device),
                }

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

    def advance(self, noisy: Tensor, clean: Tensor, first: int = 0) -> Step:
        """One step on (noisy, clean), the items `first …` of the batch over all processes.

        Raises TrainingError for a loss or gradient that is not finite.
        """
        settings, path = self.recipe.training, self.recipe.path
        batch = settings.batch
        rate = self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        drawn = torch.Generator().manual_seed(derive_seed(settings.seed, 1, self.step))
        mine = slice(first, first + noisy.shape[0])
        t = torch.rand(batch, generator=drawn)
        t = torch.where(torch.rand(batch, generator=drawn) < path.at_start, 1.0, t.clamp(min=1e-3))
        calls = int(torch.tensor((2, 4))[torch.randint(2, (1,), generator=drawn)])
        rolled = bool(torch.rand(1, generator=drawn) < path.rollout)
        white = torch.randn(batch, 1, noisy.shape[-1] + self.kernel.shape[0] - 1, generator=drawn)
        t = t[mine].to(self.device)
        kernel = self.kernel[None, None]
        noise = torch.nn.functional.conv1d(white[mine].to(self.device), kernel)[:, 0]

        per_item = []
        self.optimizer.zero_grad(set_to_none=True)
        for part in torch.arange(noisy.shape[0]).chunk(settings.accumulate):
            here = slice(int(part[0]), int(part[-1]) + 1)
            with self._synchronised(here.stop == noisy.shape[0]):
                losses = self._losses(
                    noisy[here], clean[here], t[here], noise[here], calls if rolled else 1
                )
                self.scaler.scale(losses.sum() / noisy.shape[0]).backward()
            per_item.append(losses.detach())
        losses = torch.cat(per_item)
        self.scaler.unscale_(self.optimizer)
        norm = torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), settings.clip)
        loss = _mean_over_processes(losses.mean())
        if not math.isfinite(loss):
            raise TrainingError(
                f"the loss is {loss} at step {self.step}",
                "lower training.learning_rate, or use training.precision=fp32",
            )
        self.scaler.step(self.optimizer)
        self.scaler.update()
        decay = min(settings.ema, (1 + self.step) / (10 + self.step))
        with torch.no_grad():
            torch._foreach_lerp_(
                list(self.average.values()), list(self.denoiser.network.parameters()), 1 - decay
            )
        self.step += 1
        bucket = (t * BUCKETS).long().clamp(max=BUCKETS - 1)
        by_time = tuple(float(losses[bucket == b].mean()) for b in range(BUCKETS))
        return Step(loss, rate, float(norm), by_time)

    def _losses(self, noisy: Tensor, clean: Tensor, t: Tensor, noise: Tensor, calls: int) -> Tensor:
        """The loss of each item, (batch,); after `calls - 1` steps of sampling if above 1."""
        precision = self.recipe.training.precision
        with torch.autocast(
            self.device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST
        ):
            if calls > 1:
                x, last = self._rolled_out(noisy, calls)
                t = torch.full_like(t, last)
            else:
                x = self.path.corrupt(clean, noisy, t, noise)
            guess = self.model(x, noisy, t)
        return denoise_loss(guess, clean, self.recipe.loss)

    @torch.no_grad()
    def _rolled_out(self, noisy: Tensor, calls: int) -> tuple[Tensor, float]:
        """The sampler's own state before its last call, and the time there."""
        *times, last, _ = self.path.times(calls)

        def denoise(x: Tensor, t: float) -> Tensor:
            return self.denoiser(x, noisy, torch.full_like(x[:, 0], t))

        sampler = SAMPLERS["ddim"]
        return sampler(self.path, denoise, noisy, noisy, [*times, last], zero_draw(noisy)), last

    def _synchronised(self, now: bool) -> AbstractContextManager[Any]:
        """Processes exchange gradients only with the last part of a step."""
        if isinstance(self.model, DistributedDataParallel) and not now:
            return self.model.no_sync()
        return contextlib.nullcontext()


def _mean_over_processes(loss: Tensor) -> float:
    if dist.is_initialized():
        loss = loss.detach().clone()
        dist.all_reduce(loss)
        loss /= dist.get_world_size()
    return float(loss)
