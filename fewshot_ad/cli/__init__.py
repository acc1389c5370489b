"""The command line: one file per command, imported when it runs, so that help is quick."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from importlib import import_module
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup

from fewshot_ad import __version__
from fewshot_ad.cli.options import Offline

COMMANDS = {
    "eval": "Evaluate methods on episodes of unseen classes: a table, result rows, overlays.",
    "study": "Run a declared grid of methods, classes, shots and seeds.",
    "report": "Turn rows into a page, or into Markdown, CSV or LaTeX.",
    "compare": "Tell what changed between two runs, and whether it matters.",
    "rows": "What a store holds; its rows as lines of JSON, CSV or Parquet.",
    "influence": "Which support images matter, and were others better?",
    "sizes": "How small can a defect be? Quartiles of its area, whole and in tiles.",
    "kinds": "Can features tell the kinds of defects apart? A linear probe.",
    "fit": "Learn a part from a few normal photos; threshold and all go into one file.",
    "predict": "Decide OK or NOT OK on photos by that file; boxes, overlays, maps.",
    "app": "A page in the browser: photos in, decisions out, the rate of false alarms by a slider.",
    "serve": "Decide on photos that come by HTTP; queue, limits, metrics.",
    "export": "Write that file's predict as an ONNX graph, checked against torch.",
    "train": "Meta-train a method on known classes and save a checkpoint.",
    "data": "List, check and export datasets.",
    "episodes": "Manifests: which normal images are the support of each class and seed.",
    "methods": "List the methods, and the parameters of each.",
    "prompts": "List, show, check and compare prompt sets.",
    "backbones": "List the feature extractors, and look into one.",
    "cache": "What is kept on disk so that no run computes it again; show it, clear it.",
    "weights": "Where published weights lie on this machine; check them, fetch them.",
}
FILES = {"app": "page"}  # a module of that name would take the place of our own app, below
OFFLINE = ("FEWSHOT_AD_OFFLINE", "HF_HUB_OFFLINE")  # what we read, and what libraries read
INTERRUPTED = 130
USER_ERROR = 2


class Commands(TyperGroup):
    """Imports a command late; says what the user can mend in one line on stderr, exit code 2."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: TyperCommand(name, help=text) for name, text in COMMANDS.items()}

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """The command itself in place of the entry that only the help page needs."""
        name, _, rest = super().resolve_command(ctx, args)
        return name, load_command(str(name)), rest

    def invoke(self, ctx: Any) -> Any:
        """Run a command, without the network if ``--offline`` says so."""
        with _no_network() if ctx.params["offline"] else nullcontext():
            return super().invoke(ctx)

    def main(self, *args: Any, **kwargs: Any) -> Any:
        """Run a command and exit with its code; a bug keeps its traceback."""
        try:
            with _warnings_in_one_line():
                code = super().main(*args, **{**kwargs, "standalone_mode": False})
        except (KeyboardInterrupt, typer.Abort):
            code = INTERRUPTED
        except Exception as error:
            code = _report(error)
        if code == INTERRUPTED:
            sys.stderr.write(
                "interrupted: what was finished is kept; the same command goes on there\n"
            )
        sys.exit(code if isinstance(code, int) else 0)


def load_command(name: str) -> Any:
    """The command behind a name, from the file of that name, with one exception."""
    command = typer.main.get_command(import_module(f"{__name__}.{FILES.get(name, name)}").app)
    command.help = command.help or COMMANDS[name]
    return command


@contextmanager
def _no_network() -> Iterator[None]:
    """Say so to this package and to the libraries, which read it when they are imported."""
    before = {name: os.environ.get(name) for name in OFFLINE}
    os.environ.update(dict.fromkeys(OFFLINE, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


@contextmanager
def _warnings_in_one_line() -> Iterator[None]:
    """Show each warning once, as a line on stderr."""
    seen: set[str] = set()

    def show(message: Warning | str, *_: object, **__: object) -> None:
        line = " ".join(str(message).split())
        if line not in seen:
            seen.add(line)
            sys.stderr.write(f"warning: {line}\n")

    with warnings.catch_warnings():
        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = show
        yield


def _report(error: Exception) -> int:
    """Print the one line of an error that the user caused; raise every other error again."""
    if type(error).__name__ == "NoArgsIsHelpError":
        error.show()  # pyright: ignore[reportAttributeAccessIssue]
        return USER_ERROR
    usage = getattr(error, "format_message", None)  # typer's errors have no public base
    if usage is not None:
        return _print_error(usage())
    from fewshot_ad.api import FewShotError  # here, because it imports torch

    if isinstance(error, FewShotError):
        return _print_error(str(error))
    raise error


def _print_error(message: str) -> int:
    sys.stderr.write(f"error: {' '.join(message.split())}\n")
    return USER_ERROR


app = typer.Typer(
    name="fewshot-ad",
    cls=Commands,
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> bool:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit
    return wanted


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version."
        ),
    ] = False,
    offline: Offline = False,
) -> None:
    """Few-shot anomaly detection: a few normal images of an unseen product, defects found."""


def main() -> None:
    """Entry point of ``fewshot-ad``."""
    app()
