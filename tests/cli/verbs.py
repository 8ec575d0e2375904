"""What a verb says: run in this process, both streams read."""

import pytest

from residuum.cli import main


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> tuple[str, str]:
    """What `residuum ARGUMENTS` writes to stdout and to stderr, once its exit code was checked."""
    capsys.readouterr()
    assert main([str(argument) for argument in arguments]) == code
    captured = capsys.readouterr()
    return captured.out, captured.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The one line that the command ends with, having written nothing else."""
    out, err = said(capsys, *arguments, code=2)
    assert out == ""
    assert err.count("\n") == 1, err
    return err
