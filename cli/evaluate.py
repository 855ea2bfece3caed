"""wavediff evaluate: how near estimates come to their references."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from wavediff.cli import options
from wavediff.cli.output import count, say, write
from wavediff.cli.progress import Progress
from wavediff.cli.status import reported

if TYPE_CHECKING:
    from torch import Tensor

EXAMPLES = """\b
Examples:
  wavediff evaluate clean/ denoised/
  wavediff evaluate clean.wav denoised.wav --json
  wavediff evaluate -m denoise-16k --noisy noisy/ --clean clean/ --csv a.csv
  wavediff evaluate --generated new/ --reference real/ --classifier FILE

\b
Folders are matched by path without extension: a/b.flac with a/b.wav. PESQ-WB
and ESTOI need the packages of: pip install "wavediff[eval]"
"""


@reported
def evaluate(
    reference: Annotated[
        Path | None, typer.Argument(metavar="REFERENCE", help="Clean file or folder.")
    ] = None,
    estimate: Annotated[
        Path | None, typer.Argument(metavar="ESTIMATE", help="What is to be judged.")
    ] = None,
    model: Annotated[
        str | None,
        typer.Option("-m", "--model", metavar="MODEL", help="Make the estimates with this model."),
    ] = None,
    noisy: Annotated[
        Path | None, typer.Option(metavar="DIR", help="What the model is given.")
    ] = None,
    clean: Annotated[Path | None, typer.Option(metavar="DIR", help="What should come out.")] = None,
    save: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Keep the model's estimates there.")
    ] = None,
    metrics: Annotated[
        str | None,
        typer.Option(metavar="LIST", help="Some of pesq,estoi,si_sdr,mr_stft."),
    ] = None,
    csv: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Write one line a file there.")
    ] = None,
    generated: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Generated sounds, sub-folders named by their labels."),
    ] = None,
    real: Annotated[
        Path | None,
        typer.Option("--reference", metavar="DIR", help="Real sounds that were not trained on."),
    ] = None,
    training: Annotated[
        Path | None, typer.Option(metavar="DIR", help="The sounds that the generator learned.")
    ] = None,
    classifier: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="FILE",
            help="A judge: wavediff train --task classify. Given again, several judge together.",
        ),
    ] = None,
    steps: options.Steps = 1,
    spins: options.Spins = 2,
    seed: options.Seed = 0,
    device: options.DeviceName = options.Device.AUTO,
    workers: Annotated[
        int, typer.Option(min=1, metavar="N", help="Processes that compute the scores.")
    ] = 1,
    json: options.Json = False,
    force: options.Force = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Score recordings against clean references, or a model on pairs."""
    from wavediff import evaluation
    from wavediff.model import load
    from wavediff.tasks import DenoiseSettings

    if generated or real or classifier:
        if not (generated and real and classifier):
            raise typer.BadParameter("give --generated, --reference and --classifier together")
        _likeness(classifier, generated, real, training, json, quiet)
        return
    files, pairs = (reference, estimate), (model, noisy, clean)
    if not (all(files) and not any(pairs)) and not (all(pairs) and not any(files)):
        raise typer.BadParameter("give REFERENCE and ESTIMATE, or -m, --noisy and --clean")
    keys = metrics.replace(" ", "").split(",") if metrics else None
    with Progress("scoring", quiet) as progress:

        def tell(done: int, total: int) -> None:
            progress.update(done / total)

        if reference and estimate:
            result = evaluation.evaluate(reference, estimate, keys, workers, tell)
        elif model and noisy and clean:
            loaded = load(model, device)
            settings = DenoiseSettings(steps, seed=seed, spins=spins)

            def denoise(sound: "Tensor", rate: int) -> "Tensor":
                return cast("Tensor", loaded.denoise(sound, rate, settings))

            result = evaluation.evaluate_model(denoise, noisy, clean, keys, workers, save, tell)
    if csv:
        write(csv, result.to_csv(), force)
    print(result.to_json() if json else "\n".join(result.table()))
    if result.skipped:
        say(f"{count(len(result.skipped), 'file')} could not be scored", quiet)


def _likeness(
    classifiers: list[Path],
    generated: Path,
    real: Path,
    training: Path | None,
    json: bool,
    quiet: bool,
) -> None:
    """How alike invented sounds are to real ones."""
    from wavediff.classifier import load
    from wavediff.likeness import judge

    found = judge([load(path) for path in classifiers], generated, real, training)
    print(found.to_json() if json else "\n".join(found.table()))
    if found.skipped:
        say(f"{count(len(found.skipped), 'file')} could not be judged", quiet)
