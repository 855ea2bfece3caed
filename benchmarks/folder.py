"""What a folder of short files costs beside one long file of the same length.

    python benchmarks/folder.py [-m denoise-16k] [--files 200] [--seconds 3] [--runs 5] [--json]

cuts the recordings of tests/data into as many files, and makes one long file of the same sound. The
command line does the folder as it is done, the folder one file after the other by all threads, and
the long file, in turns in this process, after a warm-up. The medians are printed per second of
audio: by the clock, and by the processor's own time, which other programs disturb less, but in
which threads that wait for each other count (GOMP_SPINCOUNT=0 makes them sleep). The folder's
results have to be those of its files done alone, or the exit status is 1. Of a model that vocodes
the recordings go by way of their mels.
"""

import argparse
import itertools
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import torch

from wavediff import crew
from wavediff.audio import read
from wavediff.cli.main import app
from wavediff.model import load
from wavediff.resample import resample
from wavediff.writer import Writer

RECORDINGS = Path(__file__).resolve().parents[1] / "tests" / "data" / "noisy"
CHECKED = 5  # files that are done alone as well
WAYS = ("folder", "one by one", "long")


def main() -> int:
    """Measure and print; 1 when a file's result is not that of the file done alone."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("-m", "--model", default="denoise-16k", help="name, file or run folder")
    parser.add_argument("--files", type=int, default=200, help="in the folder")
    parser.add_argument("--seconds", type=float, default=3.0, help="of each")
    parser.add_argument("--rate", type=int, default=16_000, help="of the files, Hz")
    parser.add_argument("--channels", type=int, default=1, help="of the files")
    parser.add_argument("--suffix", default="wav", help="of the files")
    parser.add_argument("--runs", type=int, default=5, help="of which the median is taken")
    parser.add_argument("--json", action="store_true", help="print JSON")
    given = parser.parse_args()
    command = load(given.model, "cpu").recipe.command
    with tempfile.TemporaryDirectory() as name:
        place = Path(name)
        make(place, given)
        costs: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for turn, way in itertools.product(range(given.runs + 1), WAYS):
            cost = timed(command, place, way, given.model)
            if turn:  # the first warms up
                costs[way].append(cost)
        alike = same(command, place, given.model)
    audio = given.files * given.seconds
    rows = {
        way: [statistics.median(column) / audio for column in zip(*costs[way], strict=True)]
        for way in WAYS
    }
    if given.json:
        facts = {"files": given.files, "seconds": given.seconds, "alike": alike}
        print(json.dumps({**facts, **rows}, indent=2))
    else:
        print(
            f"{given.model}: {given.files} files of {given.seconds:g} s, or one of all their sound"
        )
        print(f"{'ms per s of audio':<20}{'clock':>10}{'processor':>12}")
        for way, row in rows.items():
            ratios = (few / one for few, one in zip(row, rows["long"], strict=True))
            print(f"{way:<20}{1e3 * row[0]:>10.2f}{1e3 * row[1]:>12.2f}", end="   ")
            print("{:.2f} and {:.2f} of the long one".format(*ratios))
        print("each result as of the file alone" if alike else "RESULTS DIFFER from files alone")
    return int(not alike)


def make(place: Path, given: argparse.Namespace) -> None:
    """The folder and the long file; each clip begins elsewhere in the recordings."""
    sounds = [resample(sound, rate, given.rate) for sound, rate in map(read, recordings())]
    whole = torch.cat(sounds, 1)
    length = round(given.seconds * given.rate)
    form = (given.rate, given.channels)
    (place / "folder").mkdir()
    (place / "long").mkdir()
    with Writer(place / "long" / f"long.{given.suffix}", *form) as long:
        for number in range(given.files):
            begin = number * 7919 % (whole.shape[1] - length)
            clip = whole[:, begin : begin + length].repeat(given.channels, 1)
            long.write(clip)
            with Writer(place / "folder" / f"{number:04}.{given.suffix}", *form) as short:
                short.write(clip)


def recordings() -> list[Path]:
    """Noisy voices of other lengths each."""
    return sorted(RECORDINGS.glob("*.flac"))


def timed(command: str, place: Path, way: str, model: str) -> tuple[float, float]:
    """Seconds by the clock and of the processor for a whole folder."""
    given = place / ("long" if way == "long" else "folder")
    short = 0.0 if way == "one by one" else crew.SHORT
    with mock.patch.object(crew, "SHORT", short):
        begin, worked = time.perf_counter(), time.process_time()
        run(command, given, place / "out" / way, model)
        return time.perf_counter() - begin, time.process_time() - worked


def run(command: str, given: Path, out: Path, model: str) -> None:
    """What the command line does, here."""
    app(
        [command, f"{given}", "-o", f"{out}{os.sep}", "-m", model, "-q", "-f"],
        standalone_mode=False,
    )


def same(command: str, place: Path, model: str) -> bool:
    """Whether results of the folder are those of its files alone, bit by bit."""
    for file in sorted((place / "folder").iterdir())[:CHECKED]:
        run(command, file, place / "alone", model)
        alone, together = (place / way / file.name for way in ("alone", "out/folder"))
        if not torch.equal(read(alone)[0], read(together)[0]):
            return False
    return True


if __name__ == "__main__":
    sys.exit(main())
