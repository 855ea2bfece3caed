"""Mixtures: a batch is a function of its seed alone, and is mixed as its settings say."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from corpus import RATE, hiss, make, put, voice
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from wavediff import data, degrade
from wavediff.data import Clips
from wavediff.mixtures import MixtureConfig, Mixtures, Pairs, room_responses

SAMPLES = 6000
PLAIN: dict[str, Any] = {  # only speech and noise from files, as they are
    "clean": 0,
    "noise_only": 0,
    "speed": 0,
    "equaliser": 0,
    "room": 0,
    "babble": 0,
    "coloured": 0,
    "modulated": 0,
    "band_limit": 0,
    "clipping": 0,
    "codec": 0,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(tmp_path_factory.mktemp("corpus"))


@pytest.fixture(scope="module")
def clips(corpus: Path) -> tuple[Clips, Clips]:
    return data.load([corpus / "speech"], RATE), data.load([corpus / "noise"], RATE)


def mixtures(clips: tuple[Clips, Clips | None], **config: Any) -> Mixtures:
    return Mixtures(*clips, (), MixtureConfig(**config), SAMPLES, seed=3)


def decibels(sound: Tensor) -> np.ndarray:
    """RMS of (batch, samples)."""
    return 20 * np.log10(sound.square().mean(1).sqrt().numpy() + 1e-9)


def test_a_batch_is_a_function_of_seed_step_and_item(clips: tuple[Clips, Clips]) -> None:
    rooms = (degrade.simulate_room(np.random.default_rng(0), RATE),)
    source = Mixtures(*clips, rooms, MixtureConfig(), SAMPLES, seed=3)
    whole = torch.stack(source.batch(5, range(8)))
    again = torch.stack(source.batch(5, range(8)))
    shares = [torch.stack(source.batch(5, range(a, b))) for a, b in ((0, 3), (3, 4), (4, 8))]
    assert torch.equal(whole, again)
    assert torch.equal(whole, torch.cat(shares, 1))
    other = torch.stack(source.batch(6, range(8)))
    assert not torch.equal(whole, other)
    assert len({tuple(item[:50].tolist()) for item in torch.cat((whole[0], other[0]))}) == 16


def test_threads_do_not_change_a_batch(clips: tuple[Clips, Clips]) -> None:
    source, before = mixtures(clips), torch.get_num_threads()
    found = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            found.append(torch.stack(source.batch(0, range(16))))
    finally:
        torch.set_num_threads(before)
    assert torch.equal(*found)


@pytest.mark.parametrize("snr", [-5.0, 0.0, 12.0])
def test_speech_and_noise_stand_as_asked(clips: tuple[Clips, Clips], snr: float) -> None:
    noisy, clean = mixtures(clips, **PLAIN | {"snr": (snr, snr)}).batch(0, range(16))
    for mixed, speech in zip(noisy.numpy(), clean.numpy(), strict=True):
        ratio = degrade.active_level(speech, RATE) / degrade.active_level(mixed - speech, RATE)
        assert 20 * math.log10(ratio) == pytest.approx(snr, abs=0.05)


def test_ratios_and_levels_are_drawn_evenly_from_their_ranges(clips: tuple[Clips, Clips]) -> None:
    config = PLAIN | {"snr": (-5, 20), "level": (-40, -10)}
    noisy, clean = mixtures(clips, **config).batch(0, range(200))
    levels = decibels(noisy)
    ratios = [
        20 * math.log10(degrade.active_level(c, RATE) / degrade.active_level(n - c, RATE))
        for n, c in zip(noisy.numpy(), clean.numpy(), strict=True)
    ]
    for drawn, low, high in ((levels, -40, -10), (np.array(ratios), -5, 20)):
        assert drawn.min() > low - 0.05
        assert drawn.max() < high + 0.05
        width = high - low
        assert abs(drawn.mean() - (low + high) / 2) < 4 * width / math.sqrt(12 * 200)
        assert drawn.std() == pytest.approx(width / math.sqrt(12), rel=0.2)


def test_clean_and_noise_only_items_have_their_shares(clips: tuple[Clips, Clips]) -> None:
    config = PLAIN | {"clean": 0.3, "noise_only": 0.2}
    noisy, clean = mixtures(clips, **config).batch(0, range(300))
    silent = ~clean.any(1)
    untouched = (noisy == clean).all(1)
    for found, share in ((silent, 0.2), (untouched, 0.8 * 0.3)):
        spread = math.sqrt(share * (1 - share) / 300)
        assert abs(float(found.float().mean()) - share) < 4 * spread
    assert bool((decibels(noisy)[silent] > -33).all())  # noise alone is as loud as any


def lag(one: Tensor, other: Tensor) -> int:
    """How many samples `other` lies behind the start of `one`, where both agree best."""
    size = len(one) + len(other)
    cross = torch.fft.irfft(torch.fft.rfft(one, size) * torch.fft.rfft(other, size).conj(), size)
    return int(cross.argmax())


def test_untouched_speech_is_an_excerpt(clips: tuple[Clips, Clips]) -> None:
    _, clean = mixtures((clips[1], None), **PLAIN | {"clean": 1}).batch(0, range(8))
    sources = [torch.from_numpy(hiss(n, 2.0)) for n in range(4)]
    for item in clean:
        pieces = [source[(at := lag(source, item)) : at + SAMPLES] for source in sources]
        alike = [torch.cosine_similarity(p, item[: len(p)], dim=0) for p in pieces]
        assert max(alike) > 0.9999


def test_a_clip_shorter_than_the_crop_lies_somewhere_in_silence(tmp_path: Path) -> None:
    put(tmp_path / "short.wav", voice(0, 0.2) + 0.1)
    speech = data.load([tmp_path], RATE)
    _, clean = mixtures((speech, None), **PLAIN | {"clean": 1}).batch(0, range(12))
    begins = []
    for item in clean:
        loud = (item.abs() > 0.1 * item.abs().max()).nonzero()[:, 0]
        assert int(loud[-1] - loud[0]) <= 0.2 * RATE + 2
        begins.append(int(loud[0]))
    assert max(begins) - min(begins) > SAMPLES / 3


def test_a_room_keeps_the_voice_in_time_and_adds_to_it(clips: tuple[Clips, Clips]) -> None:
    dry = (clips[1], None)  # white, so that its place in time is certain
    noisy, clean = mixtures(dry, **PLAIN | {"room": 1, "clean": 1}).batch(0, range(16))
    late = (noisy - clean).square().mean(1) / noisy.square().mean(1)
    assert bool((late > 1e-6).all())
    assert bool((late < 0.9).all())
    assert 0.01 < float(late.mean()) < 0.5
    for mixed, target in zip(noisy, clean, strict=True):
        assert lag(mixed, target) == 0


def test_measured_rooms_are_used(clips: tuple[Clips, Clips]) -> None:
    echo = np.zeros(1001, np.float32)
    echo[[0, 1000]] = 1, 0.5
    config = MixtureConfig(**PLAIN | {"room": 1, "measured_room": 1, "clean": 1})
    noisy, clean = Mixtures(*clips, (echo,), config, SAMPLES, seed=0).batch(0, range(4))
    expected = clean.clone()
    expected[:, 1000:] += 0.5 * clean[:, :-1000]
    torch.testing.assert_close(noisy, expected, atol=1e-5, rtol=0)


def test_room_responses_begin_with_the_direct_sound(tmp_path: Path) -> None:
    response = np.zeros(RATE * 3, np.float32)
    response[[500, 900]] = -0.2, 0.1
    put(tmp_path / "hall.wav", response)
    put(tmp_path / "silent.wav", np.zeros(100, np.float32))
    (found,) = room_responses(tmp_path, RATE)
    assert found[0] == 1
    assert found[400] == pytest.approx(-0.5, abs=1e-3)
    assert len(found) == 2 * RATE
    assert room_responses(None, RATE) == ()


def test_speed_changes_the_pitch_within_its_range(tmp_path: Path) -> None:
    sine = np.sin(2 * np.pi * 1000 * np.arange(3 * RATE) / RATE)
    put(tmp_path / "sine.wav", 0.3 * sine)
    speech = data.load([tmp_path], RATE)
    _, clean = mixtures((speech, None), **PLAIN | {"clean": 1, "speed": 0.1}).batch(0, range(40))
    pitch = torch.fft.rfft(clean * torch.hann_window(SAMPLES), 8 * SAMPLES).abs().argmax(1)
    pitch = pitch.numpy() * RATE / (8 * SAMPLES)
    assert 890 < pitch.min() < 940
    assert 1060 < pitch.max() < 1120


def test_band_limits_and_clipping(clips: tuple[Clips, Clips]) -> None:
    noisy, _ = mixtures(clips, **PLAIN | {"band_limit": 1}).batch(0, range(24))
    spectrum = torch.fft.rfft(noisy).abs().square()
    top = spectrum[:, int(0.94 * spectrum.shape[1]) :].mean(1) / spectrum.mean(1)
    assert 0 < float((top < 1e-4).float().mean()) < 1  # of four cutoffs one fits below 4 kHz
    noisy, _ = mixtures(clips, **PLAIN | {"clipping": 1}).batch(0, range(24))
    peaks = noisy.abs().amax(1, keepdim=True)
    shares = (noisy.abs() > 0.9999 * peaks).float().mean(1)
    assert 8e-4 < float(shares.min()) < 5e-3
    assert 0.01 < float(shares.max()) < 0.11


def test_codecs_have_their_share_and_change_nothing_else(clips: tuple[Clips, Clips]) -> None:
    noisy, clean = mixtures(clips, codec=0).batch(0, range(80))
    some, same = mixtures(clips, codec=0.3).batch(0, range(80))
    assert torch.equal(same, clean)
    coded = (some != noisy).any(1)
    # One of the ten may be one that the library does not write.
    assert 0.2 - 4 * math.sqrt(0.2 / 80) < float(coded.float().mean()) < 0.3 + 0.2
    again, _ = mixtures(clips, codec=0.3).batch(0, range(80))
    assert torch.equal(some, again)


def test_a_coded_voice_stays_in_time(clips: tuple[Clips, Clips]) -> None:
    noisy, clean = mixtures(clips, **PLAIN | {"clean": 1, "codec": 1}).batch(0, range(40))
    changed = 0
    for mixed, target in zip(noisy, clean, strict=True):
        size = len(mixed) + len(target)
        assert (lag(mixed, target) + 1) % size <= 2
        changed += not torch.equal(mixed, target)
    assert changed > 20


KINDS = {
    "babble": {"babble": 1},
    "coloured": {"babble": 0, "coloured": 1},
    "modulated": {"modulated": 1},
    "everything": {
        key: 1
        for key in ("room", "band_limit", "clipping", "codec", "modulated", "clean", "noise_only")
    },
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_noise_is_heard(clips: tuple[Clips, Clips], kind: str) -> None:
    noisy, clean = mixtures(clips, **KINDS[kind]).batch(0, range(16))
    assert bool(noisy.isfinite().all())
    assert bool(clean.isfinite().all())
    assert bool((decibels(noisy) > -40).all())
    if kind != "everything":
        heard = clean.any(1)
        assert float((decibels(noisy - clean)[heard] > -60).mean()) > 0.8


def test_without_noise_folders_noise_is_made(clips: tuple[Clips, Clips]) -> None:
    noisy, clean = mixtures((clips[0], None), **PLAIN | {"snr": (5, 5)}).batch(0, range(16))
    for mixed, speech in zip(noisy.numpy(), clean.numpy(), strict=True):
        ratio = degrade.active_level(speech, RATE) / degrade.active_level(mixed - speech, RATE)
        assert 20 * math.log10(ratio) == pytest.approx(5, abs=0.05)
    noisy, clean = mixtures((clips[0], None), **PLAIN | {"noise_only": 1}).batch(0, range(4))
    assert bool((decibels(noisy) > -33).all())
    assert not bool(clean.any())


AWKWARD = {
    "silence": np.zeros(9000),
    "one sample": np.array([0.5]),
    "a click": np.eye(1, 9000, 4000)[0],
    "a constant": np.full(9000, 0.9),
    "nearly nothing": np.full(9000, 1e-5),
    "full scale": np.sign(np.sin(np.arange(9000))),
    "hiss": hiss(0, 1.0),
}


@settings(max_examples=30, deadline=None)
@given(
    speech=st.sampled_from(sorted(AWKWARD)),
    noise=st.sampled_from(sorted(AWKWARD)),
    kind=st.sampled_from(sorted(KINDS)),
    seed=st.integers(0, 2**63 - 1),
)
def test_awkward_sounds_never_give_nan(
    tmp_path_factory: pytest.TempPathFactory, speech: str, noise: str, kind: str, seed: int
) -> None:
    folder = tmp_path_factory.getbasetemp() / "awkward"
    sides = []
    for name in (speech, noise):
        put(folder / name / "it.wav", AWKWARD[name].astype(np.float32), subtype="FLOAT")
        sides.append(data.load([folder / name], RATE))
    rooms = (np.array([1.0], np.float32),)
    source = Mixtures(*sides, rooms, MixtureConfig(**KINDS[kind]), SAMPLES, seed)
    for sound in source.batch(0, range(3)):
        assert sound.dtype == torch.float32
        assert bool(sound.isfinite().all())
        assert float(sound.abs().max()) < 100


def test_ready_made_pairs_stay_aligned(tmp_path: Path) -> None:
    for n in range(3):
        speech = voice(n, 1.5)
        put(tmp_path / "clean" / f"{n}.wav", speech)
        put(tmp_path / "noisy" / f"{n}.wav", 0.5 * speech + 0.2 * hiss(n, 1.5))
    put(tmp_path / "clean" / "short.wav", voice(4, 0.1))
    put(tmp_path / "noisy" / "short.wav", 0.5 * voice(4, 0.1))
    sides = data.twins(tmp_path / "noisy", tmp_path / "clean", RATE, 4e9)
    source = Pairs(*sides, SAMPLES, seed=1, level=(-30.0, -20.0))
    noisy, clean = source.batch(0, range(12))
    for mixed, speech in zip(noisy, clean, strict=True):
        share = float((mixed @ speech) / speech.square().sum())
        assert share == pytest.approx(0.5, abs=0.02)
    assert bool((decibels(noisy) > -30.01).all())
    assert bool((decibels(noisy) < -19.99).all())
    shares = [torch.stack(source.batch(0, range(a, b))) for a, b in ((0, 5), (5, 12))]
    assert torch.equal(torch.stack((noisy, clean)), torch.cat(shares, 1))
