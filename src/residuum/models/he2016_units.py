"""The orders of convolution, normalisation and activation in a unit that He et al. 2016 compare (figure 4).

Each has the layers of He et al. 2015's basic unit (figure 4a: conv-BN-ReLU-conv-BN, add, ReLU), as many and under the
same names, and a trunk of its own where what surrounds the units differs. Full pre-activation (4e) is in `he2016`.
"""

from typing import Unpack

from torch import Tensor, nn

from residuum.errors import UserError
from residuum.models.shortcuts import Projection, ShortcutBuilder, option_a
from residuum.models.trunk import Options, ResNet, cifar_stem
from residuum.models.units import Basic, relu


class BNAfterAddition(Basic):
    """conv-BN-ReLU-conv, add, BN-ReLU: the shortcut is normalised, too. Figure 4b.

    Stem and head are the original's: conv-BN-ReLU before the first unit, nothing after the last.
    """

    def residual(self, x: Tensor) -> Tensor:
        x = self.conv2(self.activation(self.bn1(self.conv1(x))))
        return self.drop_path(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.bn2(self.downsample(x, self.residual(x))))

    def zero_residual(self) -> None:
        """Zero the last convolution: its normalisation is that of the sum."""
        nn.init.zeros_(self.conv2.weight)


class ReLUBeforeAddition(Basic):
    """conv-BN-ReLU-conv-BN-ReLU, add: what is added is never negative. Figure 4c.

    Stem and head are the original's: conv-BN-ReLU before the first unit, nothing after the last.
    """

    def residual(self, x: Tensor) -> Tensor:
        # The activation's gradient needs its output, which the sum overwrites.
        return self.activation(super().residual(x)).clone()

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(x, self.residual(x))

    def zero_residual(self) -> None:
        """As in the original unit. Raises UserError with ReLU, whose gradient at zero is zero: F would stay zero."""
        if self.activation is relu:
            raise UserError(
                "zero_gamma with a ReLU before the addition: no gradient would ever reach the branches; leave "
                "zero_gamma out, or take the activation tanh"
            )
        super().zero_residual()


class ReLUPreActivation(Basic):
    """ReLU-conv-BN-ReLU-conv-BN, add. Figure 4d; its trunk is `ReLUPreActivationResNet`.

    An identity shortcut, or a gate, carries the unit's input as it came; a projection reads the activated input.
    """

    def __init__(self, in_channels: int, planes: int, stride: int, shortcut: ShortcutBuilder, drop_path: float) -> None:
        super().__init__(in_channels, planes, stride, shortcut, drop_path)
        self.activates_shortcut = isinstance(self.downsample, Projection)

    def forward(self, x: Tensor) -> Tensor:
        activated = self.activation(x.clone())  # the shortcut carries x
        return self.downsample(activated if self.activates_shortcut else x, self.residual(activated))


class ReLUPreActivationResNet(ResNet):
    """The trunk for ReLU-only pre-activation, by the paper's appendix.

    conv-BN before the first unit, whose own ReLU comes before the split into two paths; a ReLU after the last sum.
    """

    def __init__(self, n: int, **options: Unpack[Options]) -> None:
        super().__init__(ReLUPreActivation, (n, n, n), (16, 32, 64), cifar_stem, **options)
        first = self.units()[0]
        assert isinstance(first, ReLUPreActivation)
        first.activates_shortcut = True

    def stem(self, x: Tensor) -> Tensor:
        return self.maxpool(self.bn1(self.conv1(x)))

    def head(self, x: Tensor) -> Tensor:
        return super().head(self.activation(x))


class BNAfterReLU(Basic):
    """conv-ReLU-BN-conv-ReLU-BN, add: normalised after the activation. Its trunk is `BNAfterReLUResNet`.

    Not of the paper: figure 4c with each BN-ReLU turned round, so that what is added has a mean of zero.
    """

    def residual(self, x: Tensor) -> Tensor:
        x = self.bn1(self.activation(self.conv1(x)))
        x = self.bn2(self.activation(self.conv2(x)))
        return self.drop_path(x)

    def forward(self, x: Tensor) -> Tensor:
        return self.downsample(x, self.residual(x))


class BNAfterReLUResNet(ResNet):
    """The trunk in which every convolution is followed by ReLU and then BN: conv-ReLU-BN before the first unit.

    Nothing comes after the last sum.
    """

    def __init__(self, n: int, **options: Unpack[Options]) -> None:
        super().__init__(BNAfterReLU, (n, n, n), (16, 32, 64), cifar_stem, **options)

    def stem(self, x: Tensor) -> Tensor:
        return self.maxpool(self.bn1(self.activation(self.conv1(x))))


# CIFAR: 6n+2 layers as in He et al. 2015, section 4.2, with its identity shortcuts. n = 18: table 2.


def bn_after_addition(n: int, **options: Unpack[Options]) -> ResNet:
    """Figure 4b; n = 18: 8.17 % error on CIFAR-10."""
    return ResNet(BNAfterAddition, (n, n, n), (16, 32, 64), cifar_stem, **_identity(options))


def relu_before_addition(n: int, **options: Unpack[Options]) -> ResNet:
    """Figure 4c; n = 18: 7.84 % error on CIFAR-10."""
    return ResNet(ReLUBeforeAddition, (n, n, n), (16, 32, 64), cifar_stem, **_identity(options))


def relu_preact(n: int, **options: Unpack[Options]) -> ResNet:
    """Figure 4d; n = 18: 6.71 % error on CIFAR-10."""
    return ReLUPreActivationResNet(n, **_identity(options))


def bn_after_relu(n: int, **options: Unpack[Options]) -> ResNet:
    """Every convolution followed by ReLU, then BN."""
    return BNAfterReLUResNet(n, **_identity(options))


def _identity(options: Options) -> Options:
    options.setdefault("shortcut", option_a)
    return options
