"""What a mel spectrogram probably is, told from its shape and its values alone.

Natural sounds are alike in three things, whatever made their mel: how much a band changes from a
frame to the next, how far loud and quiet places lie apart, and that nothing is louder than full
scale. Read in the wrong scaling, a mel breaks with them; and the lowest value of a mel, where
silence ends up, is often a number that gives its maker away.

What values cannot tell: the rate and the hop; where frame 0 lies, so `hifigan` and `tacotron2`
are one to them; log10 of powers from natural logarithms of magnitudes, 13 % apart; decibels of
powers from those of magnitudes, some 13 dB apart.
The limits below were measured on 300 recordings of speech, noise, music and drums.
"""

import dataclasses
import math
from collections.abc import Iterator
from typing import NamedTuple, get_args

import torch
from torch import Tensor

from wavediff.errors import MelError
from wavediff.mel import PRESETS, MelPreset, Scaling, convertible, linear, rescale

RUNS, RUN = 8, 64  # stretches of a mel that are looked at, and the frames of each
LOUDEST = 4.0  # RMS of a frame under its window; no sound within full scale has more than 1
LOUD = 1.25  # RMS that half of the frames never exceed
FLOOR_SHARE = 0.02  # of all values: so many equal ones are no chance
SLACK = 3.0  # nepers below the floor: networks dip there, and others have another floor
TEN = math.log(10)
NEPERS = {  # of a magnitude, in a unit of each logarithm
    "ln": 1.0,
    "unit-db": 100 / 20 * TEN,
    "log10": TEN,
    "db": TEN / 20,
    "ln-power": 1 / 2,
    "log10-power": TEN / 2,
    "power-db": TEN / 20,
}

ROUGH = (0.27, 0.45)  # change of a band from frame to frame: median in nepers, spread of its log
WIDE = (2.2, 0.45)  # standard deviation of all values, the same
LEVEL = (0.2, 1.3)  # RMS of the loud frames, the same

WORDS = {
    "ln": "natural logarithms of magnitudes",
    "unit-db": "decibels scaled to 0..1, as the published DiffWave's",
    "log10": "log10 of magnitudes",
    "db": "decibels of magnitudes",
    "magnitude": "magnitudes without a logarithm",
    "power": "powers without a logarithm",
    "ln-power": "natural logarithms of powers",
    "log10-power": "log10 of powers",
    "power-db": "decibels of powers",
    "whisper": "Whisper's mel, log10 of powers squeezed into a range of 2",
    "peak-db": "decibels below the loudest place, the level lost",
    "standardised": "values brought to mean 0 and deviation 1",
    "0..1": "values stretched to 0..1",
    "-1..1": "values stretched to -1..1",
    "-4..4": "values stretched to -4..4",
    "int16": "natural logarithms, from samples of ±32768 in place of ±1",
}
CHANGED = {"0..1": (0.0, 1.0), "-1..1": (-1.0, 1.0), "-4..4": (-4.0, 4.0)}


class Guess(NamedTuple):
    """What a mel may be."""

    preset: str | None  # None: no preset makes such
    scaling: str  # a `Scaling` that `rescale` takes, or another of WORDS, which cannot be undone
    transposed: bool  # (frames, bands)
    confidence: float  # 0 to 1, over all guesses
    reason: str


class Facts(NamedTuple):
    """Statistics of values (bands, frames)."""

    least: float
    most: float
    mean: float
    spread: float  # standard deviation
    low: float  # a hundredth is lower
    middle: float
    floored: float  # share of values at the least one, 0 if fewer than three bands have any
    change: float  # median difference of neighbouring frames, the least values left out


def guess(values: Tensor) -> list[Guess]:
    """What (bands, frames) or (frames, bands) may be, best first; finite floating-point values."""
    found: list[tuple[float, str | None, str, bool, str]] = []
    for transposed, mel in _layouts(values):
        mel = _sample(mel)
        facts = _facts(mel)
        handicap = 1.5 if transposed and values.shape[0] in _band_counts() else 0.0
        for score, preset, scaling, reason in _readings(mel, facts):
            found.append((score - handicap, preset, scaling, transposed, reason))
    found.sort(key=lambda one: -one[0])
    weights = [math.exp(max(one[0] - found[0][0], -50)) for one in found]
    # What fits badly does not become likely for want of something better.
    total = sum(weights) + math.exp(min(-4 - found[0][0], 50))
    return [
        Guess(preset, scaling, transposed, weight / total, reason)
        for weight, (_, preset, scaling, transposed, reason) in zip(weights, found, strict=True)
        if weight / total >= 0.01 or weight == weights[0]
    ]


def describe(values: Tensor) -> list[str]:
    """The same for people, line by line."""
    guesses = guess(values)
    best = guesses[0]
    mel = values.T if best.transposed else values
    facts = _facts(_sample(mel))
    lines = [
        f"{mel.shape[0]} bands, {mel.shape[1]} frames"
        + (" (stored frames first)" if best.transposed else ""),
        f"values {facts.least:.4g} to {facts.most:.4g}, half of them below {facts.middle:.4g}",
    ]
    readings: dict[tuple[str, str], list[Guess]] = {}
    for one in guesses:
        readings.setdefault((one.scaling, one.reason), []).append(one)
    shares = {key: sum(one.confidence for one in alike) for key, alike in readings.items()}
    for scaling, reason in sorted(readings, key=lambda key: -shares[key])[:3]:
        names = " or ".join(one.preset for one in readings[scaling, reason] if one.preset)
        what = f"preset {names}, {WORDS[scaling]}" if names else WORDS[scaling]
        lines.append(f"{100 * shares[scaling, reason]:3.0f} %  {what}: {reason}")
    if any(len(alike) > 1 for alike in readings.values()):
        lines.append("presets that differ only in where frames lie cannot be told from values")
    lines.append("rate and hop cannot be seen in the values: compare them with the preset's")
    return lines


def matches(values: Tensor, preset: MelPreset, name: str = "the mel") -> None:
    """Raise MelError if (bands, frames) cannot be a mel of the preset, with the reason and a hint.

    What is merely unlikely passes; `name` is what the message calls it.
    """
    if not bool(_sample(values).isfinite().all()):
        raise MelError(f"{name} holds NaN or infinite values", "Look for what made it fail.")
    if values.shape[0] == preset.bands:
        fault = _fault(values, preset)
        if fault is None:
            return
        reason = f"is no mel of the preset {preset.name}: {fault}"
    elif values.shape[1] == preset.bands:
        raise MelError(f"{name} has its frames first, {tuple(values.shape)}", "Transpose it.")
    else:
        bands = values.shape[1] if values.shape[1] in _band_counts() else values.shape[0]
        reason = f"has {bands} bands, the preset {preset.name} {preset.bands}"
    guesses = guess(values)
    best = guesses[0]
    sure = sum(one.confidence for one in guesses if one.scaling == best.scaling)
    own = best.scaling == preset.logarithm and best.preset in [
        one.name for one in PRESETS.values() if convertible(one, preset) is None
    ]
    hint = ""
    if sure > 0.4 and not own:
        which = f" of the preset {best.preset}" if best.preset not in (None, preset.name) else ""
        hint = f"It looks like {WORDS[best.scaling]}{which}. "
    raise MelError(f"{name} {reason}", f"{hint}wavediff check tells more about a file.")


def _fault(values: Tensor, preset: MelPreset) -> str | None:
    """Why values cannot be the preset's, as far as can be said for certain."""
    unit, silence = NEPERS[preset.logarithm], preset.silence
    mel = _sample(values)
    facts = _facts(mel)
    if facts.least < silence - SLACK / unit:
        return f"values go down to {facts.least:.4g}, silence is {silence:.4g} there"
    steep = preset.equal_area or facts.middle < 0.15 * facts.most
    if preset.logarithm == "ln" and facts.least >= 0 and steep:
        return "no value is negative, as if no logarithm had been taken"
    if preset.logarithm == "unit-db" and facts.most > 1 + SLACK / unit:
        return f"values go up to {facts.most:.4g}, they end at 1 there"
    signature = _signature(mel, facts)
    if signature and facts.least != silence:
        return f"{signature[1]}, as no logarithm leaves it"
    if facts.floored > FLOOR_SHARE and (facts.least - silence) * unit > 0.1:
        return (
            f"{100 * facts.floored:.0f} % of its values are {facts.least:.4g}, "
            f"where silence should be {silence:.4g}"
        )
    flat = (mel.amax(0) - mel.amin(0) < 1e-6) & ((mel[0] - silence) * unit > 0.1)
    if preset.logarithm == "unit-db":
        flat &= mel[0] < 1
    if bool(flat.any()):
        value = float(mel[0, flat][0])
        return f"{int(flat.sum())} frames are {value:.4g} in every band, which is no silence there"
    level = _level(mel * unit + _zero(preset), preset)
    if float(level.max()) > LOUDEST or float(level.median()) > LOUD:
        return f"its sound would be {20 * math.log10(float(level.max())):.0f} dB above full scale"
    if preset.logarithm == "unit-db":
        if float(((mel > 0) & (mel < 0.02)).float().mean()) > 0.5:
            return "most values lie just above 0, as those without a logarithm do"
        return None
    # Read as natural logarithms, log10 leaves out the quiet and changes little from frame to frame;
    # loud noise does the one, a steady wave both, but changes hardly at all. Wide bands are smooth.
    low, change = -5.9, 0.16 if preset.bins < 1000 else 0.14
    if not preset.equal_area:
        low, change = -7.1, 0.135
    if facts.low > low and 0.06 < facts.change < change and facts.spread < 1.6:
        return "loud and quiet lie too close together for natural logarithms"
    return None


def _readings(mel: Tensor, facts: Facts) -> Iterator[tuple[float, str | None, str, str]]:
    """Scores, presets, scalings and reasons of everything that a mel could be."""
    bands = mel.shape[0]
    for alike in _alike(bands):
        preset = alike[0]
        for scaling in get_args(Scaling):
            if scaling == "unit-db" and preset.logarithm != scaling:
                continue
            score, reason = _scored(mel, facts, preset, scaling)
            # The published DiffWave's bands are hardly ever met in another scaling.
            handicap = 3.0 if preset.logarithm == "unit-db" else 1.5
            score -= handicap if scaling != preset.logarithm else 0.0
            yield from ((score, one.name, scaling, reason) for one in alike)
        if preset.logarithm == "ln":
            score, _ = _scored(mel - math.log(32768), facts, preset, "ln")
            yield score - 3, None, "int16", "90 dB above full scale as natural logarithms"
    if bands not in _band_counts():
        for scaling in ("ln", "log10", "db"):
            unit = NEPERS[scaling]
            score = _near(facts.change * unit, ROUGH) + _near(facts.spread * unit, WIDE)
            yield score, None, scaling, f"no preset has {bands} bands"
    signature = _signature(mel, facts)
    if signature:
        yield 8.0, None, *signature


def _signature(mel: Tensor, facts: Facts) -> tuple[str, str] | None:
    """The scaling and the reason, where a range is so exact that it was made and not found."""
    least, most = facts.least, facts.most
    ends = [name for name, ends in CHANGED.items() if (round(least, 5), round(most, 5)) == ends]
    if ends and int((mel == most).sum()) == 1:  # DiffWave's ends at 1 too, but by clipping
        return ends[0], f"the range is exactly {ends[0]}"
    if most == 0 and -121 < least < -15:
        return "peak-db", f"the highest value is exactly 0, the lowest {least:.4g}"
    if abs(facts.mean) < 0.005 and abs(facts.spread - 1) < 0.005:
        return "standardised", "the mean is 0 and the deviation 1"
    if facts.floored and abs(most - least - 2) < 2e-3:
        return "whisper", "the lowest value is 2 below the highest"
    return None


def _scored(mel: Tensor, facts: Facts, preset: MelPreset, scaling: Scaling) -> tuple[float, str]:
    """How well values fit a reading (0 at best, but for a known floor), and why."""
    plain = dataclasses.replace(preset, logarithm="ln", floor=1e-12)
    if scaling in ("magnitude", "power") and facts.least < 0:
        return -30.0, "negative values"
    if scaling == "unit-db" and not (facts.least > -0.1 and facts.most < 1.1):
        return -30.0, "values outside of 0..1"
    nepers = rescale(mel, scaling, plain).nan_to_num(posinf=80).clamp(-80, 80)
    if scaling in NEPERS:
        change, spread = NEPERS[scaling] * facts.change, NEPERS[scaling] * facts.spread
    else:
        sounding = nepers[mel > facts.least]  # digital silence would be without bound
        change = _change(nepers)
        spread = float(sounding.std(correction=0)) if sounding.numel() else 0.0
    loud = float(_level(nepers[:, ::3], preset).quantile(0.95))
    score = _near(change, ROUGH) + _near(spread, WIDE) + _near(loud, LEVEL)
    reason = (
        f"loud parts at {20 * math.log10(loud + 1e-9):.0f} dB of full scale, "
        f"values spread by {8.686 * spread:.0f} dB"
    )
    if loud > LOUDEST:
        score -= 8
    own = scaling == preset.logarithm
    if own and facts.least < preset.silence - SLACK / NEPERS[preset.logarithm]:
        return score - 4, f"lower than its silence, {preset.silence:.4g}"
    if facts.floored > 1e-3 or spread < 1e-3:
        decades = -float(nepers.amin()) / TEN
        if own and abs(facts.least - preset.silence) < 0.01:
            return score + 4, f"silence is at {preset.silence:.4g}, as there"
        if scaling in ("db", "power-db") and abs(facts.most - facts.least - 80) < 0.01:
            return score + 3, "the lowest value is 80 below the highest, as librosa cuts it"
        if "power" not in scaling and decades > 2.5 and abs(decades - round(decades)) < 0.004:
            return score + 2, f"silence is at {facts.least:.4g}, which is 1e-{round(decades)}"
        score -= 2
    return score, reason


def _near(value: float, expected: tuple[float, float]) -> float:
    """The logarithm of how usual a value is, -8 at worst."""
    middle, spread = expected
    return max(-0.5 * (math.log(max(value, 1e-9) / middle) / spread) ** 2, -8.0)


def _level(nepers: Tensor, preset: MelPreset) -> Tensor:
    """The RMS of each frame under its window, (frames,): the least that explains the bands."""
    plain = dataclasses.replace(preset, logarithm="ln")
    power = linear(nepers[None].clamp(max=30), plain)[0].square().sum(1)
    return (2 * power / (preset.window * 3 / 8 * preset.window)).sqrt()


def _zero(preset: MelPreset) -> float:
    """What a value of 0 is in nepers."""
    return 0.0 if preset.logarithm == "ln" else -80 / 20 * TEN


def _facts(mel: Tensor) -> Facts:
    least, most = float(mel.amin()), float(mel.amax())
    at = (mel - least) < 1e-3 * max(min(most - least, 1), 1e-3)
    spread_out = int(at.any(1).sum()) >= 3
    return Facts(
        least,
        most,
        float(mel.mean()),
        float(mel.std(correction=0)),
        float(mel.flatten().kthvalue(1 + mel.numel() // 100).values),
        float(mel.median()),
        float(at.float().mean()) if spread_out and most > least else 0.0,
        _change(mel),
    )


def _change(mel: Tensor) -> float:
    """The median difference of neighbouring frames, where neither is as low as it gets."""
    least, most = mel.aminmax()
    above = mel > least + 0.004 * (most - least)
    change = mel.diff(dim=1).abs()[above[:, 1:] & above[:, :-1]]
    return float(change.median()) if change.numel() else 0.0


def _sample(mel: Tensor) -> Tensor:
    """A few stretches of a long mel, the first and the last among them, as float32."""
    frames = mel.shape[1]
    if frames <= RUNS * RUN:
        return mel.float()
    starts = [n * (frames - RUN) // (RUNS - 1) for n in range(RUNS)]
    return torch.cat([mel[:, start : start + RUN] for start in starts], 1).float()


def _layouts(values: Tensor) -> list[tuple[bool, Tensor]]:
    """Whether it is transposed, and (bands, frames), for each way that is possible."""
    rows, columns = (size in _band_counts() for size in values.shape)
    if rows == columns:
        if rows:
            return [(False, values), (True, values.T)]
        return [(True, values.T)] if values.shape[1] < values.shape[0] else [(False, values)]
    return [(False, values)] if rows else [(True, values.T)]


def _alike(bands: int) -> list[list[MelPreset]]:
    """The presets of so many bands, those together that differ only in where frames lie."""
    groups: dict[MelPreset, list[MelPreset]] = {}
    for preset in PRESETS.values():
        if preset.bands == bands:
            same = dataclasses.replace(preset, name="", centred=False, addend=0.0)
            groups.setdefault(same, []).append(preset)
    return list(groups.values())


def _band_counts() -> set[int]:
    return {preset.bands for preset in PRESETS.values()}
