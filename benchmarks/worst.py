"""Where a denoiser does worst: the least intelligible of its results, as figures and spectrograms.

wavediff evaluate -m denoise-16k --noisy NOISY --clean CLEAN --save OUT
python benchmarks/worst.py NOISY OUT CLEAN worst.png

A row of the picture is a recording: as it was, as it came out, as it should have.
"""

import argparse
import tempfile
from pathlib import Path

from wavediff.evaluation import evaluate, pairs
from wavediff.plot import save_sheet

SCORES = ("pesq", "estoi", "si_sdr")


def main() -> None:
    """Print a row for each of the worst, and draw them."""
    parser = argparse.ArgumentParser(description=__doc__)
    for folder in ("noisy", "out", "clean"):
        parser.add_argument(folder, type=Path)
    parser.add_argument("picture", type=Path)
    parser.add_argument("--most", type=int, default=3)
    given = parser.parse_args()
    before = {row.name: row.scores for row in evaluate(given.clean, given.noisy, SCORES).rows}
    worst = evaluate(given.clean, given.out, SCORES).worst("estoi", given.most)
    for row in worst:
        scores = (f"{key} {before[row.name][key]:.3f} to {row.scores[key]:.3f}" for key in SCORES)
        print(f"{row.name}: {', '.join(scores)}")
    noisy, out = (
        {pair.name: pair for pair in pairs(given.clean, folder)[0]}
        for folder in (given.noisy, given.out)
    )
    with tempfile.TemporaryDirectory() as folder:
        sheet: list[str | Path] = []
        for row in worst:
            for title, path in (
                (Path(row.name).name, noisy[row.name].estimate),
                ("denoised", out[row.name].estimate),
                ("clean", out[row.name].reference),
            ):  # the sheet's titles are the names of its files
                link = Path(folder, f"{len(sheet)}", f"{title}{path.suffix}")
                link.parent.mkdir()
                link.symlink_to(path.resolve())
                sheet.append(link)
        save_sheet(sheet, 3, given.picture, "least intelligible")


if __name__ == "__main__":
    main()
