"""One prediction with torchvision, as its documentation shows it.

python benchmarks/peers/predict.py WEIGHTS.pth IMAGE
"""

import sys

import torch
from PIL import Image
from torchvision import models, transforms

PREPROCESS = transforms.Compose(
    [
        transforms.Resize(256),
        transforms.CenterCrop(224),
        transforms.ToTensor(),
        transforms.Normalize(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225]),
    ]
)


def main() -> None:
    """Print the three likeliest classes."""
    weights, path = sys.argv[1:]
    model = models.resnet18()
    model.load_state_dict(torch.load(weights, weights_only=True))
    model.eval()
    batch = PREPROCESS(Image.open(path).convert("RGB")).unsqueeze(0)
    with torch.no_grad():
        probabilities = model(batch).softmax(1)[0]
    for probability, index in zip(*probabilities.topk(3), strict=True):
        print(f"{index.item()}  {100 * probability.item():.1f} %")


if __name__ == "__main__":
    main()
