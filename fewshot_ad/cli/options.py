"""The options that several commands share."""

from pathlib import Path
from typing import Annotated, Literal

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
Prompts = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|PATH",
        help="Prompt set of a text-driven method: a name that 'fewshot-ad prompts list' shows, or "
        "a file of your own. [default: the method's]",
    ),
]
ClassName = Annotated[
    str | None,
    typer.Option(
        metavar="TEXT",
        help="What the sentences call the object, in place of what the prompt set makes of the "
        "name of the class.",
    ),
]
Precision = Annotated[
    Literal["fp32", "bf16", "openvino", "openvino-bf16"],
    typer.Option(
        help="How the backbone computes. bf16 and OpenVINO (pip install openvino) are several "
        "times as quick on a CPU; docs/speed.md has what they do to scores. The same by name: "
        "--backbone bf16:NAME.",
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
Trust = Annotated[
    bool, typer.Option("--trust", help="Import code that FILE names; only if it is your own.")
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:1, mps ...")]
KnownLimit = Annotated[
    int,
    typer.Option(
        metavar="N",
        help="At most so many train normals, test normals and anomalies of a known class.",
    ),
]
Offline = Annotated[
    bool,
    typer.Option(
        "--offline",
        envvar="FEWSHOT_AD_OFFLINE",
        help="Never touch the network: 'weights fetch' refuses, and libraries are told so too.",
    ),
]
Workers = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Processes that share the methods and classes, each with its share of the "
        "threads and a backbone of its own; the rows are those of one process.",
    ),
]
Processes = Annotated[
    int,
    typer.Option(
        min=1,
        metavar="N",
        help="Processes that share every batch, each on a GPU of its own or with its share of the "
        "threads; up to the last bits the outcome is that of one. Needs fewshot-ad[distributed].",
    ),
]
Quiet = Annotated[bool, typer.Option(help="No progress and no messages.")]
KNOWN_FORM = "NAME[:ROOT][:class+class], several joined by commas"
