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
