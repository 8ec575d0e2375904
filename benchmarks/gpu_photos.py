"""The row of the GPU benchmark on ResNet-50 at ImageNet's usual size, on noise that is on the device."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from gpu_record import Line, Piece, Pieces, Row, median_of, one_by_one
from gpu_setting import Setting, call_ms, interleaved, quiet_train, wait_for
from peers import gpu_resnet50 as peer

from residuum.evaluation.evaluate import predictor
from residuum.models.catalogue import create_model

TRAINING_GOAL, INFERENCE_GOAL = 4_500, 20_000  # images/s
MODEL = "resnet50_v1_5"  # torchvision's network
TIMED_IMAGES = 8_192  # of each measurement outside of a run


def photos_row(setting: Setting) -> Row:
    """Training and inference, images/s: every batch size once, then rounds at the best of each arm."""

    def next_piece(done: Pieces) -> Piece | None:
        pieces = []
        for what, arms, seconds in (("training", _training_arms, 60), ("inference", _inference_arms, 30)):
            sizes = f"{what}, batch sizes"
            pieces += [
                Piece(sizes, seconds, lambda arms=arms: _batch_sizes(setting, arms)),
                Piece(what, seconds, lambda arms=arms, sizes=sizes: _rounds(setting, arms, done[sizes])),
            ]
        return one_by_one(pieces)(done)

    return Row("resnet50", next_piece, _lines)


Arms = Callable[[Setting, int], dict[str, Callable[[], float]]]
"""From a batch size to arms, each of which gives images/s."""


def _batch_sizes(setting: Setting, arms: Arms) -> dict[str, Any]:
    setting.need_gpu()
    rates: dict[str, dict[str, float]] = {}
    for batch in setting.sizes.photo_batches:
        for arm, measure in arms(setting, batch).items():
            rates.setdefault(arm, {})[str(batch)] = measure()
    return {"images_per_second": rates}


def _rounds(setting: Setting, arms: Arms, tried: Mapping[str, Any]) -> dict[str, Any]:
    """Each arm at the batch size that was best for it."""
    rates: Mapping[str, Mapping[str, float]] = tried["images_per_second"]
    best = {arm: int(max(by_batch, key=lambda batch: by_batch[batch])) for arm, by_batch in rates.items()}
    chosen = {arm: arms(setting, batch)[arm] for arm, batch in best.items()}
    return {"images_per_second": interleaved(chosen, setting.sizes.rounds), "batch": best}


def _training_arms(setting: Setting, batch: int) -> dict[str, Callable[[], float]]:
    size, device = setting.sizes.photo_size, setting.device
    step = peer.training_step(batch, size, device)

    def ours() -> float:
        settings = [
            *("epochs=3", f"batch_size={batch}", f"data.size={size}", "data.crop_pct=1", "data.loader=memory"),
            *("data.augmentation.random_resized_crop=none", "data.augmentation.mixup=0", "ema=0"),
        ]
        records = quiet_train(setting, setting.photos, "modern-imagenet", MODEL, settings).metrics[1:]
        return sum(record["images"] for record in records) / sum(record["seconds"] for record in records)

    return {"residuum": ours, "torchvision": lambda: _rate(setting, step, batch, tuned=True)}


def _inference_arms(setting: Setting, batch: int) -> dict[str, Callable[[], float]]:
    size, device = setting.sizes.photo_size, setting.device
    predict = predictor(create_model(MODEL), device, torch.bfloat16)
    images = torch.randn(batch, 3, size, size, device=device)
    theirs = peer.prediction(batch, size, device)
    return {
        "residuum": lambda: _rate(setting, lambda: predict(images), batch),
        "torchvision": lambda: _rate(setting, theirs, batch, tuned=True),
    }


def _rate(setting: Setting, call: Callable[[], object], batch: int, tuned: bool = False) -> float:
    """images/s; `tuned`: cuDNN may try its algorithms first, as torchvision's reference lets it."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = tuned or before
    try:
        for _ in range(3):
            call()
        wait_for(setting.device)
        times = 1 if setting.is_smoke else max(8, TIMED_IMAGES // batch)
        return 1000 * batch / call_ms(setting.device, call, times)
    finally:
        torch.backends.cudnn.benchmark = before


def _lines(done: Pieces) -> list[Line]:
    lines = []
    for what, goal in (("training", TRAINING_GOAL), ("inference", INFERENCE_GOAL)):
        ours = median_of(done, what, "images_per_second", "residuum")
        theirs = median_of(done, what, "images_per_second", "torchvision")
        note = ""
        if ours and theirs:
            batch = done[what]["batch"]
            note = f"batch {batch['residuum']}; torchvision fp32 (TF32) {theirs:,.0f} at {batch['torchvision']}"
        elif f"{what}, batch sizes" in done:
            rates = done[f"{what}, batch sizes"]["images_per_second"]["residuum"]
            note = f"one try each: {max(rates.values()):,.0f} at the best batch size"
        lines.append(Line(what, ours, "images/s", goal, at_most=False, note=note))
    return lines
