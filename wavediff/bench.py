"""How fast a model is on this machine, beside the published network and the machine's ceilings."""

import contextlib
import math
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from wavediff import kernels
from wavediff.audio import ArraySource, Source
from wavediff.errors import TaskError
from wavediff.generating import GenerateSettings
from wavediff.mel import mel
from wavediff.model import PUBLISHED_TYPES, Model, load
from wavediff.operations import Work, work
from wavediff.prepared import number_type
from wavediff.published import HOP, PublishedConfig, PublishedNet, Schedule
from wavediff.tasks import DenoiseSettings
from wavediff.vocoding import ArrayMels, VocodeSettings

PUBLISHED_RATE = 22050
PUBLISHED_FRAMES = 86  # a second; a longer sound takes the network as long for each of it
LEVEL = 0.05  # RMS of the noise that stands for a sound
SIDE = 2048  # of the matrices whose product shows the machine's rate
COPIED = 1 << 26  # float32 whose copy shows its memory's
TRIALS = 5  # of each ceiling, of which the best counts


@dataclass(frozen=True)
class Case:
    """One way to use a model."""

    steps: int | None  # network calls, of a generator's prior; None for what the model is made for
    batch: int  # sounds at once
    precision: str  # of `PRECISIONS`


@dataclass(frozen=True)
class Figure:
    """What a case takes; times are medians."""

    steps: int
    batch: int
    precision: str  # of the network's products, fp32 or bf16
    work: float  # seconds per second of sound
    first: float  # seconds until the first sound can be heard
    memory: int  # bytes: of the process at its highest, on an accelerator of its tensors
    multiply_adds: float  # a second
    of_rate: float  # share of the machine's rate of them
    of_bandwidth: float  # share of the memory's that the least to be moved takes
    ratio: float  # times as fast as the published network; nan where that was left out


@dataclass(frozen=True)
class Ceilings:
    """What the machine can do at best, measured."""

    multiply_adds: dict[str, float]  # a second, by precision
    bandwidth: float  # bytes a second, read and written

    @classmethod
    def measure(cls, device: torch.device) -> "Ceilings":
        """By a large product of matrices, a convolution like the networks' own, and a copy."""
        rates = {}
        for name in ("fp32", "bf16"):
            dtype = number_type(name, device)
            a = torch.randn(SIDE, SIDE, device=device).to(dtype)
            x = torch.randn(16, 1, 512, 64, device=device).to(dtype).permute(0, 3, 1, 2)
            w = torch.randn(128, 1, 3, 64, device=device).to(dtype).permute(0, 3, 1, 2)
            product = SIDE**3 / _best(partial(torch.mm, a, a), device)
            convolution = 16 * 510 * w.numel() / _best(partial(F.conv2d, x, w), device)
            rates[name] = max(product, convolution)
        source = torch.randn(COPIED, device=device)
        target = torch.empty_like(source)
        return cls(rates, 2 * source.nbytes / _best(lambda: target.copy_(source), device))


@dataclass(frozen=True)
class Bench:
    """All figures of a run, and on what."""

    model: str
    device: str
    way: str  # in which its networks are computed, see `kernels.describe`
    processor: str
    threads: int
    torch: str
    parameters: int
    per_call: Work
    ceilings: Ceilings
    figures: list[Figure]
    published: Figure | None  # as published: 6 steps, fp32, the whole sound at once


@dataclass(frozen=True)
class Job:
    """Sounds to be made, each by so many calls of a network."""

    sources: Callable[[], Sequence[Source]]
    work: Work  # of one call
    calls: int
    batch: int
    precision: str


class AsPublished:
    """The published network at its usual size, with random weights, used as it was published.

    Eager, in fp32, six steps, the mel projected anew at each, all of a sound at once.
    """

    rate, channels, samples = PUBLISHED_RATE, 1, PUBLISHED_FRAMES * HOP

    def __init__(self, network: PublishedNet, mel: Tensor) -> None:
        self._network, self._mel = network, mel
        self._made: Tensor | None = None

    def read(self, start: int, stop: int) -> Tensor:
        """Float32 (1, stop - start)."""
        if self._made is None:
            self._made = self._sample().cpu()
        return self._made[:, start:stop]

    def _sample(self) -> Tensor:
        draws = len(self._network.config.inference_schedule)
        noise = torch.randn(draws, 1, self.samples, device=self._mel.device)
        return as_published(self._network, self._mel, list(noise))


@torch.no_grad()
def as_published(network: PublishedNet, mel: Tensor, noise: Sequence[Tensor]) -> Tensor:
    """Sounds (batch, samples) of mels by the few steps, with nothing kept from step to step.

    `noise` is the draw with which it begins, and one more for each step but the last.
    """
    schedule, x = Schedule.of(network.config, fast=True), noise[0]
    for draw, number in enumerate(reversed(range(len(schedule.beta))), 1):
        step = torch.full((len(x),), schedule.steps[number], device=x.device)
        x = schedule.advance(x, network(x, mel, step), number, noise[draw] if number else None)
    return x


def run(
    name: str | Path,
    device: str,
    cases: Sequence[Case],
    seconds: float = 10.0,
    repeats: int = 5,
    published: bool = True,
    progress: Callable[[float], None] = lambda share: None,
) -> Bench:
    """Time a model in each case on sounds of so many seconds, `repeats` times in turns.

    Raises CheckpointError, TaskError.
    """
    if not cases or min(seconds, repeats, *(case.batch for case in cases)) <= 0:
        raise TaskError("there is nothing to measure", "give more than 0 of everything")
    models = {p: load(name, device, p) for p in dict.fromkeys(case.precision for case in cases)}
    jobs = [_job(models[case.precision], case, seconds) for case in cases]
    model = next(iter(models.values()))
    if published:
        jobs.append(_published(model.device))
    taken: list[list[tuple[float, float]]] = [[] for _ in jobs]
    memory = [0] * len(jobs)
    for turn in range(repeats + 1):
        for number, job in enumerate(jobs):
            _forget_peak(model.device)
            took = _timed(job, model.device)
            memory[number] = max(memory[number], _peak(model.device))
            taken[number] += [took] if turn else []
            progress((turn * len(jobs) + number + 1) / ((repeats + 1) * len(jobs)))
    ceilings = Ceilings.measure(model.device)  # last: it takes memory
    figures = [_figure(*each, ceilings) for each in zip(jobs, taken, memory, strict=True)]
    beside = figures.pop() if published else None
    if beside:
        figures = [replace(figure, ratio=beside.work / figure.work) for figure in figures]
    return Bench(
        str(name),
        str(model.device),
        kernels.describe(model.device) if model.device.type == "cuda" else "prepared twins",
        _processor(model.device),
        torch.get_num_threads(),
        torch.__version__,
        sum(p.numel() for p in model.denoiser.parameters()),
        jobs[0].work,
        ceilings,
        figures,
        beside,
    )


def _job(model: Model, case: Case, seconds: float) -> Job:
    network, command, rate = model.denoiser.network, model.recipe.command, model.rate
    made = {"vocode": model.recipe.vocode.steps, "generate": model.recipe.generate.steps}
    dtype = number_type(case.precision, model.device)
    if isinstance(network, PublishedNet):
        made[command] = len(network.config.inference_schedule)
        dtype = PUBLISHED_TYPES[case.precision]
    elif command == "generate":
        rate, dtype = round(rate / model.preset.hop), torch.float32
    steps = case.steps or made.get(command, 1)
    generator = torch.Generator().manual_seed(0)
    sound = LEVEL * torch.randn(case.batch, round(seconds * model.rate), generator=generator)

    def sources() -> Sequence[Source]:
        if command == "denoise":
            given = ArraySource(sound, model.rate)
            return [model.denoise_source(given, DenoiseSettings(steps, spins=1))]
        if command == "vocode":
            chosen = VocodeSettings(steps)
            return [model.vocode_source(item, chosen) for item in mels.items()]
        length = None if model.recipe.generate.frames else seconds
        asked = GenerateSettings(steps, seconds=length)
        if isinstance(network, PublishedNet):
            asked = GenerateSettings(seconds=length, render_steps=steps)
        return [model.generate_source(asked, number) for number in range(case.batch)]

    if command == "vocode":
        mels = ArrayMels(mel(sound, model.preset), model.preset)
    precision = "bf16" if dtype == torch.bfloat16 else "fp32"
    return Job(sources, work(network, rate), steps, case.batch, precision)


def _published(device: torch.device) -> Job:
    network = PublishedNet(PublishedConfig()).requires_grad_(False).to(device)
    mel = torch.rand(1, network.config.bands, PUBLISHED_FRAMES, device=device)
    calls = len(network.config.inference_schedule)
    of_call = work(network, PUBLISHED_RATE)
    return Job(lambda: [AsPublished(network, mel)], of_call, calls, 1, "fp32")


def _timed(job: Job, device: torch.device) -> tuple[float, float]:
    """Seconds of work per second of sound, and until the first of it."""
    begin = time.perf_counter()
    sources = job.sources()
    sources[0].read(0, 1)
    first = time.perf_counter() - begin
    for source in sources:
        source.read(0, source.samples)  # to the processor, so an accelerator has done its work
    took = time.perf_counter() - begin
    return took / sum(s.channels * s.samples / s.rate for s in sources), first


def _figure(
    job: Job, taken: Sequence[tuple[float, float]], memory: int, ceilings: Ceilings
) -> Figure:
    seconds, first = (statistics.median(each) for each in zip(*taken, strict=True))
    rate = job.calls * job.work.multiply_adds / seconds
    moved = job.calls * job.work.numbers * (2 if job.precision == "bf16" else 4) / seconds
    return Figure(
        job.calls,
        job.batch,
        job.precision,
        seconds,
        first,
        memory,
        rate,
        rate / ceilings.multiply_adds[job.precision],
        moved / ceilings.bandwidth,
        math.nan,
    )


def _best(work: Callable[[], object], device: torch.device) -> float:
    """Seconds, the shortest of a few."""
    times = []
    for _ in range(TRIALS + 1):
        begin = time.perf_counter()
        work()
        if device.type != "cpu":
            torch.zeros(1, device=device).cpu()  # waits for all before it
        times.append(time.perf_counter() - begin)
    return min(times)


def _forget_peak(device: torch.device) -> None:
    """Begin to look for the most memory anew, where the system can."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def _peak(device: torch.device) -> int:
    """Bytes: of tensors on an accelerator, else of the process, since then or ever."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    if status.exists():
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource  # not on Windows

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def _processor(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.machine())
