"""What a card makes of the models, in one run of under eight minutes.

    python benchmarks/gpu.py [-o figures.jsonl] [-d cuda] [--parts NAME …] [--minutes 6]

writes a line of JSON for every figure as soon as it is known, and the same to the screen:

ceilings    matrix products in bf16 and fp32, copies through memory
blocks      plain and fused residual blocks of the shipped models: how far from fp32, how long, and
            the share of both ceilings by operations and bytes counted
denoise     one step, 10-second sounds in batches, from sound to sound on the card
vocode      the same from mel to sound: start, network, matching to the mel
latency     one file of 10 seconds from array to array, and the network's part with and without a
            CUDA graph
published   DiffWave at 6 steps, random weights: as published (eager, fp32, its condition projected
            anew at each step, whole sound at once) and as computed here
training    seconds of sound that a step of denoise-16k takes per second, by batch

Times are medians after a warm-up; `x` is times real time. A part that fails says so; what no
time is left for is left out. With --tiny everything is small, to see that it runs.
"""

import argparse
import json
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from wavediff import model as models
from wavediff import recipe as recipes
from wavediff.bench import as_published
from wavediff.denoiser import Denoiser
from wavediff.kernels import describe, fast
from wavediff.kernels.graph import Graphed
from wavediff.network import BandNet
from wavediff.published import PublishedConfig, PublishedNet
from wavediff.published_sound import sample
from wavediff.trainer import Trainer
from wavediff.vocoding import framed, phased, start_magnitudes, transform_of

Figures = Iterator[dict[str, Any]]
LONG = 10.0  # seconds of a sound


@dataclass
class Bench:
    """The machine, how much is asked of it, and what was found so far."""

    device: torch.device
    tiny: bool
    ceilings: dict[str, float] = field(default_factory=dict)

    def sized(self, large: Any, small: Any) -> Any:
        """What is asked of this machine."""
        return small if self.tiny else large

    @property
    def seconds(self) -> float:
        """Length of a sound."""
        return self.sized(LONG, 0.5)

    def timed(self, work: Callable[[], Any]) -> float:
        """Seconds that a piece of work takes, once it is warm."""
        for _ in range(self.sized(4, 1)):  # the fourth is the second of a recording
            work()
        times: list[float] = []
        while len(times) < self.sized(5, 1) or (sum(times) < 0.3 and len(times) < 200):
            self.wait()
            begin = time.perf_counter()
            work()
            self.wait()
            times.append(time.perf_counter() - begin)
            if self.tiny:
                break
        return statistics.median(times)

    def wait(self) -> None:
        """For all that was asked of a card."""
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def bf16(self) -> torch.autocast:
        """The plain network's way to compute in bf16."""
        return torch.autocast(self.device.type, torch.bfloat16)


def main(words: list[str] | None = None) -> None:
    """Measure part by part, and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-o", "--output", default="gpu.jsonl", help="where the lines are written")
    parser.add_argument("-d", "--device", default="cuda", help="cuda, or cpu to try it")
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=list(PARTS), help="of it")
    parser.add_argument("--minutes", type=float, default=6, help="nothing is begun after")
    parser.add_argument("--tiny", action="store_true", help="see that it runs")
    given = parser.parse_args(words)
    bench, begin = Bench(torch.device(given.device), given.tiny), time.monotonic()
    with Path(given.output).open("w") as file:

        def write(part: str, figure: dict[str, Any]) -> None:
            line = json.dumps({"part": part, **figure})
            file.write(line + "\n")
            file.flush()
            print(line, flush=True)

        write("machine", machine(bench.device))
        for part in given.parts:
            try:
                for figure in PARTS[part](bench):
                    write(part, figure)
                    if time.monotonic() - begin > 60 * given.minutes:
                        write(part, {"note": "the time is up"})
                        return
            except Exception as failure:  # the next part may do
                write(part, {"error": f"{type(failure).__name__}: {failure!s:.300}"})
            if bench.device.type == "cuda":
                torch.cuda.empty_cache()


def machine(device: torch.device) -> dict[str, Any]:
    """Where and with what it was measured."""
    facts = {"python": platform.python_version(), "torch": torch.__version__}
    if device.type == "cuda":
        facts |= {"card": torch.cuda.get_device_name(device), "cuda": str(torch.version.cuda)}
    return {**facts, "way": describe(device), "command": " ".join(sys.argv[1:])}


def ceilings(bench: Bench) -> Figures:
    """The most that this machine was seen to do."""
    size = bench.sized(8192, 64)
    for name, kind in (("bf16", torch.bfloat16), ("fp32", torch.float32)):
        a, b = (torch.randn(size, size, device=bench.device, dtype=kind) for _ in range(2))
        seconds = bench.timed(lambda a=a, b=b: a @ b)
        bench.ceilings[name] = 2 * size**3 / seconds
        yield {"what": f"{name} products", "seconds": seconds, "tflops": 2e-12 * size**3 / seconds}
    count = bench.sized(1 << 30, 1 << 12)
    source = torch.zeros(count, device=bench.device, dtype=torch.bfloat16)
    target = torch.empty_like(source)
    seconds = bench.timed(lambda: target.copy_(source))
    bench.ceilings["bytes"] = 4 * count / seconds
    yield {"what": "copies", "seconds": seconds, "terabytes": 4e-12 * count / seconds}


@torch.inference_mode()
def blocks(bench: Bench) -> Figures:
    """All residual blocks of a network, plain and fused."""
    for name in ("denoise-16k", "vocode-22k"):
        network = shipped(name, bench).network
        assert isinstance(network, BandNet)
        config, rate = network.config, recipes.load(name).rate
        frames, layers = round(bench.seconds * rate / config.hop) + 1, list(network.blocks)
        for batch in bench.sized((1, 16, 64), (1,)):
            h = torch.randn(config.bands, batch, frames, config.channels, device=bench.device)
            told = torch.randn(batch, config.channels, device=bench.device)
            exact = through(layers, h, told)
            with bench.bf16():
                figure = measured(bench, layers, h, told, exact)
            yield {"what": "plain", **figure}
            for way, twin in fused_ways(layers, bench):
                yield {"what": way, **measured(bench, [twin], h, told, exact)}


def measured(
    bench: Bench, layers: list[Any], h: Tensor, told: Tensor, exact: Tensor
) -> dict[str, Any]:
    """How long it takes, how far it is from fp32, and which shares of the ceilings that is."""
    bands, batch, frames, channels = h.shape
    low = h.bfloat16()
    seconds = bench.timed(lambda: through(layers, low, told))
    plain = [one for layer in layers for one in getattr(layer, "plain", [layer])]
    mixing = 0 if plain[0].squeeze is None else plain[0].squeeze.out_features
    products = 7 * channels**2 + 2 * channels * mixing + 2 * bands * mixing**2
    calls = h[..., 0].numel() * len(plain)
    error = through(layers, low, told).float() - exact
    return {
        "bands": bands,
        "batch": batch,
        "frames": frames,
        "seconds": seconds,
        "snr": float(20 * torch.log10(exact.norm() / error.norm())),  # dB
        "of_products": 2 * products * calls / seconds / bench.ceilings.get("bf16", torch.inf),
        "of_bytes": (8 * channels + 4 * mixing)
        * calls
        / seconds
        / bench.ceilings.get("bytes", torch.inf),
    }


def through(layers: list[Any], h: Tensor, told: Tensor) -> Tensor:
    """What all blocks in a row make of it."""
    for layer in layers:
        h = layer(h, told)
    return h


def fused_ways(layers: list[Any], bench: Bench) -> Iterator[tuple[str, Any]]:
    """The fast twin of blocks where there is one, as it is and launched in other ways."""
    if describe(bench.device).startswith("plain"):
        return
    from wavediff.kernels import block

    twin = block.FusedBlocks(layers)
    yield "fused", twin
    usual = block.TURNS, block.WARPS
    for block.TURNS, block.WARPS in ((1, 4), (1, 8), (8, 8), (32, 4)):
        yield f"fused, {block.TURNS} turns, {block.WARPS} warps", twin
    block.TURNS, block.WARPS = usual


def shipped(name: str, bench: Bench) -> Denoiser:
    """A model as it is shipped; of its size with random weights where it is not."""
    if name in models.names() and not bench.tiny:
        denoiser = models.load(name, bench.device).denoiser
    else:
        denoiser = Trainer(small(name, bench), bench.device).denoiser
    assert isinstance(denoiser, Denoiser)
    return denoiser.eval().requires_grad_(False)


def small(name: str, bench: Bench) -> recipes.Recipe:
    """The recipe of this name, its network small where all is."""
    recipe = recipes.load(name)
    if not bench.tiny:
        return recipe
    size = {"bands": 4, "channels": 8, "layers": 2}
    return recipe.model_copy(update={"network": recipe.network.model_copy(update=size)})


def ways(denoiser: Denoiser, bench: Bench) -> Iterator[tuple[str, Callable[..., Tensor]]]:
    """The plain denoiser in fp32 and bf16, and with the network's fast twin."""
    yield "plain fp32", denoiser

    def low(*given: Tensor) -> Tensor:
        with bench.bf16():
            return denoiser(*given)

    yield "plain bf16", low
    if (twin := fast(denoiser.network)) is None:
        return

    def quick(x: Tensor, y: Tensor, t: Tensor, *known: Tensor) -> Tensor:
        # What `Denoiser.forward` does on the ways of both tasks, which change nothing before
        return denoiser.path.finish(twin(x, y, t, *known), *known)

    yield "fast", quick


@torch.inference_mode()
def denoise(bench: Bench) -> Figures:
    """One step on batches of sounds."""
    denoiser = shipped("denoise-16k", bench)
    samples = round(bench.seconds * 16_000)
    for batch in bench.sized((1, 4, 16, 64, 256), (2,)):
        y = 0.05 * torch.randn(batch, samples, device=bench.device)
        t = torch.ones(batch, device=bench.device)
        exact = denoiser(y, y, t)
        for way, call in ways(denoiser, bench):
            yield rendered(bench, way, batch, call, (y, y, t), exact)


def rendered(
    bench: Bench,
    way: str,
    batch: int,
    call: Callable[..., Tensor],
    given: tuple[Tensor, ...],
    exact: Tensor,
) -> dict[str, Any]:
    """How often faster than real time a call on a batch is, and how near the plain one's sound."""
    if bench.device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = bench.timed(lambda: call(*given))
    error = call(*given) - exact
    peak = torch.cuda.max_memory_allocated() if bench.device.type == "cuda" else 0
    return {
        "what": way,
        "batch": batch,
        "seconds": seconds,
        "x": batch * bench.seconds / seconds,
        "snr": min(200.0, float(20 * torch.log10(exact.norm() / error.norm()))),  # dB
        "gigabytes": peak / 1e9,
    }


@torch.inference_mode()
def vocode(bench: Bench) -> Figures:
    """From mels to sounds, in batches, at one network call."""
    denoiser, recipe = shipped("vocode-22k", bench), recipes.load("vocode-22k")
    preset, device = recipe.preset, bench.device
    assert preset is not None
    frames = round(bench.seconds * preset.rate / preset.hop)
    for batch in bench.sized((1, 4, 16, 64), (2,)):
        mel = framed(torch.randn(batch, preset.bands, frames, device=device) - 5, preset)
        samples = (mel.shape[-1] - 1) * preset.hop
        phases, t = torch.rand(batch, preset.bins, device=device), torch.ones(batch, device=device)

        def begun(mel: Tensor = mel, samples: int = samples, first: Tensor = phases) -> Tensor:
            magnitude = start_magnitudes(mel, preset)
            return phased(magnitude, transform_of(preset), samples, first, recipe.vocode.iterations)

        y = begun()
        exact = denoiser(y, y, t, mel)
        yield {"what": "start alone", "batch": batch, "seconds": bench.timed(begun)}
        for way, call in ways(denoiser, bench):

            def whole(
                mel: Tensor, t: Tensor, call: Callable[..., Tensor] = call, begun: Any = begun
            ) -> Tensor:
                y = begun()
                return call(y, y, t, mel)

            yield rendered(bench, way, batch, whole, (mel, t), exact)


@torch.inference_mode()
def latency(bench: Bench) -> Figures:
    """One file, as a user of the Python face has it."""
    denoiser = shipped("denoise-16k", bench)
    y = 0.05 * torch.randn(1, round(bench.seconds * 16_000), device=bench.device)
    given = (y, y, torch.ones(1, device=bench.device))
    yield {"what": "network, plain", "seconds": bench.timed(lambda: denoiser(*given))}
    graphed = Graphed(denoiser)
    seconds = bench.timed(lambda: graphed(*given))
    yield {"what": "network, plain, CUDA graph", "seconds": seconds}
    if (twin := fast(denoiser.network)) is not None:
        yield {"what": "network, fused, CUDA graph", "seconds": bench.timed(lambda: twin(*given))}
        plain = denoiser.network.blocks
        _, layers = next(fused_ways(list(plain), bench))
        denoiser.network.blocks = layers
        seconds = bench.timed(lambda: denoiser(*given))
        denoiser.network.blocks = plain
        yield {"what": "network, fused, no graph", "seconds": seconds}
    if not bench.tiny:
        whole, sound = models.load("denoise-16k", bench.device), y[0].cpu().numpy()
        yield {"what": "file", "seconds": bench.timed(lambda: whole.denoise(sound, 16_000))}


@torch.inference_mode()
def published(bench: Bench) -> Figures:
    """The published network at its 6 steps, by itself and by its twin."""
    size = bench.sized({}, {"channels": 8, "layers": 3, "cycle": 2})
    config = PublishedConfig(**size)
    network = PublishedNet(config).to(bench.device).eval()
    torch.nn.init.normal_(network.output_projection.weight, std=0.05)
    frames = round(bench.seconds * 22_050 / 256)
    for batch in bench.sized((1, 8), (1,)):
        mel = torch.rand(batch, config.bands, frames, device=bench.device)
        noise = torch.randn(7, batch, 256 * frames, device=bench.device)
        slow = bench.timed(lambda mel=mel, noise=noise: as_published(network, mel, list(noise)))
        exact = as_published(network, mel, list(noise))
        yield {"what": "as published", "batch": batch, "seconds": slow}
        for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):

            def ours(mel: Tensor = mel, noise: Tensor = noise, kind: Any = kind) -> Tensor:
                return sample(network, mel, lambda number: noise[number], dtype=kind)

            figure = rendered(bench, f"ours, {name}", batch, ours, (), exact)
            yield {**figure, "times_published": slow / figure["seconds"]}


def training(bench: Bench) -> Figures:
    """Steps of denoise-16k on batches that are there, plain and compiled by torch."""
    recipe = small("denoise-16k", bench)
    for compiled in (False, True) if bench.device.type == "cuda" else (False,):
        for batch in bench.sized((16, 64, 256), (2,)):
            settings = recipe.training.model_copy(
                update={"batch": batch, "crop": bench.sized(recipe.training.crop, 0.25)}
            )
            trainer = Trainer(recipe.model_copy(update={"training": settings}), bench.device)
            if compiled:
                trainer.model = torch.compile(trainer.objective)  # type: ignore[assignment]
            example = tuple(t.to(bench.device) for t in trainer.objective.example(batch))
            seconds = bench.timed(lambda trainer=trainer, e=example: trainer.advance(e))
            heard = batch * example[0].shape[-1] / recipe.rate
            yield {
                "what": "compiled" if compiled else "plain",
                "batch": batch,
                "seconds": seconds,
                "x": heard / seconds,
            }


PARTS: dict[str, Callable[[Bench], Figures]] = {
    "ceilings": ceilings,
    "blocks": blocks,
    "denoise": denoise,
    "vocode": vocode,
    "latency": latency,
    "published": published,
    "training": training,
}

if __name__ == "__main__":
    main()
