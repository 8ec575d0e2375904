"""`residuum serve`: a trained model behind HTTP, with a page."""

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from residuum.cli.options import Device, Precision
from residuum.errors import UserError, missing_extra

KEY = "RESIDUUM_API_KEY"
_SHORTEST_KEY = 16
_LIMITS = "Limits"
_SYSTEM = os.name


def serve(
    models: Annotated[
        list[str],
        typer.Argument(metavar="MODEL", help="Runs or exported models; NAME=PATH gives one another name."),
    ],
    host: Annotated[str, typer.Option("--host", metavar="ADDRESS", help="0.0.0.0 for every network.")] = "127.0.0.1",
    port: Annotated[int, typer.Option("--port", min=0, max=65535, metavar="N", help="0 for any that is free.")] = 8000,
    api_key_file: Annotated[
        Path | None,
        typer.Option("--api-key-file", metavar="FILE", help=f"What clients must send; or in ${KEY}."),
    ] = None,
    allow_host: Annotated[
        list[str] | None,
        typer.Option("--allow-host", metavar="NAME", help="A further name under which it may be asked."),
    ] = None,
    access_log: Annotated[bool, typer.Option("--access-log", help="A line for every request.")] = False,
    engine: Annotated[str, typer.Option("--engine", metavar="NAME", help="For exported models.")] = "auto",
    device: Device = "auto",
    precision: Precision = "auto",
    batch: Annotated[
        int, typer.Option("-b", "--batch-size", min=1, metavar="N", help="Images computed together at most.")
    ] = 32,
    max_mb: Annotated[
        int,
        typer.Option("--max-mb", min=1, max=512, metavar="N", help="MiB of a request.", rich_help_panel=_LIMITS),
    ] = 32,
    max_images: Annotated[
        int, typer.Option("--max-images", min=1, metavar="N", help="Images of a request.", rich_help_panel=_LIMITS)
    ] = 32,
    max_megapixels: Annotated[
        int,
        typer.Option("--max-megapixels", min=1, max=100, metavar="N", help="Of an image.", rich_help_panel=_LIMITS),
    ] = 50,
    queue: Annotated[
        int,
        typer.Option("--queue", min=1, metavar="N", help="Images waiting, past which 429.", rich_help_panel=_LIMITS),
    ] = 128,
    deadline: Annotated[
        float, typer.Option("--deadline", metavar="S", help="Seconds to an answer.", rich_help_panel=_LIMITS)
    ] = 10.0,
    decoders: Annotated[
        int | None,
        typer.Option("-j", "--decoders", min=1, metavar="N", help="Processes that decode.", rich_help_panel=_LIMITS),
    ] = None,
) -> None:
    """Serve models over HTTP: an API, and a page to try them.

    Example: residuum serve runs/digits
    """
    _require_system()
    _require_packages()
    from residuum.inference.serve.models import How, named_models
    from residuum.inference.serve.server import Door, bind, run
    from residuum.inference.serve.service import Service
    from residuum.inference.serve.settings import MIB, Settings

    defaults = Settings()
    settings = Settings(
        body_bytes=max_mb * MIB,
        images=max_images,
        pixels=max_megapixels * 1_000_000,
        queue=queue,
        deadline=deadline,
        batch=batch,
        decoders=decoders or defaults.decoders,
    )
    door = Door(host, port, _key(api_key_file), allow_host or (), access_log)
    if door.hosts is None and door.key is None:
        print(f"warning: anybody who reaches {host} may ask; set ${KEY} to ask for a key", file=sys.stderr)
    named = named_models(models)
    with bind(door) as address:
        run(Service(named, How(engine, device, precision), settings), door, address)


def _require_system() -> None:
    if _SYSTEM != "posix":
        raise UserError("residuum serve needs the signals and limits of Linux or macOS; on Windows run it in WSL")


def _require_packages() -> None:
    for package in ("fastapi", "uvicorn", "python_multipart", "prometheus_client"):
        try:
            __import__(package)
        except ImportError:
            raise missing_extra(package.replace("_", "-"), "serve", "residuum serve") from None


def _key(file: Path | None) -> str | None:
    """What clients must send: of a file, or of the environment. Raises UserError for one that is easily guessed."""
    found = os.environb.get(KEY.encode()) if file is None else file.read_bytes()
    if found is None:
        return None
    key, place = found.decode("latin-1").strip(), KEY if file is None else str(file)
    if len(key) < _SHORTEST_KEY or not key.isascii() or not key.isprintable() or " " in key:
        wanted = f"at least {_SHORTEST_KEY} letters and digits"
        raise UserError(f"the API key in {place} is not {wanted}; make one: openssl rand -hex 32")
    return key
