"""Traces: the path is the one that inference walks, and its numbers are what they say."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tiny
import torch
from command import REDUCTION, attenuator, refusal, tree, wavediff
from corpus import NETWORK, RATE, hiss, put, voice

from wavediff import checkpoint, film, recipe, tasks
from wavediff import trace as traces
from wavediff.audio import ArraySource, Source, read
from wavediff.errors import DataError, TaskError
from wavediff.model import Model, load
from wavediff.network import MASK_UNIT
from wavediff.tasks import DenoiseSettings
from wavediff.trace import Step, Trace
from wavediff.vocoding import VocodeSettings

CPU = torch.device("cpu")


def whole(source: Source) -> torch.Tensor:
    return source.read(0, source.samples)


def loud() -> Model:
    """A denoiser whose random guesses differ from step to step."""
    settings = recipe.parse({"rate": RATE, "network": NETWORK}, "the test")
    denoiser = tasks.build(settings)
    torch.manual_seed(1)
    for name, parameter in denoiser.network.named_parameters():
        torch.nn.init.normal_(parameter, std=0.2 / MASK_UNIT if name == "leave" else 0.4)
    denoiser = denoiser.eval().requires_grad_(False)
    return Model("loud", settings, {}, denoiser, CPU, precision="fp32")


def constant(path: Path) -> Path:
    """An attenuator whose guess is the same at every state."""
    saved = checkpoint.load(attenuator(path))
    taps = recipe.parse({"rate": RATE, "network": NETWORK}, "the test").network.taps
    rest = saved.tensors["network.rest"]
    rest[taps] = -0.5  # takes away what the state would have in the guess
    rest[taps // 2] += 0.5
    checkpoint.save(path, saved)
    return path


def noisy(seconds: float = 1.0, rate: int = RATE, channels: int = 1) -> ArraySource:
    sound = [voice(n, seconds, rate) + hiss(n, seconds, rate) for n in range(channels)]
    return ArraySource(torch.from_numpy(np.stack(sound)), rate)


@pytest.mark.parametrize(("steps", "rate", "channels"), [(1, 8000, 1), (3, 8000, 2), (4, 11025, 1)])
def test_the_last_guess_is_what_denoise_gives(steps: int, rate: int, channels: int) -> None:
    model, source = loud(), noisy(1.0, rate, channels)
    settings = DenoiseSettings(steps, seed=3, spins=1)
    traced = traces.trace_denoise(model, source, settings)
    one_block = replace(settings, block_seconds=100.0, spins=1)
    assert torch.equal(whole(traced.sounds[-1]), whole(model.denoise_source(source, one_block)))
    in_blocks = whole(model.denoise_source(source, replace(settings, block_seconds=1.0)))
    torch.testing.assert_close(whole(traced.sounds[-1]), in_blocks, rtol=0, atol=1e-4)
    assert [step.t for step in traced.steps] == pytest.approx(
        [1 - n / steps for n in range(steps)], abs=1e-5
    )
    guesses = [step.guess for step in traced.steps]
    assert all((a - b).abs().max() > 1e-3 for a, b in itertools.pairwise(guesses))
    if rate == RATE:  # at the start the state is the recording itself
        torch.testing.assert_close(traced.steps[0].state, source.audio)


def test_the_last_guess_is_what_vocode_gives(tmp_path: Path) -> None:
    model, source = (
        load(tiny.vocoder(tmp_path / "m.safetensors", "narrow8k"), "cpu"),
        noisy(0.5, 11025),
    )
    settings = VocodeSettings(steps=2)
    traced = traces.trace_vocode(model, source, settings)
    assert len(traced.sounds) == 2
    assert torch.equal(whole(traced.sounds[-1]), whole(model.resynthesise_source(source, settings)))
    assert whole(traced.start).shape == source.audio.shape
    first, last = (whole(sound) for sound in (traced.start, traced.sounds[-1]))
    assert (first - last).abs().max() > 1e-4


def test_nothing_is_noted_any_more_afterwards() -> None:
    model = loud()
    with traces.recorded(model) as calls:
        model.denoise(noisy().audio, RATE)
    before = len(calls)
    model.denoise(noisy().audio, RATE)
    assert before == len(calls) == 2  # a call for each spin


def test_shares_of_an_attenuator_are_known(tmp_path: Path) -> None:
    """Its guess is always the same, so each state lies on the line from there to the recording."""
    model, source = load(constant(tmp_path / "m.safetensors"), "cpu", "fp32"), noisy()
    traced = traces.trace(model, source, 3, "ddim", 0)
    path = model.denoiser.path  # type: ignore[union-attr]
    for step, (state, guess) in zip(traced.steps, traces.remaining(traced), strict=True):
        share = float(path.share(torch.tensor(step.t))) ** 2
        assert state.whole == pytest.approx(share, rel=1e-3)
        assert state.bands == pytest.approx([share] * len(state.bands), rel=1e-2)
        assert guess.whole == pytest.approx(0, abs=1e-9)
    silence = torch.zeros_like(source.audio)
    _, guess = traces.remaining(traced, silence)[0]
    assert guess.whole == pytest.approx(10 ** (-REDUCTION / 10), rel=0.01)


@pytest.mark.parametrize(("task", "left"), [("denoise", 1 / 4), ("vocode", 1 / 4)])
def test_an_error_is_counted_in_its_own_band(task: str, left: float) -> None:
    time = torch.arange(RATE) / RATE
    clean = torch.sin(2 * math.pi * 300 * time)[None]
    tone = 0.5 * torch.sin(2 * math.pi * 3000 * time)[None]
    steps = (Step(1.0, clean + tone, clean + tone / 2),)
    traced = Trace(task, RATE, steps, ArraySource(clean, RATE), ())
    state, guess = traces.remaining(traced, clean)[0]
    band = traces.bands(RATE).index((2000.0, 4000.0))
    assert state.bands[band] == 1
    assert guess.bands[band] == pytest.approx(left, rel=1e-3)
    assert guess.whole == pytest.approx(left, rel=0.02)
    same = Trace(task, RATE, (Step(1.0, clean, clean),), ArraySource(clean, RATE), ())
    assert math.isnan(traces.remaining(same, clean)[0][0].whole)


def test_bands_cover_all_up_to_half_of_the_rate() -> None:
    for rate in (8000, 16000, 22050, 44100):
        found = traces.bands(rate)
        assert found[0][0] == 0
        assert found[-1][1] == rate / 2
        assert all(a[1] == b[0] for a, b in itertools.pairwise(found))


@pytest.mark.usefixtures("one_thread")  # as the command denoises what is short
def test_the_command_writes_a_film(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    model = constant(tmp_path / "m.safetensors")
    sound = voice(0, 1.0) + hiss(0, 1.0)
    given = put(tmp_path / "a $5 $.wav", sound)
    clean = put(tmp_path / "clean.wav", voice(0, 1.0))
    folder = tmp_path / "out" / "path"
    words = ["trace", given, "-m", model, "--steps", "2", "--reference", clean, "-o", folder]
    table = wavediff(*words).stdout.splitlines()
    assert table[1].split()[:3] == ["guess", "t", "all"]
    assert len(table) == 4
    files = {"strip.png", "trace.gif", "mask.png", "step-1.flac", "step-2.flac", "trace.json"}
    assert tree(tmp_path / "out") == {"path"} | {f"path/{name}" for name in files}

    facts = json.loads((folder / "trace.json").read_text("utf-8"))
    assert [step["t"] for step in facts["steps"]] == [1.0, 0.5]
    assert facts["steps"][0]["state"]["error"] == 1
    assert str(clean) in facts["error"]
    wavediff(
        "denoise", given, "-m", model, "--steps", "2", "--spins", "1", "-o", tmp_path / "b.flac"
    )
    assert torch.equal(read(folder / "step-2.flac")[0], read(tmp_path / "b.flac")[0])

    assert Image.open(folder / "trace.gif").n_frames == 2  # type: ignore[attr-defined]
    mask = np.asarray(Image.open(folder / "mask.png").convert("RGB")).astype(float)
    inside = mask[100:300, 100:1000].reshape(-1, 3)
    low, high = film.MASK
    from matplotlib import colormaps

    colour = 255 * np.array(colormaps["viridis"]((-REDUCTION - low) / (high - low))[:3])
    assert np.abs(np.median(inside, 0) - colour).max() < 12  # all is let through at -20 dB

    message, hint = refusal(*words)
    assert "not empty" in message
    assert "-f" in hint
    for name in ("save_strip", "save_animation", "save_mask"):  # drawn once, that is enough
        monkeypatch.setattr(film, name, lambda *given: given[-1].write_bytes(b"new"))
    again = json.loads(wavediff(*words, "-f", "--json").stdout)
    assert again == {**facts, "folder": str(folder)}
    assert (folder / "mask.png").read_bytes() == b"new"


def test_a_strip_shows_the_same_sound_in_the_same_colours(tmp_path: Path) -> None:
    from PIL import Image

    sound = torch.from_numpy(hiss(0, 1.0))[None]
    steps = tuple(Step(t, sound, 0.001 * sound) for t in (1.0, 0.5))
    traced = Trace("denoise", RATE, steps, ArraySource(sound, RATE), ())
    film.save_strip(traced, "a title", tmp_path / "a.png")
    image = np.asarray(Image.open(tmp_path / "a.png").convert("L")).astype(float)
    height, width = image.shape

    def panel(row: int, column: int) -> float:
        y, x = int(height * (0.25 + 0.45 * row)), int(width * (0.22 + 0.42 * column))
        return float(image[y - 30 : y + 30, x - 60 : x + 60].mean())

    assert panel(0, 0) == pytest.approx(panel(1, 0), abs=2)
    assert panel(0, 1) == pytest.approx(panel(1, 1), abs=2)
    assert panel(0, 0) > 2 * panel(0, 1)  # 60 dB quieter is darker


def test_what_cannot_be_traced_is_refused(tmp_path: Path) -> None:
    model = attenuator(tmp_path / "m.safetensors")
    long = put(tmp_path / "long.wav", np.zeros(61 * RATE, np.float32) + 0.1)
    message, hint = refusal("trace", long, "-m", model)
    assert "at most 60 s" in message
    assert "ffmpeg" in hint
    short = put(tmp_path / "short.wav", hiss(0, 1.0))
    assert "65 steps" in refusal("trace", short, "-m", model, "--steps", "65")[0]
    other = put(tmp_path / "other.wav", hiss(0, 1.5))
    words = ["trace", short, "-m", model, "--steps", "1", "-o", tmp_path / "o"]
    message, hint = refusal(*words, "--reference", other)
    assert "1.50 s" in message
    assert "same length" in hint
    assert not (tmp_path / "o").exists()
    assert "is a file" in refusal(*words[:-1], short)[0]


def test_a_generator_and_a_lacking_matplotlib_are_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(tiny.generator(tmp_path / "g.safetensors"), "cpu")
    with pytest.raises(TaskError, match="only models that denoise or vocode"):
        traces.trace(model, noisy(), None, None, 0)
    with pytest.raises(DataError, match="2 channels"):
        traces.fitted(
            Trace("denoise", RATE, (Step(1.0, noisy().audio, noisy().audio),), noisy(), ()),
            noisy(channels=2).audio,
            RATE,
        )
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TaskError) as caught:
        film.check_folder(tmp_path / "out", False)
    assert "wavediff[report]" in caught.value.hint
