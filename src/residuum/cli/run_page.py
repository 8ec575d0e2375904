"""The page of one run or of several: from what lies in their folders to sections of records."""

from collections.abc import Sequence

from residuum.cli.run_names import Runs, in_a_row, named
from residuum.cli.run_records import RunRecord
from residuum.cli.run_results import answers, calibration, results, training
from residuum.cli.run_setup import data, environment, networks, settings
from residuum.records import Page, Section
from residuum.report.names import isolated

REFRESH_SECONDS = 10


def run_page(records: Sequence[RunRecord], insights: Sequence[Section] = ()) -> Page:
    """What runs were, how they went and what they scored; `insights` are sections that needed the data."""
    runs = named(records)
    sections = [
        *results(runs),
        *training(runs),
        *answers(runs),
        *calibration(runs),
        *insights,
        *networks(runs),
        *settings(runs),
        data(runs),
        environment(runs),
    ]
    refresh = REFRESH_SECONDS if any(one.status == "running" for one in records) else 0
    return Page(_title(records), _subtitle(runs), tuple(sections), refresh)


def _title(records: Sequence[RunRecord]) -> str:
    models, specs = (one.model for one in records), (isolated(one.manifest["data"]["spec"]) for one in records)
    return f"{in_a_row(models)} on {in_a_row(specs)}"


def _subtitle(runs: Runs) -> str:
    if len(runs) > 1:
        return "Runs: " + ", ".join(f"{name} ({record.status})" for name, record in runs.items())
    (record,) = runs.values()
    return f"Run {isolated(str(record.path))}: {record.status}"
