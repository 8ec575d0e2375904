"""The command line: one file a verb, and the one place where an error becomes a line and an exit code.

Nothing here imports torch before a verb does its work: `residuum --help` answers at once.
"""

import io
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from residuum.cli.bench import bench
from residuum.cli.check import check
from residuum.cli.compare import compare
from residuum.cli.diagnose import diagnose
from residuum.cli.evaluate import evaluate
from residuum.cli.export import export
from residuum.cli.failures import one_line
from residuum.cli.models import describe, models
from residuum.cli.pack import pack
from residuum.cli.predict import predict
from residuum.cli.report import report
from residuum.cli.reproduce import reproduce
from residuum.cli.serve import serve
from residuum.cli.study import study
from residuum.cli.train import train
from residuum.errors import RefusedByMainError

INTERRUPTED = 130  # 128 + SIGINT, as shells have it

app = typer.Typer(
    name="residuum",
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
VERBS = (
    train,
    evaluate,
    compare,
    report,
    predict,
    serve,
    export,
    bench,
    study,
    reproduce,
    diagnose,
    models,
    describe,
    check,
    pack,
)
for verb in VERBS:
    app.command()(verb)


@app.callback(invoke_without_command=True)
def residuum(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Print the version and stop.")] = False,
) -> None:
    """Deep residual networks: train an image classifier, measure it, put it to work.

    Start with: residuum train digits
    """
    if version:
        import residuum

        print(f"residuum {residuum.__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line and return its exit code.

    0: done. 1: done in part (`predict` met unreadable files). 2: refused or failed, and a line on stderr says
    why. 130: interrupted. With RESIDUUM_DEBUG=1 in the environment a failure shows its traceback.
    """
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # names of files and classes may be any text
    try:
        code = app(args=arguments, prog_name="residuum", standalone_mode=False)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader (`head`) has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except Exception as error:
        line = None if os.environ.get("RESIDUUM_DEBUG") else one_line(error)
        if line is None:
            raise
        if not isinstance(error, RefusedByMainError):
            print(f"error: {line}", file=sys.stderr)
        return 2
    return code or 0
