"""What the world does to a sound, measured: each function does what it says, and no more."""

import math

import numpy as np
import pytest
from corpus import voice
from hypothesis import given, settings
from hypothesis import strategies as st

from wavediff import degrade

RATE = 16_000
SEEDS = range(12)


def draws(seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def white(samples: int = RATE, seed: int = 0) -> np.ndarray:
    return 0.1 * draws(seed).standard_normal(samples, np.float32)


def power(sound: np.ndarray, low: float, high: float) -> float:
    """Of (samples,) between two frequencies in Hz."""
    spectrum = np.abs(np.fft.rfft(sound)) ** 2
    frequency = np.fft.rfftfreq(len(sound), 1 / RATE)
    return float(spectrum[(frequency >= low) & (frequency < high)].sum())


@given(st.integers(1, 10**6))
def test_fast_lengths_are_the_next_with_small_primes(samples: int) -> None:
    length = degrade.fast_length(samples)
    assert length >= samples
    assert length % 2 == 0
    rest = length
    for prime in (2, 3, 5, 7):
        while rest % prime == 0:
            rest //= prime
    assert rest == 1
    assert degrade.fast_length(length) == length
    if samples > 8000:
        assert length < 1.04 * samples


@settings(max_examples=40, deadline=None)
@given(st.integers(4000, 9000), st.integers(4000, 9000), st.integers(50, 1500))
def test_speed_and_pitch_change_together(taken: int, samples: int, cycles: int) -> None:
    taken, samples = 2 * taken, 2 * samples
    sine = np.cos(2 * np.pi * cycles * np.arange(taken) / taken).astype(np.float32)
    played = degrade.respeed(sine, samples, np.ones(samples // 2 + 1, np.float32))
    expected = np.cos(2 * np.pi * cycles * np.arange(samples) / samples)  # the same cycles in all
    np.testing.assert_allclose(played, expected, atol=1e-4)
    assert played.dtype == np.float32


def test_frequencies_that_no_longer_fit_are_gone() -> None:
    high = np.cos(np.pi * 0.9 * np.arange(8000)).astype(np.float32)
    faster = degrade.respeed(high, 6000, np.ones(3001, np.float32))
    assert np.abs(faster).max() < 1e-4


@pytest.mark.parametrize("depth", [0.0, 3.0, 12.0])
def test_an_equaliser_keeps_to_its_depth(depth: float) -> None:
    responses = np.stack([degrade.equaliser(draws(seed), 513, depth) for seed in range(100)])
    level = 20 * np.log10(responses)
    assert np.abs(level).max() <= 1.5 * depth + 1e-4  # a tilt and two bells, half of it each
    assert np.abs(np.diff(level, axis=1)).max() <= 0.2 * depth  # gentle
    if depth:
        assert level.std(0).min() > 0.1 * depth  # and everywhere at work


def test_a_response_is_what_a_filter_does() -> None:
    response = degrade.equaliser(draws(3), RATE // 2 + 1, 6.0)
    for frequency in (100, 1000, 5000):
        sine = np.sin(2 * np.pi * frequency * np.arange(RATE) / RATE).astype(np.float32)
        filtered = degrade.apply_response(sine, response)
        np.testing.assert_allclose(filtered, response[frequency] * sine, atol=1e-4)


@pytest.mark.parametrize("cutoff", [3400.0, 5500.0])
def test_a_band_limit_takes_what_is_above_and_nothing_below(cutoff: float) -> None:
    sound = white()
    limited = degrade.apply_response(sound, degrade.low_pass(RATE // 2 + 1, RATE, cutoff))
    assert power(limited, 1.1 * cutoff, 9000) < 1e-9 * power(sound, 1.1 * cutoff, 9000)
    assert power(sound - limited, 0, 0.999 * cutoff) < 1e-9 * power(sound, 0, cutoff)


def test_convolution_is_numpys() -> None:
    sound, responses = white(1000), np.stack([white(300, 1), white(300, 2)])
    expected = [np.convolve(sound, response)[:1000] for response in responses]
    np.testing.assert_allclose(degrade.convolve(sound, responses), expected, atol=1e-5)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_room_is_a_direct_sound_and_a_decaying_rest(seed: int) -> None:
    response = degrade.simulate_room(draws(seed), RATE)
    assert response.dtype == np.float32
    assert len(response) <= 0.8 * RATE
    rest = response.copy()
    rest[0] -= 1
    level = 10 * math.log10(float((rest**2).sum()))  # against the direct sound
    assert -15.1 < level < 3.1
    thirds = [float((part**2).mean()) for part in np.array_split(rest, 3)]
    assert thirds[0] > 2 * thirds[1] > 4 * thirds[2] > 0


def test_rooms_differ_in_reverberation() -> None:
    def seconds(response: np.ndarray) -> float:
        """Until 30 dB of the energy after 50 ms are gone."""
        left = np.cumsum(response[800:][::-1] ** 2)[::-1]
        return float((left > 1e-3 * left[0]).sum()) / RATE

    times = [seconds(degrade.simulate_room(draws(seed), RATE)) for seed in range(40)]
    assert min(times) < 0.12
    assert max(times) > 0.4


@pytest.mark.parametrize("seed", SEEDS)
def test_the_early_part_is_what_a_voice_takes_along(seed: int) -> None:
    response = degrade.simulate_room(draws(seed), RATE)
    early = degrade.early_part(response, RATE)
    assert (early[: int(0.03 * RATE)] == response[: int(0.03 * RATE)]).all()
    assert not early[int(0.06 * RATE) + 1 :].any()
    assert (np.abs(early) <= np.abs(response)).all()


def test_a_response_starts_with_its_loudest_tap() -> None:
    response = np.array([0, 0.1, -2, 1, 0.5], np.float32)
    assert degrade.from_direct(response).tolist() == [-2, 1, 0.5]


def test_coloured_noises_have_many_slopes() -> None:
    slopes = []
    for seed in range(60):
        sound = degrade.coloured_noise(draws(seed), RATE)
        assert sound.shape == (RATE,)
        edges = 125.0 * 2.0 ** np.arange(7)
        octaves = [power(sound, a, 2 * a) / a for a in edges[:-1]]
        slopes.append(np.polyfit(np.arange(6), 10 * np.log10(octaves), 1)[0])  # dB an octave
    assert -13 < min(slopes) < -7
    assert 0 < max(slopes) < 7


@pytest.mark.parametrize("seed", SEEDS)
def test_a_hum_is_a_few_steady_tones(seed: int) -> None:
    sound = degrade.hum(draws(seed), 2 * RATE, RATE)
    spectrum = np.sort(np.abs(np.fft.rfft(sound * np.hanning(len(sound)))) ** 2)[::-1]
    assert spectrum[: 20 * 5].sum() > 0.99 * spectrum.sum()
    halves = [float((half**2).mean()) for half in np.array_split(sound, 2)]
    assert halves[0] == pytest.approx(halves[1], rel=0.1)


@pytest.mark.parametrize("seed", SEEDS)
def test_a_modulated_level_wanders_slowly_within_20_db(seed: int) -> None:
    sound = white(2 * RATE) + 1  # nowhere near zero, so that the gain can be read off
    gain = 20 * np.log10(degrade.modulate(draws(seed), sound, RATE) / sound)
    assert gain.max() <= 1e-3
    assert gain.min() >= -20.001
    assert gain.max() - gain.min() > 3
    assert np.abs(np.diff(gain)).max() * RATE < 20 * 8 * 1.1  # dB a second


@pytest.mark.parametrize("share", [1e-3, 0.01, 0.1])
def test_clipping_cuts_the_loudest_share(share: float) -> None:
    sound = white(20_000)
    clipped = degrade.clip_peaks(sound, share)
    limit = np.abs(clipped).max()
    changed = np.abs(sound) > limit
    assert changed.mean() == pytest.approx(share, abs=1e-4)
    assert (clipped[~changed] == sound[~changed]).all()
    assert (clipped[changed] == np.sign(sound[changed]) * limit).all()


@given(st.floats(1e-4, 10), st.integers(0, 90))
def test_the_active_level_leaves_pauses_out(level: float, pause: int) -> None:
    sine = np.sin(2 * np.pi * 500 * np.arange(RATE) / RATE).astype(np.float32)
    padded = np.concatenate([level * sine, np.zeros(pause * RATE // 50, np.float32)])
    assert degrade.active_level(padded, RATE) == pytest.approx(level / math.sqrt(2), rel=1e-3)


def test_silence_has_no_level_and_stays_silent() -> None:
    silence = np.zeros(100, np.float32)
    assert degrade.active_level(silence, RATE) == degrade.rms(silence) == 0
    assert not degrade.clip_peaks(silence, 0.1).any()
    assert not degrade.modulate(draws(0), silence, RATE).any()
    assert degrade.active_level(np.ones(3, np.float32), RATE) == 1  # shorter than a frame


def lag(original: np.ndarray, sound: np.ndarray) -> int:
    """By how many samples `sound` comes later."""
    size = 2 * len(original)
    cross = np.fft.irfft(np.fft.rfft(sound, size) * np.fft.rfft(original, size).conj(), size)
    return (int(cross.argmax()) + size // 2) % size - size // 2


@pytest.mark.parametrize("rate", [8000, 16_000, 24_000, 44_100])
@pytest.mark.parametrize("codec", degrade.CODECS, ids=lambda codec: f"{codec[1]}-{codec[2]}")
def test_a_codec_changes_a_sound_but_neither_its_time_nor_its_length(
    codec: degrade.Codec, rate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if degrade.codec_delay(codec, rate) is None:
        pytest.skip(f"libsndfile does not write {codec[1]} at {rate} Hz")
    monkeypatch.setattr(degrade, "CODECS", (codec,))
    sound = voice(1, 1.03, rate) + 0.01 * white(int(1.03 * rate))
    coded = degrade.through_codec(draws(0), sound, rate)
    assert coded.shape == sound.shape
    assert coded.dtype == np.float32
    assert abs(lag(sound, coded)) <= 1
    changed = 10 * math.log10(((coded - sound) ** 2).sum() / (sound**2).sum())
    assert -40 < changed < -5
    assert np.array_equal(coded, degrade.through_codec(draws(0), sound, rate))


def test_the_delay_of_a_low_bit_rate_is_found() -> None:
    codec = ("MP3", "MPEG_LAYER_III", 0.95)
    delay = degrade.codec_delay(codec, RATE)
    if delay is None:
        pytest.skip("libsndfile does not write MP3")
    sound = degrade.apply_response(white(), degrade.low_pass(RATE // 2 + 1, RATE, 2000))
    decoded = degrade.encode(sound, RATE, codec)
    assert delay == lag(sound, decoded[: len(sound)])
    assert len(decoded) >= len(sound) + delay


@pytest.mark.parametrize("samples", [1, 2, 63, 1000])
def test_short_and_loud_sounds_pass_through_codecs(samples: int) -> None:
    for seed in range(40):
        coded = degrade.through_codec(draws(seed), 30 * white(samples), RATE)
        assert coded.shape == (samples,)
        assert np.isfinite(coded).all()
        assert np.abs(coded).max() < 4  # cut off at full scale before


def test_what_the_library_does_not_write_leaves_the_sound(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    sound = white()
    monkeypatch.setattr(degrade, "CODECS", (("OGG", "OPUS", 0.9), ("MP3", "PCM_16", None)))
    for seed in range(4):  # Opus knows no such rate, and MP3 no such subtype
        assert degrade.through_codec(draws(seed), sound, 11_000) is sound


def test_the_seed_alone_decides() -> None:
    sound = white(4000)
    functions = (
        lambda rng: degrade.equaliser(rng, 100, 5),
        lambda rng: degrade.simulate_room(rng, RATE),
        lambda rng: degrade.coloured_noise(rng, 4000),
        lambda rng: degrade.hum(rng, 4000, RATE),
        lambda rng: degrade.modulate(rng, sound, RATE),
        lambda rng: degrade.through_codec(rng, sound, RATE),
    )
    for function in functions:
        assert np.array_equal(function(draws(7)), function(draws(7)))
        assert not np.array_equal(function(draws(7)), function(draws(8)))
