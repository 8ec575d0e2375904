"""What every part of a run needs to know."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from residuum.data.sources import DataSet
from residuum.distributed import World
from residuum.training.interruption import StopRequest
from residuum.training.progress import Reporter
from residuum.training.run import Run
from residuum.training.run_folder import RunFolder


@dataclass(frozen=True)
class Context:
    """A run, its data and its folder, where it computes and with whom, and whom it tells."""

    run: Run
    dataset: DataSet
    fingerprint: str
    folder: RunFolder
    device: torch.device
    dtype: torch.dtype
    world: World
    reporter: Reporter
    stop: StopRequest = field(default_factory=StopRequest)

    @property
    def precision(self) -> str:
        return str(self.dtype).removeprefix("torch.")

    @property
    def claims_exactness(self) -> bool:
        claimed: bool = self.folder.read_manifest()["exact"]["claimed"]
        return claimed

    def update_manifest(self, changes: Mapping[str, Any]) -> None:
        if self.world.is_main:
            self.folder.update_manifest(changes)
