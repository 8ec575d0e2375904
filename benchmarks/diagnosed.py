"""The networks that diagnosis.py judges `diagnose` on: one half to choose thresholds by, one to judge them by."""

from dataclasses import replace
from functools import partial
from typing import Any

from planted import (
    Build,
    Case,
    Change,
    Growing,
    Rows,
    Tokens,
    biased,
    built,
    forgotten,
    gaussian,
    he,
    momentum,
    named,
    perceptron,
    plain,
    shifted,
    sums,
    with_eps,
)
from torch import nn

FORWARD = ("vanishing", "degraded")
EXPLODES, DIES, SATURATES, STALE = ("exploding",), ("dead",), ("saturated",), ("degraded",)


def zoo(names: str, size: int, images: int = 16) -> list[Case]:
    """Healthy networks by name, newly initialised."""
    return [Case(name, named(name), size=size, images=images) for name in names.split()]


def own(name: str, build: Build, *changes: Change, **facts: Any) -> Case:
    """A network of planted.py, changed."""
    return Case(name, partial(built, build, *changes), **facts)


def faulty(fault: str, expected: tuple[str, ...], *cases: Case) -> list[Case]:
    """The same cases, said to have this fault."""
    return [replace(case, fault=fault, expected=expected) for case in cases]


def tuning() -> list[Case]:
    """The networks that the thresholds were chosen on."""
    return [
        *zoo("resnet20 resnet56 resnet110 plain20 plain32 resnet9 lenet5 preact_resnet164 wide_resnet16_8", 32),
        *zoo("plain18 resnet18 resnet50 resnet152 preact_resnet18", 64),
        *zoo("torchvision/alexnet torchvision/googlenet torchvision/mobilenet_v2 torchvision/mobilenet_v3_small", 96),
        *zoo("torchvision/efficientnet_b0 torchvision/shufflenet_v2_x1_0 torchvision/squeezenet1_1", 96),
        *zoo("torchvision/mnasnet0_5 torchvision/regnet_y_400mf", 96),
        *zoo("torchvision/vgg11 torchvision/vgg16_bn torchvision/vgg19 torchvision/densenet121", 64, 8),
        *zoo("torchvision/convnext_tiny torchvision/swin_t", 64),
        *zoo("torchvision/inception_v3", 128),
        Case("resnet56, zero-gamma", named("resnet56", zero_gamma=True)),
        own("8 convolutions, He", partial(plain, 8, 32), he),
        own("20 convolutions, He", partial(plain, 20, 32), he),
        own("25 sums as PyTorch starts them", partial(sums, 25, 32)),
        own("MLP of 4", partial(perceptron, 4, 128)),
        own("tanh MLP of 4", partial(perceptron, 4, 128, nn.Tanh)),
        own("MLP of 10 with LayerNorm, GELU", partial(perceptron, 10, 128, nn.GELU, True)),
        own("transformer, post-norm, 4", partial(Tokens, 4, 64, False)),
        own("dense, 10", partial(Growing, 10, 12)),
        own("LSTM", partial(Rows, 64)),
        own("resnet20, trained", named("resnet20"), updates=150),
        own("plain20, trained", named("plain20"), updates=150),
        own("8 convolutions, trained", partial(plain, 8, 32), he, updates=150, rate=0.01),
        own("tanh MLP of 4, trained", partial(perceptron, 4, 128, nn.Tanh), updates=300),
        own("lenet5, trained", named("lenet5"), updates=300),
        *faulty(
            "small weights",
            FORWARD,
            own("8 convolutions, gaussian 0.01", partial(plain, 8, 32), gaussian),
            own("20 convolutions, gaussian 0.01", partial(plain, 20, 32), gaussian),
            own("50 convolutions, gaussian 0.01", partial(plain, 50, 32), gaussian),
        ),
        *faulty(
            "50 plain layers",
            FORWARD,
            own("50 convolutions as PyTorch starts them", partial(plain, 50, 32)),
            own("50 convolutions, He", partial(plain, 50, 32), he),
        ),
        *faulty(
            "large weights",
            EXPLODES,
            own("20 convolutions, 3 He", partial(plain, 20, 32), partial(he, gain=3)),
        ),
        *faulty(
            "zero weights",
            DIES,
            own("20 convolutions, 0", partial(plain, 20, 32), partial(gaussian, std=0.0)),
        ),
        *faulty(
            "saturated",
            SATURATES,
            own("8 tanh, 5 He", partial(plain, 8, 32, nn.Tanh), partial(he, gain=5)),
            own("20 sigmoid, 10 He", partial(plain, 20, 32, nn.Sigmoid), partial(he, gain=10)),
        ),
        *faulty(
            "sigmoids",
            FORWARD,
            own("20 sigmoid", partial(plain, 20, 32, nn.Sigmoid)),
        ),
        *faulty(
            "residual sums",
            EXPLODES,
            own("25 sums, He", partial(sums, 25, 32), he),
            own("60 sums, He", partial(sums, 60, 32), he),
        ),
        *faulty(
            "50 plain layers, BN",
            EXPLODES,
            Case("plain56", named("plain56")),
            own("50 convolutions, BN", partial(plain, 50, 32, nn.ReLU, True), he),
        ),
        *faulty(
            "broken BN",
            FORWARD,
            own("resnet20, eps 1000", named("resnet20"), partial(with_eps, eps=1e3)),
            own("plain20, eps 10", named("plain20"), partial(with_eps, eps=10.0)),
        ),
        *faulty(
            "dead ReLUs",
            DIES,
            own("resnet20, BN shift -10", named("resnet20"), partial(shifted, value=-10.0)),
            own(
                "alexnet, biases -50",
                named("torchvision/alexnet"),
                partial(biased, value=-50.0, start=5, stop=7),
                size=96,
            ),
            own("MLP of 4, biases -20", partial(perceptron, 4, 128), partial(biased, value=-20.0, start=1, stop=2)),
        ),
        *faulty(
            "broken BN",
            STALE,
            own("resnet20, momentum 0", named("resnet20"), partial(momentum, value=0.0), updates=150),
            own("plain20, statistics lost", named("plain20"), updates=150, change=forgotten),
        ),
        *faulty(
            "huge rate",
            (*DIES, *EXPLODES),
            own("8 convolutions, trained at 2", partial(plain, 8, 32), he, updates=30, rate=2.0),
            own("MLP of 4, trained at 10", partial(perceptron, 4, 128), updates=30, rate=10.0),
        ),
        *faulty(
            "huge rate",
            EXPLODES,
            own("resnet20 for a rate of 1000", named("resnet20"), lr=1000.0),
        ),
    ]


def judgement() -> list[Case]:
    """Networks that no threshold was chosen on."""
    return [
        *zoo("resnet32 resnet44 plain26 preact_resnet110 wide_resnet40_4 resnet9_16 resnet62", 32),
        *zoo("resnet34 resnet101 resnet50_v1_5 preact_resnet50 preact_resnet101 resnext50_32x4d wide_resnet50_2", 64),
        *zoo("torchvision/mobilenet_v3_large torchvision/efficientnet_b1 torchvision/efficientnet_v2_s", 96),
        *zoo("torchvision/shufflenet_v2_x0_5 torchvision/squeezenet1_0 torchvision/mnasnet1_0", 96),
        *zoo(
            "torchvision/regnet_x_400mf torchvision/regnet_y_800mf torchvision/resnet34 torchvision/resnext50_32x4d", 96
        ),
        *zoo("torchvision/vgg13 torchvision/vgg11_bn torchvision/densenet169 torchvision/convnext_small", 64, 8),
        *zoo("torchvision/swin_v2_t", 64),
        *zoo(
            "timm/resnet26d timm/resnetv2_50 timm/mobilenetv4_conv_small timm/efficientnet_lite0 timm/ghostnet_100", 96
        ),
        *zoo(
            "timm/convnextv2_atto timm/repvgg_a0 timm/seresnet50 timm/res2net50_26w_4s timm/dla34 timm/hrnet_w18_small",
            96,
        ),
        *zoo("timm/vit_tiny_patch16_224 timm/deit_tiny_patch16_224 timm/mixer_s32_224 timm/poolformer_s12", 224, 4),
        Case("resnet44, zero-gamma", named("resnet44", zero_gamma=True)),
        Case("resnet32, gated", named("resnet32", shortcut="gated")),
        own("12 convolutions, He", partial(plain, 12, 48), he),
        own("40 sums as PyTorch starts them", partial(sums, 40, 24)),
        own("MLP of 3, GELU", partial(perceptron, 3, 256, nn.GELU)),
        own("sigmoid MLP of 3", partial(perceptron, 3, 96, nn.Sigmoid)),
        own("transformer, pre-norm, 8", partial(Tokens, 8, 96, True)),
        own("dense, 20", partial(Growing, 20, 8)),
        own("LSTM of 128", partial(Rows, 128)),
        own("resnet32, trained", named("resnet32"), updates=150),
        own("resnet26, zero-gamma, trained", named("resnet26", zero_gamma=True), updates=150),
        own("resnet9_16, trained", named("resnet9_16"), updates=150),
        own("12 convolutions, trained", partial(plain, 12, 48), he, updates=150, rate=0.01),
        own("transformer, trained", partial(Tokens, 4, 64, True), updates=200, rate=0.01),
        own("dense, 20, trained", partial(Growing, 20, 8), updates=150),
        *faulty(
            "small weights",
            FORWARD,
            own("12 convolutions, gaussian 0.01", partial(plain, 12, 48), gaussian),
            own("30 convolutions, gaussian 0.01", partial(plain, 30, 48), gaussian),
            own("64 convolutions, gaussian 0.01", partial(plain, 64, 48), gaussian),
            own("vgg16, gaussian 0.01", named("torchvision/vgg16"), gaussian, size=64, images=8),
        ),
        *faulty(
            "50 plain layers",
            FORWARD,
            own("60 convolutions as PyTorch starts them", partial(plain, 60, 24)),
            own("55 convolutions, He", partial(plain, 55, 40), he),
            own("75 convolutions, He", partial(plain, 75, 64), he),
            own("MLP of 60, He", partial(perceptron, 60, 120), he),
            own("MLP of 50", partial(perceptron, 50, 100)),
        ),
        *faulty(
            "large weights",
            EXPLODES,
            own("16 convolutions, 4 He", partial(plain, 16, 48), partial(he, gain=4)),
            own("transformer, gaussian 10", partial(Tokens, 8, 96, True), partial(gaussian, std=10.0)),
        ),
        *faulty(
            "zero weights",
            (*DIES, *FORWARD),
            own("resnet32, 0", named("resnet32"), partial(gaussian, std=0.0)),
        ),
        *faulty(
            "saturated",
            SATURATES,
            own("12 tanh, 6 He", partial(plain, 12, 24, nn.Tanh), partial(he, gain=6)),
            own("tanh MLP of 6, 8 He", partial(perceptron, 6, 96, nn.Tanh), partial(he, gain=8)),
            own("10 sigmoid, 12 He", partial(plain, 10, 48, nn.Sigmoid), partial(he, gain=12)),
        ),
        *faulty(
            "sigmoids",
            FORWARD,
            own("12 sigmoid", partial(plain, 12, 48, nn.Sigmoid)),
        ),
        *faulty(
            "residual sums",
            EXPLODES,
            own("40 sums, He", partial(sums, 40, 24), he),
            own("80 sums, He", partial(sums, 80, 24), he),
        ),
        *faulty(
            "50 plain layers, BN",
            EXPLODES,
            Case("plain62", named("plain62")),
            Case("plain110", named("plain110")),
            own("60 convolutions, BN", partial(plain, 60, 24, nn.ReLU, True), he),
        ),
        *faulty(
            "broken BN",
            FORWARD,
            own("resnet32, eps 10000", named("resnet32"), partial(with_eps, eps=1e4)),
            own("plain32, eps 5", named("plain32"), partial(with_eps, eps=5.0)),
        ),
        *faulty(
            "dead ReLUs",
            DIES,
            own(
                "densenet, BN shift -6",
                named("torchvision/densenet121"),
                partial(shifted, value=-6.0),
                size=64,
                images=16,
            ),
            own(
                "vgg13, biases -30",
                named("torchvision/vgg13"),
                partial(biased, value=-30.0, start=2, stop=5),
                size=64,
                images=8,
            ),
            own("12 convolutions, biases -8", partial(plain, 12, 48), he, partial(biased, value=-8.0, start=6, stop=9)),
        ),
        *faulty(
            "broken BN",
            STALE,
            own("resnet26, momentum 0", named("resnet26"), partial(momentum, value=0.0), updates=100),
            own(
                "12 convolutions, BN, statistics lost",
                partial(plain, 12, 40, nn.ReLU, True),
                he,
                updates=120,
                change=forgotten,
            ),
            own("dense of 16, statistics lost", partial(Growing, 16, 12), updates=120, change=forgotten),
        ),
        *faulty(
            "huge rate",
            (*DIES, *EXPLODES),
            own("12 convolutions, trained at 1", partial(plain, 12, 48), he, updates=30, rate=1.0),
            own("MLP of 3, trained at 20", partial(perceptron, 3, 96), updates=30, rate=20.0),
        ),
        *faulty(
            "huge rate",
            EXPLODES,
            own("resnet34 for a rate of 100", named("resnet34"), size=64, images=16, lr=100.0),
        ),
    ]
