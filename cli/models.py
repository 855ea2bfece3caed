"""wavediff models: what there is, the whole card of one, and models from elsewhere."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from wavediff.cli import options
from wavediff.cli.output import duration, emit, say, size, table
from wavediff.cli.status import reported

if TYPE_CHECKING:
    from wavediff.card import Card

EXAMPLES = """\b
Examples:
  wavediff models list
  wavediff models show denoise-16k
  wavediff models show runs/mine --json
  wavediff models import diffwave-ljspeech-22kHz-1000578.pt
"""
app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="List the models, show the card of one, or import one.",
    epilog=EXAMPLES,
)
HEAD = ("name", "task", "rate", "size", "parameters", "licence", "summary")


@app.command("list", epilog=EXAMPLES)
@reported
def list_(json: options.Json = False, debug: options.Debug = False) -> None:
    """The models that come with the package."""
    from wavediff import card, model

    cards = [card.read(name) for name in model.names()]
    if json:
        emit([found.facts() for found in cards], indent=2)
    elif cards:
        print(table(HEAD, [_row(found) for found in cards]))
    else:
        say("no model is in the package; wavediff train makes one")


@app.command(epilog=EXAMPLES)
@reported
def show(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="A model's name, file, or training folder.")
    ],
    json: options.Json = False,
    debug: options.Debug = False,
) -> None:
    """The card of a model: data, licences, figures, settings."""
    from wavediff import card
    from wavediff.recipe import to_toml

    found = card.read(model)
    if json:
        emit(found.facts(), indent=2)
        return
    print(describe(found))
    for key in ("data", "heard", "not_heard", "figures", "commands"):
        if found.state.get(key):
            print(f"\n{key.replace('_', ' ')}:\n" + "\n".join(_lines(found.state[key])))
    print("\nrecipe:\n" + "\n".join("  " + line for line in to_toml(found.recipe).splitlines()))


@app.command("import", epilog=EXAMPLES)
@reported
def import_(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A published checkpoint, .pt.")],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT", help="The model's file; else FILE's name."),
    ] = None,
    force: options.Force = False,
    quiet: options.Quiet = False,
    debug: options.Debug = False,
) -> None:
    """Make a model of a published DiffWave checkpoint."""
    from wavediff.checkpoint import save
    from wavediff.errors import TaskError
    from wavediff.model import SUFFIX, imported

    target = output or Path(file.name).with_suffix(SUFFIX)
    if target.exists() and not force:
        raise TaskError(f"{target} exists", "-f overwrites")
    made = imported(file)
    save(target, made)
    mel = " FILE.npy" if made.recipe.command == "vocode" else ""
    say(f"{file} -> {target}; use it: wavediff {made.recipe.command} -m {target}{mel}", quiet)


def describe(card: "Card") -> str:
    """What a model is, in a few lines."""
    made = []
    if "step" in card.state:
        made.append(f"{card.state['step']} steps")
    if "seconds" in card.state:
        made.append(duration(float(card.state["seconds"])))
    lines = {
        "name": card.name,
        "": card.summary,
        "task": card.recipe.task,
        "rate": f"{card.recipe.rate} Hz",
        "size": f"{size(card.size)}, {card.parameters:,} parameters",
        "licence": f"{card.licence} (of the weights)",
        "training": ", ".join(made),
        "before": str(card.state.get("before", "")),
        "kind": "a model" if card.finished else "the checkpoint of a training, which can go on",
        "file": str(card.path),
    }
    return "\n".join(f"{key:<9} {value}" for key, value in lines.items() if value)


def _row(card: "Card") -> tuple[str, ...]:
    return (
        card.name,
        card.recipe.task,
        f"{card.recipe.rate} Hz",
        size(card.size),
        f"{card.parameters:,}",
        card.licence,
        card.summary,
    )


def _lines(fact: Any) -> list[str]:
    """A fact of a card as indented lines: text, a list, or a table of dictionaries."""
    if isinstance(fact, list) and fact and all(isinstance(row, dict) for row in fact):
        head = list(dict.fromkeys(key for row in fact for key in row))
        rows = [[str(row.get(key, "")) for key in head] for row in fact]
        return ["  " + line for line in table(head, rows).splitlines()]
    if isinstance(fact, list):
        return [f"  {item}" for item in fact]
    if isinstance(fact, dict):
        return [f"  {key}: {value}" for key, value in fact.items()]
    return [f"  {line}" for line in str(fact).splitlines()]
