"""Studies: one file a question, each a grid of runs and the reading of its answer. Below, all of them by name."""

from residuum.studies import (
    additive_gradient,
    batch_size,
    cardinality,
    classics,
    degradation,
    depth_1202,
    initialisation,
    losses,
    normalisation,
    optimisers,
    responses,
    shortcuts,
    signal,
    units,
)
from residuum.studies.study import Study

STUDIES: dict[str, Study] = {
    "degradation": degradation.STUDY,
    "shortcuts": shortcuts.STUDY,
    "responses": responses.STUDY,
    "signal": signal.STUDY,
    "depth-1202": depth_1202.STUDY,
    "units": units.STUDY,
    "normalisation": normalisation.STUDY,
    "initialisation": initialisation.STUDY,
    "optimisers": optimisers.STUDY,
    "batch-size": batch_size.STUDY,
    "losses": losses.STUDY,
    "cardinality": cardinality.STUDY,
    "additive-gradient": additive_gradient.STUDY,
    "classics": classics.STUDY,
}
