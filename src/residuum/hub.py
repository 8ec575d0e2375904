"""Models on the Hugging Face Hub, by `hf:owner/name` or `hf:owner/name@revision`: their files, in the Hub's cache."""

import re
from collections.abc import Sequence
from pathlib import Path

from residuum.errors import NO_ROOM, UserError, missing_extra, printable

_NAME = re.compile(r"hf:(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_LONGEST_REASON = 160


def is_on_hub(name: str | Path) -> bool:
    """Whether this names something on the Hub and nothing on a disk."""
    return str(name).startswith("hf:")


def fetched(name: str, files: Sequence[str]) -> Path:
    """The folder in the Hub's cache with those of the `files` (names or patterns) that the repository `name` has.

    What the cache has is not downloaded again; without a network, or with HF_HUB_OFFLINE=1, it alone is looked at.
    Raises UserError where the name is none, where huggingface_hub is not installed, and for what cannot be had.
    """
    found = _NAME.fullmatch(name)
    if found is None:
        raise UserError(
            f"{printable(name)!r} does not name a model of the Hub; write hf:owner/name or hf:owner/name@revision"
        )
    try:
        import huggingface_hub
    except ImportError:
        raise missing_extra("huggingface_hub", "hub", f"loading {name}") from None
    repository, revision = found.groups()
    try:
        return Path(huggingface_hub.snapshot_download(repository, revision=revision, allow_patterns=[*files]))
    except Exception as error:  # whatever the network, the Hub and its client's many versions raise
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            raise
        raise UserError(_reason(name, repository, revision, error)) from None


def at_commit(name: str, folder: Path) -> str:
    """The same model, by the commit that `folder`, as `fetched` gave it, holds: later it may be another's."""
    return f"{name.partition('@')[0]}@{folder.name}" if _COMMIT.fullmatch(folder.name) else name


def _reason(name: str, repository: str, revision: str | None, error: Exception) -> str:
    from huggingface_hub import constants, errors

    if isinstance(error, errors.GatedRepoError):
        return (
            f"{name} is given only to those whom its owner lets in; ask at https://huggingface.co/{repository}, "
            "then log in with: hf auth login"
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"the Hub has no model {repository}, or it is private; check the name, or log in with: hf auth login"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{repository} has no revision {revision}; name a branch, a tag or a commit of it"
    if isinstance(error, errors.LocalEntryNotFoundError):
        why = "HF_HUB_OFFLINE is set" if constants.HF_HUB_OFFLINE else "the Hub does not answer"
        return f"{name} is not, or not whole, in the Hub's cache and {why}; connect, or pass the folder of a copy"
    reason = printable(" ".join(str(error).split()) or type(error).__name__, _LONGEST_REASON)
    return f"{name} cannot be downloaded ({reason}); check the name and the network, or pass the folder of a copy"
