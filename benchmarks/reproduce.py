"""What it takes to make a shipped model again, and the making of it.

python benchmarks/reproduce.py NAME [SOUNDS ... [--noise DIR] [--rooms DIR]]

Without folders: what the model has heard, for how long, and by which settings. With folders: trains
with the very settings and steps that the file of the model tells, into runs/NAME-again, then makes
the file that would ship. The recordings themselves are not in the repository: docs/data.md names
where each set comes from.
"""

import argparse
import subprocess
import sys
from pathlib import Path

from wavediff import card as cards
from wavediff.model import names
from wavediff.recipe import to_toml


def main() -> None:
    """Tell, and train where there is something to train on."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("name")
    parser.add_argument("sounds", nargs="*")
    parser.add_argument("--noise", action="append", default=[])
    parser.add_argument("--rooms")
    given = parser.parse_args()
    card = cards.read(given.name)
    steps, items = int(card.state["step"]), card.recipe.training.batch
    frames = card.recipe.generate.frames
    preset = card.recipe.preset
    crop = frames * preset.hop / preset.rate if frames and preset else card.recipe.training.crop
    hours = steps * items * crop / 3600
    print(f"{card.name}: {steps} steps of {items} items of {crop:.2f} s, {hours:.1f} h in all")
    print(f"took {float(card.state['seconds']) / 60:.0f} minutes where it was made")
    if "before" in card.state:
        print(f"and before that: {card.state['before']}")
    print("it heard:")
    for row in card.state.get("data", ()):
        print(f"  {row['hours']:5.1f} h  {row['name']} ({row['licence']})")
    if not given.sounds:
        print("give folders of sound to train on them: see --help, and docs/data.md for the sets")
        return
    run = Path("runs", f"{card.name}-again")
    recipe = run.with_suffix(".toml")
    recipe.parent.mkdir(parents=True, exist_ok=True)
    recipe.write_text(to_toml(card.recipe), "utf-8")
    program = [sys.executable, "-c", "from wavediff.cli.main import run; run()"]
    command = [*program, "train", *given.sounds]
    command += ["--recipe", str(recipe), "--steps", str(steps), "-o", str(run)]
    command += [word for folder in given.noise for word in ("--noise", folder)]
    command += ["--rooms", given.rooms] if given.rooms else []
    renderer = card.recipe.generate.renderer
    if renderer and renderer not in names():  # it is within the model's own file
        command += ["--set", f"generate.renderer={card.name}"]
    subprocess.run(command, check=True)
    ship = [sys.executable, "benchmarks/ship.py", str(run), f"benchmarks/cards/{card.name}.toml"]
    subprocess.run([*ship, str(run / f"{card.name}.safetensors")], check=True)


if __name__ == "__main__":
    main()
