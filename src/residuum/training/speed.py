"""What makes a run fast on its machine, in words."""

import torch

from residuum.hardware import keep_freed_memory
from residuum.training.job import Job


def means_of_speed(job: Job) -> list[str]:
    """What was chosen for this run; what the machine or the run does not allow is left out."""
    kernels = [parameter for parameter in job.network.parameters() if parameter.ndim == 4]
    on_cpu = job.device.type == "cpu"
    chosen = {
        "bf16 autocast": job.dtype is torch.bfloat16,
        "channels-last": all(kernel.is_contiguous(memory_format=torch.channels_last) for kernel in kernels),
        f"fused {job.run.optimizer.name}": any(group.get("fused") for group in job.optimizer.param_groups),
        "freed memory kept": on_cpu and keep_freed_memory(),
        "images augmented on the device": not on_cpu and job.loader.kind == "memory",
        "no waiting for the device": job.unseen is not None,
        "each update one CUDA graph": job.captures,
    }
    return [name for name, is_chosen in chosen.items() if is_chosen] or ["nothing special"]
