"""torchvision's ResNet-50 in the plain way, on images that are on the GPU: fp32 (convolutions TF32), channels first."""

from collections.abc import Callable

import torch
import torchvision
from torch import nn


def training_step(batch: int, size: int, device: torch.device) -> Callable[[], None]:
    """A function that makes one update on a batch of noise: SGD with momentum, as torchvision's reference has it."""
    model = torchvision.models.resnet50().to(device).train()
    criterion = nn.CrossEntropyLoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)
    images = torch.randn(batch, 3, size, size, device=device)
    targets = torch.arange(batch, device=device) % 1000

    def step() -> None:
        loss = criterion(model(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def prediction(batch: int, size: int, device: torch.device) -> Callable[[], None]:
    """A function that classifies a batch of noise."""
    model = torchvision.models.resnet50().to(device).eval()
    images = torch.randn(batch, 3, size, size, device=device)

    def predict() -> None:
        with torch.inference_mode():
            model(images)

    return predict
