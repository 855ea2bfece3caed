"""Make a virtual environment with pip in it, also where Python comes without ensurepip.

    python3 .ci/environment.py FOLDER

Debian packs ensurepip apart from python3, in python3-venv. Where it is missing, pip's own wheel is
fetched from the package index (PIP_INDEX_URL where that is set) and installs itself.
"""

import html
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
import urllib.request
import venv
from pathlib import Path
from urllib.parse import urljoin

VERSIONS = ((3, 11), (3, 13))
WHEEL = re.compile(
    r'<a (?![^>]*yanked)[^>]*href="([^"]+)"[^>]*>\s*(pip-([\d.]+)-py3-none-any\.whl)<'
)


def main(folder: Path) -> None:
    """Make `folder`, or fill it up."""
    if not VERSIONS[0] <= sys.version_info[:2] <= VERSIONS[1]:
        found = ".".join(map(str, sys.version_info[:2]))
        sys.exit(f"Python {found} is here, wavediff takes 3.11 to 3.13: make PYTHON=python3.12 …")
    included = importlib.util.find_spec("ensurepip") is not None
    venv.create(folder, symlinks=os.name != "nt", with_pip=included)
    if not included:
        add_pip(folder / ("Scripts" if os.name == "nt" else "bin") / "python")


def add_pip(python: Path) -> None:
    """Install pip for that Python, from its wheel, which can run itself."""
    page = os.environ.get("PIP_INDEX_URL", "https://pypi.org/simple").rstrip("/") + "/pip/"
    with urllib.request.urlopen(page) as answer:
        found = WHEEL.findall(answer.read().decode())
    link, name, _ = max(found, key=lambda one: [int(part) for part in one[2].split(".")])
    with tempfile.TemporaryDirectory() as place:
        wheel = Path(place, name)
        with urllib.request.urlopen(urljoin(page, html.unescape(link))) as answer:
            wheel.write_bytes(answer.read())
        command = [python, wheel / "pip", "install", "--quiet", "--no-index", wheel]
        subprocess.run([str(part) for part in command], check=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
