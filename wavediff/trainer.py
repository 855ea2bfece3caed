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
SMALLEST_SCALE = 1e-3  # of fp16's loss: below, it is not the scale that makes gradients overflow
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
        with torch.random.fork_rng(devices=[]):
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
            "updates": self.updates(),
            "seconds": self.seconds,
            "scaler": self.scaler.state_dict(),
        }
        tensors = {key: t.detach().to("cpu", copy=True) for key, t in tensors.items()}
        return Checkpoint(self.recipe, tensors, state)

    def restore(self, saved: Checkpoint) -> None:
        """Go on where a snapshot was taken. Raises CheckpointError when it is not one of ours."""
        state, average = saved.state, saved.part("average")
        first, second = saved.part("first"), saved.part("second")
        try:
            self.denoiser.network.load_state_dict(saved.part("network"))
            self.step, self.seconds = int(state["step"]), float(state["seconds"])
            updates = torch.tensor(float(state.get("updates", self.step)), device=self.device)
            if state["scaler"]:
                self.scaler.load_state_dict(state["scaler"])
            for name, parameter in self.denoiser.network.named_parameters():
                self.average[name].copy_(average[name])
                if name in first:
                    self.optimizer.state[parameter] = {
                        "step": updates.clone(),
                        "exp_avg": first[name].to(self.device, copy=True),
                        "exp_avg_sq": second[name].to(self.device, copy=True),
                    }
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise CheckpointError(
                f"the checkpoint is not one of a training that can go on ({error!r:.60})",
                "begin in another folder, with --init and this file",
            ) from None

    def updates(self) -> int:
        """Steps that changed the weights; fp16 leaves out some whose gradient overflows."""
        moments = next(iter(self.optimizer.state.values()), None)
        return int(moments["step"]) if moments else 0

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

        Raises TrainingError for a loss or gradient that is not finite; the weights stay as they
        were.
        """
        settings, rate = self.recipe.training, self.learning_rate()
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        t, calls, white = self._draw(noisy.shape[-1], slice(first, first + noisy.shape[0]))
        noise = torch.nn.functional.conv1d(white, self.kernel[None, None])[:, 0]

        per_item = []
        self.optimizer.zero_grad(set_to_none=True)
        for part in torch.arange(noisy.shape[0]).chunk(settings.accumulate):
            here = slice(int(part[0]), int(part[-1]) + 1)
            with self._synchronised(here.stop == noisy.shape[0]):
                losses = self._losses(noisy[here], clean[here], t[here], noise[here], calls)
                self.scaler.scale(losses.sum() / noisy.shape[0]).backward()
            per_item.append(losses.detach())
        losses = torch.cat(per_item)
        self.scaler.unscale_(self.optimizer)
        norm = float(torch.nn.utils.clip_grad_norm_(self.denoiser.parameters(), settings.clip))
        loss = _mean_over_processes(losses.mean())
        self._check(loss, norm)
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
        return Step(loss, rate, norm, by_time)

    def _draw(self, samples: int, mine: slice) -> tuple[Tensor, int, Tensor]:
        """The times (items,), the calls of a sampler and the white noise of this step.

        Everything is drawn for the items of all processes, of which `mine` are kept: how they are
        shared does not change what is learned.
        """
        batch, path = self.recipe.training.batch, self.recipe.path
        drawn = torch.Generator().manual_seed(derive_seed(self.recipe.training.seed, 1, self.step))
        t = torch.rand(batch, generator=drawn)
        t = torch.where(torch.rand(batch, generator=drawn) < path.at_start, 1.0, t.clamp(min=1e-3))
        calls = int(torch.tensor((2, 4))[torch.randint(2, (1,), generator=drawn)])
        if torch.rand(1, generator=drawn) < path.rollout:
            t = torch.full_like(t, self.path.times(calls)[-2])
        else:
            calls = 1
        white = torch.randn(batch, 1, samples + self.kernel.shape[0] - 1, generator=drawn)
        return t[mine].to(self.device), calls, white[mine].to(self.device)

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

    def _losses(self, noisy: Tensor, clean: Tensor, t: Tensor, noise: Tensor, calls: int) -> Tensor:
        """The loss of each item, (batch,); after `calls - 1` steps of sampling if above 1."""
        precision = self.recipe.training.precision
        with torch.autocast(
            self.device.type, AUTOCAST.get(precision), enabled=precision in AUTOCAST
        ):
            if calls > 1:
                x = self._rolled_out(noisy, calls)
            else:
                x = self.path.corrupt(clean, noisy, t, noise)
            guess = self.model(x, noisy, t)
        return denoise_loss(guess, clean, self.recipe.loss)

    @torch.no_grad()
    def _rolled_out(self, noisy: Tensor, calls: int) -> Tensor:
        """The sampler's own state before its last call."""

        def denoise(x: Tensor, t: float) -> Tensor:
            return self.denoiser(x, noisy, torch.full_like(x[:, 0], t))

        times = self.path.times(calls)[:-1]
        return SAMPLERS["ddim"](self.path, denoise, noisy, noisy, times, zero_draw(noisy))

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
