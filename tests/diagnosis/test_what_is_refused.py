"""What `diagnose` cannot judge is refused in one line that says what to give, and what it can is taken as it comes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from residuum import diagnose
from residuum.errors import UserError


def images(count: int = 8) -> Tensor:
    return torch.randn(count, 6, generator=torch.Generator().manual_seed(0))


def network(outputs: int = 5) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 16), nn.ReLU(), nn.Linear(16, outputs))


def refusal(*arguments: object, **named: object) -> str:
    with pytest.raises(UserError) as caught:
        diagnose(*arguments, **named)
    assert "\n" not in str(caught.value)
    return str(caught.value)


WHOLE = torch.arange(8) % 5


@pytest.mark.parametrize(
    ("labels", "outputs", "said"),
    [
        (WHOLE, 1, "loss=F.mse_loss"),
        (WHOLE.float(), 5, "loss=F.mse_loss"),
        (WHOLE[:, None], 5, "whole numbers"),
        (WHOLE.bool(), 5, "whole numbers"),
        (F.one_hot(WHOLE).float(), 5, "loss=F.mse_loss"),
        (WHOLE[:7], 5, "7 labels for 8 outputs"),
        (WHOLE, 4, "from 0 to 4 for 4 outputs; give numbers from 0 to 3"),
        (WHOLE - 1, 5, "from -1 to 3"),
        (WHOLE.tolist(), 5, "labels of list; give a tensor"),
    ],
)
def test_labels_that_do_not_fit_are_refused(labels: Tensor, outputs: int, said: str) -> None:
    assert said in refusal(network(outputs), images(), labels=labels)
    assert said in refusal(network(outputs), (images(), labels))


@pytest.mark.parametrize("kind", [torch.int32, torch.uint8, torch.int16])
def test_whole_numbers_of_any_size_are_labels(kind: torch.dtype) -> None:
    found = diagnose(network(), images(), labels=WHOLE.to(kind))
    assert found.probe.loss == diagnose(network(), images(), labels=WHOLE).probe.loss


def test_a_pair_may_be_a_list_as_a_data_loader_gives_it() -> None:
    (batch,) = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(images(), WHOLE), batch_size=8)
    assert isinstance(batch, list)
    assert repr(diagnose(network(), batch)) == repr(diagnose(network(), (images(), WHOLE)))


def test_more_than_a_pair_and_labels_twice_are_refused() -> None:
    assert "3 parts" in refusal(network(), (images(), images(), WHOLE))
    assert "0 parts" in refusal(network(), [])
    assert "give one of them" in refusal(network(), (images(), WHOLE), labels=WHOLE)


@pytest.mark.parametrize("rate", [-0.1, math.nan, math.inf])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    assert "learning rate" in refusal(network(), images(), lr=rate)


def test_a_batch_of_equal_images_is_not_held_against_the_network() -> None:
    said = refusal(nn.Conv2d(3, 8, 3), torch.ones(4, 3, 32, 32))
    assert said.endswith(
        "all images of the batch are the same; give different ones, such as torch.randn(32, 3, 32, 32)"
    )


def test_a_single_image_is_told_as_such_and_not_as_equal() -> None:
    assert "at least 2 images" in refusal(network(), images(1))


@pytest.mark.filterwarnings("ignore")
def test_torchscript_is_refused_and_no_hook_is_left() -> None:
    whole = torch.jit.trace(network(), images())
    assert "the network is TorchScript" in refusal(whole, images())
    outer = nn.Sequential(nn.Linear(6, 6), whole)
    assert "its part 1 is TorchScript" in refusal(outer, images())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in (outer, outer[0]))


def test_a_network_in_which_no_layer_is_seen_is_not_called_healthy() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.parts = nn.ParameterDict({"weight": torch.randn(5, 6)})

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.get_parameter("parts.weight"))

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.activation, self.bias = nn.ReLU(), nn.Parameter(torch.zeros(6))

        def forward(self, x: Tensor) -> Tensor:
            return self.activation(x + self.bias)

    assert "no layer was seen" in refusal(Functional(), images())
    assert "no layer was seen" in refusal(Outer(), images())


def test_a_network_without_values_is_refused() -> None:
    assert "meta device" in refusal(network().to("meta"), images())


def test_one_number_for_all_images_is_refused() -> None:
    class Scalar(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = network()

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x).mean()

    assert "one number for all images" in refusal(Scalar(), images())


@pytest.mark.parametrize("kind", [torch.bfloat16, torch.float16, torch.float64])
def test_images_are_taken_in_the_precision_of_the_network(kind: torch.dtype) -> None:
    assert diagnose(network().to(kind), images()).verdict == "healthy"
    assert diagnose(network(), images().to(kind)).verdict == "healthy"
