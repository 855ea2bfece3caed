"""What the world does to a sound: rooms, noise, filters, levels, clipping, codecs.

Every function takes its randomness from a numpy generator, so that a batch is a pure function of
its seed, and sounds as float32 arrays (samples,). NumPy and not torch, because its results do not
depend on the number of threads, and because its transforms of one sound are faster.
"""

import functools
import io
import math

import numpy as np
import soundfile as sf

Sound = np.ndarray  # (samples,) float32
Codec = tuple[str, str, float | None]  # soundfile's format, subtype and compression level, 0 to 1

CODECS: tuple[Codec, ...] = (
    ("OGG", "VORBIS", 0.7),  # at 16 kHz 46, 39 and 32 kbit/s
    ("OGG", "VORBIS", 0.9),
    ("OGG", "VORBIS", 1.0),
    ("OGG", "OPUS", 0.92),  # at any rate 26, 16 and 11 kbit/s
    ("OGG", "OPUS", 0.96),
    ("OGG", "OPUS", 0.98),
    ("MP3", "MPEG_LAYER_III", 0.8),  # at 16 kHz 40, 24 and 16 kbit/s
    ("MP3", "MPEG_LAYER_III", 0.9),
    ("MP3", "MPEG_LAYER_III", 0.95),
    ("WAV", "ULAW", None),  # the 8 bits of a telephone
)


@functools.lru_cache(maxsize=1 << 16)
def fast_length(samples: int) -> int:
    """The next even length from `samples` on with a fast Fourier transform: no prime above 7."""
    length = samples + samples % 2
    while True:
        rest = length
        for prime in (2, 3, 5, 7):
            while rest % prime == 0:
                rest //= prime
        if rest == 1:
            return length
        length += 2


def respeed(sound: Sound, samples: int, response: np.ndarray) -> Sound:
    """Resample (n,) to (samples,), pitch and all, through a response (samples // 2 + 1,).

    The ends wrap around; cut from a crop somewhat longer than needed.
    """
    spectrum = np.fft.rfft(sound)[: len(response)]
    spectrum = spectrum * response[: len(spectrum)] * np.float32(samples / len(sound))
    return np.fft.irfft(spectrum, samples).astype(np.float32, copy=False)


@functools.lru_cache(maxsize=8)
def _octaves(bins: int) -> np.ndarray:
    """Where each bin lies on hearing's scale, 0 to 1."""
    return (np.log2(np.arange(bins) / bins * 64 + 1) / np.log2(65)).astype(np.float32)


def equaliser(rng: np.random.Generator, bins: int, depth: float) -> np.ndarray:
    """A gentle random response (bins,): a tilt and two broad bells, each up to `depth / 2` dB."""
    octave = _octaves(bins)
    gain = rng.uniform(-1, 1) * depth / 2 * (2 * octave - 1)
    for _ in range(2):
        centre, width = rng.uniform(0, 1), rng.uniform(0.1, 0.4)
        height = rng.uniform(-1, 1) * depth / 2
        gain += height * np.exp(-np.square((octave - centre) / width))
    return np.exp(gain * (math.log(10) / 20))


def apply_response(sound: Sound, response: np.ndarray) -> Sound:
    """Zero-phase filter (samples,) by a response (samples // 2 + 1,)."""
    return respeed(sound, len(sound), response)


def low_pass(bins: int, rate: int, cutoff: float) -> np.ndarray:
    """A response (bins,) that falls from 1 to 0 over the tenth above `cutoff` Hz."""
    frequency = np.linspace(0, rate / 2, bins, dtype=np.float32)
    return ((1.1 * cutoff - frequency) / (0.1 * cutoff)).clip(0, 1)


def convolve(sound: Sound, responses: np.ndarray) -> np.ndarray:
    """(samples,) through each of some responses (count, taps): (count, samples)."""
    size = fast_length(len(sound) + responses.shape[-1] - 1)
    product = np.fft.rfft(sound, size) * np.fft.rfft(responses, size)
    return np.fft.irfft(product, size)[:, : len(sound)].astype(np.float32, copy=False)


def simulate_room(rng: np.random.Generator, rate: int) -> np.ndarray:
    """A room response (taps,): direct sound, a score of early reflections, a decaying tail.

    A statistical model (Polack 1988): the tail is Gaussian noise that decays by 60 dB in 0.15 to
    1.1 s, faster at high frequencies.
    """
    decay = math.exp(rng.uniform(math.log(0.15), math.log(1.1)))
    taps = int(rate * min(decay, 0.8))
    time = np.arange(taps, dtype=np.float32) / rate
    tail: np.ndarray = rng.standard_normal(taps, np.float32)
    dull = np.convolve(tail, np.full(4, 0.5, np.float32), "same")
    share = np.exp(-time / (0.25 * decay))
    tail = (share * tail + (1 - share) * dull) * np.exp(-6.9 * time / decay)
    tail *= 1 - np.exp(-time / 0.01)  # the tail builds up
    response = tail / _norm(tail)
    early = np.zeros(taps, np.float32)
    count = int(rng.integers(6, 30))
    arrivals = (rng.uniform(0.001, 0.05, count) * rate).astype(int)
    early[arrivals % taps] += rng.choice((-1, 1), count) * np.exp(-arrivals / rate / 0.03)
    response += early * (10 ** (rng.uniform(-6, 3) / 20) / _norm(early))
    direct_to_rest = 10 ** (rng.uniform(-3, 15) / 20)
    response *= 1 / (_norm(response) * direct_to_rest)
    response[0] += 1
    return response


def _norm(response: np.ndarray) -> float:
    return math.sqrt(float(response @ response)) + 1e-9


def from_direct(response: np.ndarray) -> np.ndarray:
    """A room response (taps,) from its direct sound on, the loudest of its taps."""
    return response[int(np.abs(response).argmax()) :]


def early_part(response: np.ndarray, rate: int) -> np.ndarray:
    """The part of a room response (taps,) that a listener takes for the voice itself: the direct
    sound, with which it begins, and 30 ms more, faded out over another 30 ms."""
    since = np.arange(len(response), dtype=np.float32) / rate
    return response * ((0.06 - since) / 0.03).clip(0, 1)


def coloured_noise(rng: np.random.Generator, samples: int) -> Sound:
    """Gaussian noise whose power falls by up to 9 or rises by up to 3 dB an octave, with bells."""
    bins = fast_length(samples) // 2 + 1
    white = rng.standard_normal(2 * bins, np.float32).view(np.complex64)
    slope = rng.uniform(-1.5, 0.5)
    shape = (np.arange(bins, dtype=np.float32) / bins + 0.003) ** slope * equaliser(rng, bins, 12)
    return np.fft.irfft(white * shape)[:samples].astype(np.float32, copy=False)


def hum(rng: np.random.Generator, samples: int, rate: int) -> Sound:
    """Mains hum or a machine's tone: a steady fundamental and its harmonics."""
    base = float(rng.choice([50.0, 60.0, rng.uniform(70, 900)]))
    count = int(rng.integers(2, 20))
    cycles = np.arange(samples) * (base / rate)
    sound = np.zeros(samples, np.float32)
    for harmonic in range(1, count + 1):
        if base * harmonic < 0.45 * rate:
            strength = 10 ** (-rng.uniform(0.2, 1.5) * harmonic / 10) * rng.uniform(0.2, 1)
            turns = (cycles * harmonic + rng.uniform(0, 1)) % 1
            sound += strength * np.sin(2 * math.pi * turns.astype(np.float32))
    return sound


def modulate(rng: np.random.Generator, sound: Sound, rate: int) -> Sound:
    """Let the level of (samples,) wander, by up to 20 dB, several times a second or slower."""
    knots = max(4, int(len(sound) / rate * rng.uniform(0.5, 8)))
    levels = rng.uniform(-20, 0, knots)
    place = np.linspace(0, knots - 1, len(sound))
    curve = np.interp(place, np.arange(knots), levels).astype(np.float32)
    return sound * np.exp(curve * (math.log(10) / 20))


def clip_peaks(sound: Sound, share: float) -> Sound:
    """Cut off the loudest `share` of the samples of (samples,)."""
    place = int((1 - share) * (len(sound) - 1))
    limit = np.partition(np.abs(sound), place)[place]
    return sound.clip(-limit, limit)


def through_codec(rng: np.random.Generator, sound: Sound, rate: int) -> Sound:
    """(samples,) after one of `CODECS`, in time; as it was where the one drawn is not to be had.

    That is so for all sounds of a rate or for none: the installed libsndfile may not write the
    format, and Opus and MP3 know few rates.
    """
    codec = CODECS[int(rng.integers(len(CODECS)))]
    delay = codec_delay(codec, rate)
    if delay is None:
        return sound
    decoded = encode(sound, rate, codec)[delay:][: len(sound)]
    return np.pad(decoded, (0, len(sound) - len(decoded)))


def encode(sound: Sound, rate: int, codec: Codec) -> Sound:
    """(samples,) encoded and decoded: the codec's delay may come before, and padding after it.

    Peaks beyond full scale are cut off. Raises soundfile's errors.
    """
    form, subtype, level = codec
    file = io.BytesIO()
    with sf.SoundFile(
        file,
        "w",
        rate,
        1,
        subtype,
        format=form,
        compression_level=level,
        bitrate_mode="CONSTANT" if form == "MP3" else None,
    ) as encoder:
        encoder.write(sound.clip(-1, 1))
    file.seek(0)
    decoded: np.ndarray = sf.read(file, dtype="float32")[0]
    return decoded


@functools.cache
def codec_delay(codec: Codec, rate: int) -> int | None:
    """Samples by which a decoded sound lies behind its original; None if it cannot be encoded.

    Most decoders take their delay off. MP3 has no room to tell it at a low bit rate.
    """
    if not sf.check_format(*codec[:2]):
        return None
    probe = np.random.default_rng(0).standard_normal(rate // 2, np.float32)
    probe = apply_response(probe, low_pass(rate // 4 + 1, rate, rate / 8))
    probe *= 0.1 / rms(probe)
    try:
        decoded = encode(probe, rate, codec)
    except sf.SoundFileError:  # not at this rate
        return None
    size = fast_length(len(probe) + len(decoded))
    cross = np.fft.irfft(np.fft.rfft(decoded, size) * np.fft.rfft(probe, size).conj(), size)
    return int(cross[: size // 2].argmax())


def rms(sound: Sound) -> float:
    """The root of the mean square."""
    return math.sqrt(float(np.square(sound).mean()))


def active_level(sound: Sound, rate: int) -> float:
    """RMS of the 20 ms frames of (samples,) within 30 dB of the loudest one."""
    frame = min(rate // 50, len(sound))
    frames = sound[: len(sound) // frame * frame].reshape(-1, frame)
    power = np.square(frames).mean(1)
    return math.sqrt(float(power[power >= 1e-3 * power.max()].mean()))
