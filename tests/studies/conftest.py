"""What the tests of studies share."""

from pathlib import Path

import pytest
import torch
from trial import TRIAL

from residuum.studies.engine import StudyResult, run_study


@pytest.fixture(autouse=True, scope="package")
def _one_thread() -> None:
    """As every member has it that runs beside others, so that both ways compute the same bits."""
    torch.set_num_threads(1)


@pytest.fixture(scope="package")
def trial(tmp_path_factory: pytest.TempPathFactory) -> StudyResult:
    """The trial study, run in this process."""
    out: Path = tmp_path_factory.mktemp("studies")
    return run_study(TRIAL, scale="smoke", out=out)
