"""Make the file that ships out of a training: averaged weights in float16, and the model's card.

python benchmarks/ship.py RUN benchmarks/cards/NAME.toml wavediff/models/NAME.safetensors

Settings that may follow lie over those of the training, such as vocode.passes=8.
"""

import json
import sys
import tomllib
from dataclasses import replace
from pathlib import Path

from wavediff import checkpoint
from wavediff.model import export, locate
from wavediff.recipe import parse

MOST_BYTES = 6_000_000  # of a model in the package


def main(run: str, card: str, out: str, *overrides: str) -> None:
    """Write `out`, or stop where it is too large."""
    facts = tomllib.loads(Path(card).read_text("utf-8"))
    trained = checkpoint.load(locate(run))
    recipe = parse(json.loads(trained.recipe.to_json()), run, overrides)
    saved = export(replace(trained, recipe=recipe), facts)
    checkpoint.save(Path(out), saved)
    size = Path(out).stat().st_size
    print(f"{out}: {size / 1e6:.2f} MB, step {saved.state['step']}")
    if size > MOST_BYTES:
        sys.exit(f"that is more than the {MOST_BYTES / 1e6:.0f} MB a model may have")


if __name__ == "__main__":
    if len(sys.argv) < 4:
        sys.exit(__doc__)
    main(*sys.argv[1:])
