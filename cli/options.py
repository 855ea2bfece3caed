"""The options that mean the same in every command."""

from enum import StrEnum
from typing import Annotated

import typer

DEFAULT_MODEL = "denoise-16k"


class Device(StrEnum):
    """Where a network runs."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    MPS = "mps"


class Precision(StrEnum):
    """The numbers that a network computes with."""

    FP32 = "fp32"
    BF16 = "bf16"
    AUTO = "auto"


ModelName = Annotated[
    str,
    typer.Option(
        "-m", "--model", metavar="MODEL", help="A model's name, file, or training folder."
    ),
]
Output = Annotated[
    str | None,
    typer.Option(
        "-o", "--output", metavar="OUT", help="Exactly this file; a folder for several inputs."
    ),
]
Block = Annotated[
    float,
    typer.Option(min=1, metavar="SECONDS", help="Length of a block; shorter needs less memory."),
]
SkipExisting = Annotated[
    bool, typer.Option("--skip-existing", help="Leave out inputs whose output exists.")
]
Shard = Annotated[
    str | None,
    typer.Option(metavar="I/N", help="Do the I-th of N shares, beside other processes or hosts."),
]
Steps = Annotated[
    int, typer.Option("--steps", metavar="N", help="Network calls, each as long as the first.")
]
Spins = Annotated[
    int,
    typer.Option(
        "--spins",
        metavar="N",
        help="Hearings to average over, each at other frames and another speed.",
    ),
]
Seed = Annotated[int, typer.Option("--seed", metavar="N", help="Decides all random numbers.")]
DeviceName = Annotated[
    Device,
    typer.Option(
        "-d", "--device", metavar="DEVICE", help="auto, cpu, cuda or mps.", case_sensitive=False
    ),
]
PrecisionName = Annotated[
    Precision,
    typer.Option(
        "--precision",
        metavar="NAME",
        help="fp32; bf16 is faster and off by -55 dB; auto takes it where native.",
        case_sensitive=False,
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON to standard output.")]
Force = Annotated[bool, typer.Option("-f", "--force", help="Overwrite what is there.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Say nothing but errors.")]
Verbose = Annotated[bool, typer.Option("-v", "--verbose", help="Say more.")]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.")]
