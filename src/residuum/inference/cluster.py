"""Bulk prediction on a Ray cluster: each share of the files by one task, which takes a GPU or all cores of a node."""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from residuum.errors import UserError
from residuum.inference.bulk import Job, Outcome, begun_shares, identity_of, predict_into
from residuum.inference.paths import expand_paths
from residuum.inference.shards import Shard
from residuum.ray_cluster import answers, ray_cluster


def predict_on_ray(
    job: Job, shares: int | None, *, overwrite: bool = False, look: Callable[[Sequence[Job]], None]
) -> list[Outcome]:
    """As `predict_into`, in `shares` on the cluster that RAY_ADDRESS names, or on one of this machine's own.

    Without a number in as many as before, or else one a GPU, or a node where there is none. The model, the files and
    the rows must lie where every node sees them, under the same path. `look` is told all shares about once a second.
    Raises UserError without ray, and for the first share that cannot be had.
    """
    identity_of(job)  # refuses here what every node would, and so does the next
    expand_paths(job.paths, null=job.null)
    with ray_cluster("prediction on a cluster") as ray:
        nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
        task = ray.remote(**_share_of_a_node(nodes))(_on_a_node)
        count = shares or begun_shares(job.out) or _places(nodes)
        jobs = [replace(job, shard=Shard(index, count)) for index in range(1, count + 1)]
        tasks = {task.remote(one, overwrite, os.getcwd()): one for one in jobs}
        outcomes = [_outcome(one, said) for one, said in answers(ray, tasks, lambda _: look(jobs))]
    return sorted(outcomes, key=lambda outcome: outcome.file)


def _outcome(job: Job, said: Outcome | str) -> Outcome:
    if isinstance(said, str):
        raise UserError(f"share {job.shard}: {said}")
    return said


def _places(nodes: Sequence[dict[str, float]]) -> int:
    return int(sum(node.get("GPU", 0) for node in nodes)) or sum(bool(node.get("CPU")) for node in nodes)


def _share_of_a_node(nodes: Sequence[dict[str, float]]) -> dict[str, float]:
    """What a task asks for, so that every place has one and no more. Raises UserError where there is no place."""
    with_gpus = [node for node in nodes if node.get("GPU")]
    if with_gpus:
        return {"num_cpus": min(int(node.get("CPU", 0) / node["GPU"]) for node in with_gpus), "num_gpus": 1}
    cpus = [node["CPU"] for node in nodes if node.get("CPU")]
    if not cpus:
        raise UserError("no node of the cluster has a CPU or a GPU to give; start one with ray start --num-cpus N")
    return {"num_cpus": max(1, int(min(cpus))), "num_gpus": 0}


def _on_a_node(job: Job, overwrite: bool, folder: str) -> Outcome | str:
    """What came of it, or why nothing did. folder: what the names of files are relative to."""
    try:
        os.chdir(Path(folder))
        return predict_into(job, overwrite=overwrite)
    except (UserError, OSError) as error:
        return str(error)
