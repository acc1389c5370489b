"""The options that ``eval`` and ``train`` share."""

from pathlib import Path
from typing import Annotated

import typer

Backbone = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Feature extractor: 'tiny' (embedded), a timm model, 'random:NAME', "
        "package.module:factory or path/to/file.py:factory. [default: tiny]",
    ),
]
WeightsDir = Annotated[
    Path | None,
    typer.Option(
        metavar="DIR",
        help="Folder with the weight files of backbones. [default: $FEWSHOT_AD_WEIGHTS]",
    ),
]
Settings = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="NAME=VALUE",
        help="A parameter of the method, as 'fewshot-ad methods show NAME' lists them; nested "
        "ones are dotted (preprocess.size=256). Repeatable.",
    ),
]
Paper = Annotated[
    bool,
    typer.Option(
        "--paper",
        help="The settings of the paper, where the defaults are others; --set still goes on top.",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
KnownLimit = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="At most so many train normals, test normals and anomalies of a known class.",
    ),
]
Quiet = Annotated[bool, typer.Option(help="No progress and no messages.")]
KNOWN_FORM = "NAME[:ROOT][:class+class], several joined by commas"
