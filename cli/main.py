"""The command `wavediff`: its subcommands, and what happens around them."""

import io
import signal
import sys
from typing import Annotated, Any

import typer

from wavediff import __version__
from wavediff.cli import (
    bench,
    check,
    denoise,
    evaluate,
    generate,
    models,
    report,
    trace,
    train,
    vocode,
)
from wavediff.cli.status import ExitCode

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="wavediff COMMAND --help tells more, with examples.",
)
app.command(epilog=denoise.EXAMPLES)(denoise.denoise)
app.command(epilog=vocode.EXAMPLES)(vocode.vocode)
app.command(epilog=generate.EXAMPLES)(generate.generate)
app.command(epilog=train.EXAMPLES)(train.train)
app.command(epilog=check.EXAMPLES)(check.check)
app.command(epilog=evaluate.EXAMPLES)(evaluate.evaluate)
app.command(epilog=bench.EXAMPLES)(bench.bench)
app.command(epilog=trace.EXAMPLES)(trace.trace)
app.command(epilog=report.EXAMPLES)(report.report)
app.add_typer(models.app, name="models")


def _version(wanted: bool) -> None:
    if wanted:
        print(f"wavediff {__version__}")
        raise typer.Exit(ExitCode.OK)


@app.callback()
def wavediff(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Print the version."),
    ] = False,
) -> None:
    """Clean recordings, make sound of mel spectrograms, invent sounds, and train the models for
    it."""


def run() -> None:
    """The entry point of the command."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names can be any bytes
    for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):  # a closed terminal
        signal.signal(number, _terminate)
    app()


def _terminate(number: int, frame: Any) -> None:
    """Being told to end unwinds like Ctrl-C, so that nothing is left half-written."""
    sys.exit(128 + number)
