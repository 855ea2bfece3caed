"""How much memory a denoising needs on this machine, however long the recording.

    python benchmarks/memory.py [-m MODEL] [--minutes 1 60] [--json]

denoises stereo noise of each length at 48 kHz from one wav file to another, each in a process of
its own, and prints the peak of that process: Python, torch, the model, everything. An hour needs
1.4 GB of disk for as long as it runs. With --random a random network of the default size stands in
for a model. The exit status is 1 when a peak is above the limit.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path

LIMIT = 1000  # MB
RATE, CHANNELS = 48_000, 2


@dataclass(frozen=True)
class Peak:
    """What one denoising needed."""

    minutes: float
    megabytes: float  # at its highest
    seconds: float  # of work


def main() -> int:
    """Measure and print; 1 when a peak is above the limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="denoise-16k", help="name, file or run folder")
    parser.add_argument("-d", "--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--random", action="store_true", help="a random network instead")
    parser.add_argument("--minutes", type=float, nargs="+", default=[1, 60], help="of the input")
    parser.add_argument("--steps", type=int, default=1, help="network calls")
    parser.add_argument("--block", type=float, default=12.0, help="seconds worked on at once")
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--of", nargs=2, metavar=("IN", "OUT"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.of:
        print(denoise(*given.of, given))
        return 0
    with tempfile.TemporaryDirectory() as place:
        if given.random:
            given.model = save_random(Path(place))
        peaks = [measure(minutes, Path(place), given) for minutes in given.minutes]
    if given.json:
        print(json.dumps([asdict(peak) for peak in peaks], indent=2))
    else:
        print(f"{'minutes':>8}{'peak MB':>10}{'work s':>10}")
        for peak in peaks:
            print(f"{peak.minutes:8g}{peak.megabytes:10.0f}{peak.seconds:10.1f}")
    return int(max(peak.megabytes for peak in peaks) > LIMIT)


def measure(minutes: float, folder: Path, given: argparse.Namespace) -> Peak:
    """Denoise a recording of this length in a process of its own."""
    noisy, clean = folder / "noisy.wav", folder / "clean.wav"
    save_noise(noisy, round(60 * minutes))
    options = ["-m", given.model, "-d", given.device]
    options += ["--steps", str(given.steps), "--block", str(given.block)]
    begin = time.perf_counter()
    child = subprocess.run(
        [sys.executable, __file__, *options, "--of", str(noisy), str(clean)],
        check=True,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Peak(minutes, float(child.stdout) / 1e6, time.perf_counter() - begin)


def denoise(noisy: str, clean: str, given: argparse.Namespace) -> int:
    """Denoise one file as the command line does; the peak of this process in bytes."""
    from wavediff.files import denoise_file
    from wavediff.jobs import Job
    from wavediff.model import load
    from wavediff.tasks import DenoiseSettings

    settings = DenoiseSettings(steps=given.steps, block_seconds=given.block)
    denoise_file(load(given.model, given.device), Job(noisy, clean), settings, lambda share: None)
    return peak()


def peak() -> int:
    """The most memory that this process ever held, in bytes."""
    status = Path("/proc/self/status")
    if status.exists():  # getrusage counts the parent, too, up to the start of the child
        (line,) = (line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # bytes on macOS


def save_noise(path: Path, seconds: int) -> None:
    """Stereo noise as a wav of 16 bits."""
    import torch

    from wavediff.writer import Writer

    with Writer(path, RATE, CHANNELS) as writer:
        for second in range(seconds):
            generator = torch.Generator().manual_seed(second)
            writer.write(0.05 * torch.randn(CHANNELS, RATE, generator=generator))


def save_random(folder: Path) -> str:
    """A model of the default size that was never trained."""
    import torch

    from wavediff import checkpoint as checkpoints
    from wavediff.checkpoint import Checkpoint
    from wavediff.recipe import Recipe
    from wavediff.tasks import build

    torch.manual_seed(0)
    network = build(Recipe()).network
    tensors = {f"network.{key}": t.half() for key, t in network.state_dict().items()}
    checkpoints.save(folder / "random.safetensors", Checkpoint(Recipe(), tensors, {}))
    return str(folder / "random.safetensors")


if __name__ == "__main__":
    sys.exit(main())
