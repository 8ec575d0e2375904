"""How much memory a command takes, its child processes with it (Linux)."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from measuring import Figures

_BETWEEN_LOOKS = 0.25  # seconds


def peak_memory(command: Sequence[str], **environment: str) -> Figures:
    """The most memory that the command's processes held at once, in MiB; empty where the system does not tell.

    pss_mib: pages that processes share are divided among them, so that the sum counts each page once; rss_mib: they
    count in every process; processes: how many there were at that moment.
    """
    if not Path("/proc/self/smaps_rollup").exists():
        return {}
    most: Figures = {"pss_mib": 0.0, "rss_mib": 0.0, "processes": 0}
    with subprocess.Popen(
        command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=os.environ | environment
    ) as process:
        while process.returncode is None:
            held = [memory for pid in process_tree(process.pid) if (memory := _memory(pid))]
            pss, rss = (sum(memory[kind] for memory in held) / 1024 for kind in ("Pss", "Rss"))
            if pss > most["pss_mib"]:
                most = {"pss_mib": pss, "rss_mib": rss, "processes": len(held)}
            try:
                process.wait(_BETWEEN_LOOKS)
            except subprocess.TimeoutExpired:
                continue
    if process.returncode:
        raise SystemExit(f"{' '.join(command)} ended with {process.returncode}")
    return most


def process_tree(root: int) -> list[int]:
    """`root` and all its descendants."""
    parents = {int(folder.name): _parent(folder) for folder in Path("/proc").glob("[0-9]*")}
    tree = [root]
    for pid in tree:  # grows while it is walked
        tree += [child for child, parent in parents.items() if parent == pid]
    return tree


def _parent(folder: Path) -> int:
    try:
        return int((folder / "stat").read_text().rpartition(")")[2].split()[1])  # a name may hold blanks and brackets
    except OSError:  # gone since it was listed
        return 0


def _memory(pid: int) -> dict[str, int]:
    """KiB by kind, of which "Rss" and "Pss"; empty for a process that has ended."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    except OSError:
        return {}
    return {name: int(amount.split()[0]) for name, _, amount in (line.partition(":") for line in lines)}
