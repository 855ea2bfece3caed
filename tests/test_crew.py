"""Several files at once: as if each were alone, in order, and never too many."""

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from command import attenuator, process, tree, wavediff
from corpus import NETWORK, RATE, hiss, put, voice
from tiny import mel_of, vocoder

from wavediff import checkpoint, load, recipe, tasks
from wavediff.audio import length, probe, read
from wavediff.checkpoint import Checkpoint
from wavediff.crew import LEAST, SHORT, TOGETHER, Crew, Tell, able, threads_for
from wavediff.errors import AudioError

THREADS = 3


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """Several threads, whatever the machine has."""
    before = torch.get_num_threads()
    torch.set_num_threads(THREADS)
    yield
    torch.set_num_threads(before)


class Watch:
    """Work that takes a moment; knows what was done at the same time, and by how many threads."""

    def __init__(self) -> None:
        self.now: list[float] = []
        self.most, self.together, self.threads = 0.0, 0, dict[float, int]()
        self._lock = threading.Lock()

    def __call__(self, length: float, tell: Tell) -> float:
        with self._lock:
            self.now.append(length)
            self.most = max(self.most, sum(self.now))
            self.together = max(self.together, len(self.now))
            self.threads[length] = torch.get_num_threads()
        time.sleep(0.1 if length > 2 else 0.15)
        tell(1.0)
        with self._lock:
            self.now.remove(length)
        if length == 3.0:
            raise AudioError("three")
        return -length


def done(watch: Watch, lengths: list[float], able: bool = True) -> list[tuple[float, object]]:
    """Each length with its result or its error's message."""
    answers: list[tuple[float, object]] = []
    with Crew(watch, float, able) as team:
        for length, finish in team.each(lengths):
            try:
                answers.append((length, finish(lambda share: None)))
            except AudioError as error:
                answers.append((length, error.message))
            if length > SHORT:
                assert not watch.now  # nothing is done beside a long one
    return answers


def test_results_and_errors_come_in_order_and_long_sounds_are_alone() -> None:
    lengths = [1.0, 4.0, 3.0, 60.0, 2.5, 1.5, 5.0, 7.5, 6.0, 6.5, 30.0, 0.0]
    watch = Watch()
    expected = [(n, "three" if n == 3.0 else -n) for n in lengths]
    assert done(watch, lengths) == expected
    assert 1 < watch.together <= THREADS
    assert watch.most == 60
    assert watch.threads == {n: 1 if n <= SHORT else THREADS for n in lengths}
    assert torch.get_num_threads() == THREADS


def test_no_more_is_in_work_than_a_block_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(8)
    watch = Watch()
    done(watch, [7.0 + n / 100 for n in range(10)])
    assert 2 * 7 < watch.most <= TOGETHER
    waiting = Watch()
    with Crew(waiting, lambda length: 0.0, True) as team:
        next(iter(team.each([n / 1000 for n in range(200)])))
    assert len(waiting.threads) <= TOGETHER / LEAST + 1


def test_the_length_decides_how_many_threads_share_an_operation(denoiser: Path) -> None:
    model = load(str(denoiser), "cpu")
    assert able(model)
    for seconds, threads in ((1.0, 1), (SHORT, 1), (60.0, THREADS)):
        with threads_for(model, seconds):
            assert torch.get_num_threads() == threads
        assert torch.get_num_threads() == THREADS


def test_a_crew_that_is_not_able_does_one_after_the_other() -> None:
    watch = Watch()
    assert done(watch, [1.0, 2.0, 4.0], able=False) == [(1.0, -1.0), (2.0, -2.0), (4.0, -4.0)]
    assert watch.together == 1
    assert set(watch.threads.values()) == {THREADS}


def test_at_its_end_nothing_runs() -> None:
    begun, ended, first = [], [], threading.Event()

    def work(number: int, tell: Tell) -> None:
        begun.append(number)
        first.set()
        try:
            while True:
                time.sleep(0.01)
                tell(0.5)
        finally:
            ended.append(number)

    with Crew(work, lambda number: 1.0, True) as team:
        next(iter(team.each(range(30))))
        first.wait()
    assert sorted(begun) == sorted(ended)
    assert len(ended) <= THREADS
    assert torch.get_num_threads() == THREADS


@pytest.fixture(scope="module")
def denoiser(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of random weights."""
    settings = recipe.parse({"rate": RATE, "network": NETWORK}, "the test")
    torch.manual_seed(0)
    weights = tasks.build(settings).network.state_dict()
    tensors = {f"network.{key}": w + 0.05 * torch.randn(w.shape) for key, w in weights.items()}
    path = tmp_path_factory.mktemp("model") / "random.safetensors"
    checkpoint.save(path, Checkpoint(settings, tensors, {"name": "random"}))
    return path


def alike(command: str, model: Path, given: Path, place: Path, bad: str) -> None:
    """A folder's results are those of its files alone, in order, all but the `bad` one's."""
    words = ("-m", model, "-d", "cpu", "--json")
    told = wavediff(command, given, "-o", place / "together", *words, code=1).stdout
    lines = [json.loads(line) for line in told.splitlines()]
    names = sorted(file.name for file in given.iterdir())
    assert [Path(line["source"]).name for line in lines] == names
    assert [Path(line["source"]).name for line in lines if "error" in line] == [bad]
    results = sorted((place / "together").iterdir())
    assert len(results) == len(names) - 1  # no hidden file either
    sources = {Path(line["target"]): line["source"] for line in lines if "target" in line}
    for result in results:
        alone = place / f"alone{result.suffix}"
        wavediff(command, sources[result], "-o", alone, "-f", *words)
        assert torch.equal(read(alone)[0], read(result)[0])
        assert probe(alone) == probe(result)


def test_denoised_together_as_alone(denoiser: Path, tmp_path: Path) -> None:
    forms = [("wav", RATE, 1), ("wav", 44_100, 2), ("flac", 11_025, 1), ("wav", 48_000, 1)]
    for number, (suffix, rate, channels) in enumerate(2 * forms):
        sound = [voice(n, 1.1, rate) + hiss(n, 1.1, rate) for n in range(number, number + channels)]
        subtype = "FLOAT" if suffix == "wav" else None
        put(tmp_path / "in" / f"{number}.{suffix}", np.stack(sound, 1), rate, subtype)
    put(tmp_path / "in" / "long.wav", hiss(9, 9.0))
    (tmp_path / "in" / "5-bad.wav").write_text("this is no sound")
    alike("denoise", denoiser, tmp_path / "in", tmp_path, "5-bad.wav")


def test_vocoded_together_as_alone(tmp_path: Path) -> None:
    model, given = vocoder(tmp_path / "model.safetensors"), tmp_path / "in"
    for number in range(4):
        put(given / f"{number}.wav", voice(number, 0.8, 44_100), 44_100, "FLOAT")
    for number in range(4):
        np.save(given / f"mel{number}.npy", mel_of(voice(number, 0.8, 22_050)))
    np.save(given / "mel-bad.npy", np.full((80, 50), np.nan, np.float32))
    alike("vocode", model, given, tmp_path, "mel-bad.npy")


def test_several_mels_of_a_file_stay_apart(tmp_path: Path) -> None:
    model = vocoder(tmp_path / "model.safetensors")
    mels = {f"m{n}": mel_of(voice(n, 0.5, 22_050)) for n in range(6)}
    np.savez(tmp_path / "mels.npz", **mels)
    wavediff("vocode", tmp_path / "mels.npz", "-m", model, "-o", tmp_path / "out" / "x.wav")
    for name, mel in mels.items():
        np.save(tmp_path / "one.npy", mel)
        wavediff("vocode", tmp_path / "one.npy", "-m", model, "-o", tmp_path / "one.wav", "-f")
        together = (tmp_path / "out" / f"x-{name}.wav").read_bytes()
        assert together == (tmp_path / "one.wav").read_bytes()


def test_a_pipe_is_done_as_its_file(denoiser: Path, tmp_path: Path) -> None:
    noisy = put(tmp_path / "noisy.wav", voice(0, 1.0, 44_100) + hiss(0, 1.0, 44_100), 44_100)
    wavediff("denoise", noisy, "-m", denoiser, "-o", tmp_path / "file.wav")
    sound = noisy.read_bytes()
    wavediff("denoise", "-", "-m", denoiser, "-o", tmp_path / "pipe.wav", input=sound)
    assert (tmp_path / "pipe.wav").read_bytes() == (tmp_path / "file.wav").read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interruption_leaves_whole_files_only(number: int, code: int, tmp_path: Path) -> None:
    model, given, out = (
        attenuator(tmp_path / "model.safetensors"),
        tmp_path / "in",
        tmp_path / "out",
    )
    for name in range(30):
        put(given / f"{name:02}.wav", hiss(name, 6.0))
    words = ("denoise", given, "-o", out, "-m", model, "--steps", "6")
    environment = {**os.environ, "OMP_NUM_THREADS": str(THREADS)}
    with process(*words, env=environment) as running:
        deadline = time.monotonic() + 60
        while not any(file.endswith("01.wav") for file in tree(out)) and running.poll() is None:
            assert time.monotonic() < deadline
            time.sleep(0.02)
        running.send_signal(number)
        said = running.communicate()[1]
    assert running.returncode == code
    assert b"Traceback" not in said
    assert 0 < len(tree(out)) < 30
    for result in out.iterdir():
        assert length(result) == 6.0
        assert not result.name.startswith(".")
