"""Pictures of spectrograms: tones lie where and as high as they are, and files are made whole."""

from pathlib import Path

import numpy as np
import pytest
import torch
from command import attenuator, refusal, tree, wavediff
from corpus import hiss, put

from wavediff import plot
from wavediff.audio import ArraySource
from wavediff.errors import TaskError
from wavediff.mel import PRESETS, mel

RATE = 16_000


def tone(frequency: float, seconds: float) -> torch.Tensor:
    return torch.sin(2 * torch.pi * frequency * torch.arange(int(seconds * RATE)) / RATE)


@pytest.mark.parametrize("seconds", [0.01, 1.3, 40.0, 400.0])
def test_a_tone_shows_at_its_frequency_level_and_time(seconds: float) -> None:
    sound = torch.zeros(2, int(seconds * RATE))
    half = sound.shape[1] // 2
    sound[:, half:] = 0.1 * tone(2000, seconds)[half:]
    level = plot.spectrogram(ArraySource(sound, RATE))
    assert level.shape[1] <= plot.COLUMNS + 1
    if seconds < 1:
        return
    columns = level.shape[1]
    later = level[:, columns // 2 + 4 : -4]
    place = later.mean(1).argmax() / (level.shape[0] - 1) * RATE / 2
    assert float(place) == pytest.approx(2000, abs=RATE / 512)
    assert float(later.amax(0).mean()) == pytest.approx(-20, abs=0.5)
    assert float(level[:, : columns // 2 - 4].max()) < -100


def test_blocks_are_read_and_not_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    source = ArraySource(0.1 * torch.randn(1, 100 * RATE), RATE)
    asked = []
    read = source.read
    monkeypatch.setattr(source, "read", lambda a, b: asked.append(b - a) or read(a, b))
    plot.spectrogram(source)
    assert max(asked) < 5 * RATE


def test_a_picture_is_written_whole_or_not_at_all(tmp_path: Path) -> None:
    from matplotlib.image import imread

    before = put(tmp_path / "cost $5 $ 雑音.wav", hiss(0, 1.0, RATE), RATE)
    after = put(tmp_path / "after.wav", 0.01 * hiss(0, 1.0, RATE), RATE)
    picture = tmp_path / "a.png"
    plot.save_comparison(before, after, picture, "test")
    image = imread(picture)[..., :3].mean(-1)
    assert image.shape[0] > 400
    top, bottom = image[60:340, 100:1000], image[380:620, 100:1000]
    assert top.mean() > 2 * bottom.mean()  # 40 dB quieter is darker on the same scale
    assert tree(tmp_path) == {before.name, "after.wav", "a.png"}
    with pytest.raises(Exception, match="cannot be written"):
        plot.save_comparison(before, after, before / "a.png", "test")


def middle(image: np.ndarray) -> float:
    """Where what is bright lies, as a share of the picture's width."""
    columns = np.arange(70, 1090)  # without the numbers and the colour bars
    inside = image[:, 70:1090] > 0.6
    return float((inside.sum(0) * columns).sum() / inside.sum() / image.shape[1])


def test_a_mel_is_drawn_above_its_sound_at_the_same_times(tmp_path: Path) -> None:
    from matplotlib.image import imread

    kind = PRESETS["hifigan"]
    samples = 344 * kind.hop
    sound = torch.zeros(samples)
    sound[samples // 2 : samples * 3 // 4] = 0.5 * tone(1800, 4.0)[: samples // 4]
    after = put(tmp_path / "a.wav", sound.numpy(), kind.rate)
    picture = tmp_path / "a.png"
    plot.save_mel(mel(sound[None], kind)[0], kind, after, picture, "test", "a.npy")
    image = imread(picture)[..., :3].mean(-1)
    height = len(image)
    above, below = image[60 : height // 2 - 40], image[height // 2 + 25 : height - 60]
    assert middle(above) == pytest.approx(middle(below), abs=0.01)
    assert middle(above) == pytest.approx(0.586, abs=0.02)
    assert tree(tmp_path) == {"a.wav", "a.png"}


def test_a_contact_sheet_shows_each_sound_in_its_place(tmp_path: Path) -> None:
    from matplotlib.image import imread

    levels = (1.0, 0.001, 0.001, 0.03, 1.0)
    sound = hiss(0, 1.0, RATE)
    files = [put(tmp_path / f"{n}.wav", g * sound, RATE) for n, g in enumerate(levels)]
    plot.save_sheet(files, 3, tmp_path / "sheet.png", "five $ sounds")
    image = imread(tmp_path / "sheet.png")[..., :3].mean(-1)
    height, width = image.shape

    def cell(row: int, column: int) -> np.ndarray:
        y, x = int(height * (row + 0.5) / 2), int(width * (column + 0.5) / 3)
        return image[y - 40 : y + 40, x - 40 : x + 40]

    shown = [float(cell(n // 3, n % 3).mean()) for n in range(5)]
    assert shown[0] > shown[3] > shown[1]
    assert shown[0] == pytest.approx(shown[4], abs=0.02)
    assert cell(1, 2).min() == 1  # a place without a sound stays white
    assert tree(tmp_path) == {"sheet.png", *(file.name for file in files)}


def test_without_matplotlib_it_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(TaskError) as caught:
        plot.require()
    assert "wavediff[report]" in caught.value.hint


def test_the_command_draws_beside_the_result(tmp_path: Path) -> None:
    model = attenuator(tmp_path / "m.safetensors")
    given = put(tmp_path / "a.wav", np.stack([hiss(0, 1.0), hiss(1, 1.0)], 1))
    result = wavediff("denoise", given, "-m", model, "--plot")
    assert tree(tmp_path) == {"m.safetensors", "a.wav", "a.denoised.wav", "a.denoised.png"}
    assert f"drawn in {tmp_path / 'a.denoised.png'}" in result.stderr
    (tmp_path / "a.denoised.wav").unlink()
    assert "a.denoised.png exists" in refusal("denoise", given, "-m", model, "--plot")[0]
