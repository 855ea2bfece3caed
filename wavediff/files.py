"""A model on files: from one to the other block by block, so that memory stays bounded."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

from wavediff.audio import ArraySource, Remembered, Source, open_input
from wavediff.background import Background
from wavediff.crew import threads_for
from wavediff.errors import AudioError, TaskError
from wavediff.generating import GenerateSettings, shares
from wavediff.given import Given
from wavediff.jobs import PIPE, Invention, Job
from wavediff.loop import Pattern, render
from wavediff.model import Model
from wavediff.phase import reach
from wavediff.prior import PriorNet
from wavediff.tasks import DenoiseSettings
from wavediff.vocoding import ArrayMels, VocodeSettings, transform_of
from wavediff.writer import Writer

PIECE = 4.0  # seconds that are read, measured and written at a time


@dataclass(frozen=True)
class Denoised:
    """What was done to a recording."""

    source: str
    target: str
    rate: int
    channels: int
    seconds: float  # length
    background_before: float  # dB, RMS of its quietest tenth; nan for silence
    background_after: float  # dB, at the same places
    limited: int  # samples beyond full scale
    peak: float  # the largest magnitude before that
    work_seconds: float

    @property
    def reduction(self) -> float:
        """How much quieter the background is, dB."""
        return self.background_before - self.background_after


@dataclass(frozen=True)
class Made:
    """A sound that was made of a mel, of a recording's mel, or of nothing."""

    source: str  # the file, or the labels
    part: str  # the name of one of several mels
    target: str
    rate: int
    channels: int
    seconds: float  # length
    limited: int  # samples beyond full scale
    peak: float  # the largest magnitude before that
    work_seconds: float
    note: str = ""  # how a mel was converted


def denoise_file(
    model: Model, job: Job, settings: DenoiseSettings, progress: Callable[[float], None]
) -> Denoised:
    """Denoise one file; its rate, channels, length, level and sample format come back.

    `progress` is told the share that is done. Nothing is left at the target unless all went well.
    Raises AudioError for a sound that cannot be read or a place that cannot be written.
    """
    begin = time.monotonic()
    halo = settings.walk.calls * model.denoiser.reach / model.rate
    with open_input(job.source) as file, threads_for(model, file.samples / file.rate):
        source = Remembered(file, settings.block_seconds + 2 * halo + 2 * PIECE)
        result = model.denoise_source(source, settings)
        background = Background(source.rate)
        block = round(PIECE * source.rate / background.frame) * background.frame
        _make_folder(job.target)
        with Writer(job.target, source.rate, source.channels, file.info.subtype) as writer:
            for start in range(0, source.samples, block):
                stop = min(start + block, source.samples)
                clean = result.read(start, stop)
                background.add(source.read(start, stop), clean)
                writer.write(clean)
                progress(stop / source.samples)
    before, after = background.levels()
    return Denoised(
        job.source,
        job.target,
        source.rate,
        source.channels,
        source.samples / source.rate,
        before,
        after,
        writer.limited,
        writer.peak,
        time.monotonic() - begin,
    )


def vocode_file(
    model: Model,
    given: Given,
    job: Job,
    settings: VocodeSettings,
    progress: Callable[[float], None],
) -> Made:
    """Make the sound of a mel, or by way of its mel that of a recording.

    What a mel's values cannot be is refused before a sample is made. Of a recording rate, channels,
    length, level and sample format come back. Nothing is left at the target unless all went well.
    Raises MelError, AudioError.
    """
    begin = time.monotonic()
    if given.is_mel(job.source):
        values, note = given.mel(job.source, job.part)
        sound = model.vocode_source(ArrayMels(values, model.preset), settings)
        with threads_for(model, sound.samples / sound.rate):
            return _made(job, sound, "PCM_16", progress, begin, note)
    made = model.recipe.vocode
    start = reach(transform_of(model.preset), made.iterations)
    halo = ((settings.steps or made.steps) * model.denoiser.reach + start) / model.rate
    with given.recording(job.source) as file, threads_for(model, file.samples / file.rate):
        source = Remembered(file, settings.block_seconds + 2 * halo + 2 * PIECE)
        sound = model.resynthesise_source(source, settings)
        return _made(job, sound, file.info.subtype, progress, begin)


def mixtures(
    model: Model, labels: dict[str, float], every: bool, seconds: float | None
) -> list[dict[str, float]]:
    """What to invent: sounds of a mixture of labels, or of `every` label of the model by itself.

    Raises TaskError for labels or a length that the model does not know.
    """
    network = model.denoiser.network
    known = network.config.labels if isinstance(network, PriorNet) else ()
    if isinstance(network, PriorNet):
        shares(network, labels)
    if every and not known:
        raise TaskError(f"{model.name} has no labels", "leave out --all-labels")
    if seconds is not None and (frames := model.recipe.generate.frames):
        length = model.preset.samples(frames) / model.rate
        raise TaskError(f"all sounds of {model.name} last {length:.2f} s", "leave out --seconds")
    return [{label: 1.0} for label in known] if every else [labels]


def generate_file(
    model: Model, item: Invention, settings: GenerateSettings, progress: Callable[[float], None]
) -> Made:
    """Invent one sound; the item's labels and number decide which, beside the settings' seed.

    Nothing is left at the target unless all went well. Raises TaskError, AudioError.
    """
    begin = time.monotonic()
    asked = replace(settings, labels=dict(item.labels))
    sound = model.generate_source(asked, item.number)
    return _made(item, sound, "PCM_16", progress, begin)


def loop_file(
    model: Model,
    pattern: Pattern,
    bpm: float,
    bars: int,
    wrap: bool,
    target: str,
    settings: GenerateSettings,
    progress: Callable[[float], None],
) -> Made:
    """Invent the sounds that a pattern asks for, and write it as a loop; see `loop.render`.

    Raises TaskError, AudioError.
    """
    begin = time.monotonic()
    shots = {}
    for number, row in enumerate(pattern.rows):
        asked = replace(settings, labels={row.label: 1.0})
        shots[row.label] = model.generate(row.takes(bars), asked)
        progress((number + 1) / len(pattern.rows))
    loop = render(pattern, bpm, shots, model.rate, bars, wrap)
    job = Job(" ".join(pattern.labels), target)
    return _made(job, ArraySource(loop[None], model.rate), "PCM_16", lambda share: None, begin)


def save(sound: Source, target: str, subtype: str, progress: Callable[[float], None]) -> Writer:
    """Write a source to a file piece by piece; the writer tells what was limited."""
    _make_folder(target)
    piece = round(PIECE * sound.rate)
    with Writer(target, sound.rate, sound.channels, subtype) as writer:
        for start in range(0, sound.samples, piece):
            stop = min(start + piece, sound.samples)
            writer.write(sound.read(start, stop))
            progress(stop / sound.samples)
    return writer


def _made(
    job: Job,
    sound: Source,
    subtype: str,
    progress: Callable[[float], None],
    begin: float,
    note: str = "",
) -> Made:
    writer = save(sound, job.target, subtype, progress)
    return Made(
        job.source,
        job.part,
        job.target,
        sound.rate,
        sound.channels,
        sound.samples / sound.rate,
        writer.limited,
        writer.peak,
        time.monotonic() - begin,
        note,
    )


def _make_folder(target: str) -> None:
    if target == PIPE:
        return
    try:
        Path(target).parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AudioError(
            f"{target} cannot be written: {error.strerror}", "choose a place where you may write"
        ) from None
