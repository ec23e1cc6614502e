"""A frozen head on adapted features: the same answers and gradients, from fewer operations."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.nn.tasks import DetectionModel, OBBModel

from ds2d2_yolo.bridge.models.composed_head import AdaptedHead, composing_saves
from ds2d2_yolo.bridge.models.heads import dense_head, level_channels, raw_predictions, take_levels
from ds2d2_yolo.core.wavelet import high_frequency

HEADS = ["yolov8n", "yolov5n", "yolov6n", "yolov9t", "yolov10n", "yolo11n", "yolo26n", "yolov8n-p2", "yolov8n-p6"]
HEADS += ["yolov8n-obb", "yolo11n-obb", "yolo26n-obb"]
NARROW = 8  # channels of the student, a level


def head_of(yaml: str) -> Any:
    """A folded head in float64 whose BatchNorm layers were not those of a fresh model."""
    torch.manual_seed(0)
    model: Any = (OBBModel if "obb" in yaml else DetectionModel)(f"{yaml}.yaml", nc=3, verbose=False).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.weight, 0.5, 2)
        if isinstance(module, nn.SiLU):
            module.inplace = True  # as in a loaded checkpoint
    head = dense_head(model, "teacher")
    model.model[-1] = take_levels(head, list(range(len(head.f))))
    model.double().fuse(verbose=False)
    return model.model[-1].requires_grad_(False)


def inputs_of(head: Any, largest: int) -> tuple[list[Tensor], list[Tensor]]:
    """Student features, the finest level `largest` cells wide and less high, and the adapters' weights."""
    widths = level_channels(head)
    features = [
        torch.randn(2, NARROW, max(1, largest // 2**i - 1), max(1, largest // 2**i)) for i in range(len(widths))
    ]
    adapters = [torch.randn(width, NARROW, 1, 1) / 3 for width in widths]
    return [f.double().requires_grad_() for f in features], [a.double().requires_grad_() for a in adapters]


def adapted_by_hand(features: list[Tensor], adapters: list[Tensor]) -> list[Tensor]:
    return [F.conv2d(x, a) for x, a in zip(features, adapters, strict=True)]


def compare(head: Any, features: list[Tensor], adapters: list[Tensor], predictions: dict[str, Any]) -> None:
    """Answers and gradients are those of the head on the adapted features."""
    expected = raw_predictions(head, adapted_by_hand(features, adapters))
    assert predictions.keys() == expected.keys()
    leaves, keys = [*features, *adapters], [k for k in expected if k != "feats"]
    seeds = [torch.randn_like(expected[k]) for k in keys]
    for key in keys:
        torch.testing.assert_close(predictions[key], expected[key], rtol=1e-9, atol=1e-9)
    gradients, expected_gradients = (
        torch.autograd.grad([p[k] for k in keys], leaves, seeds) for p in (predictions, expected)
    )
    for one, other in zip(gradients, expected_gradients, strict=True):
        assert other.abs().max() > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("yaml", HEADS)
@pytest.mark.parametrize("largest", [32, 2])
def test_equals_the_head_on_adapted_features(yaml: str, largest: int) -> None:
    head = head_of(yaml)
    features, adapters = inputs_of(head, largest)
    composed = [composing_saves(x, a) for x, a in zip(features, adapters, strict=True)]
    assert composed[0] == (largest == 32), "both ways must be tried"
    compare(head, features, adapters, AdaptedHead(head)(features, adapters))
    adapted = adapted_by_hand(features, adapters)
    compare(head, features, adapters, AdaptedHead(head)(features, adapters, adapted))


def test_adapted_features_that_are_there_are_taken() -> None:
    head = head_of("yolov8n")
    features, adapters = inputs_of(head, 2)
    adapted = [torch.zeros_like(a) for a in adapted_by_hand(features, adapters)]
    predictions = AdaptedHead(head)(features, adapters, adapted)
    assert torch.equal(predictions["scores"], raw_predictions(head, adapted)["scores"])


@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2"])
@pytest.mark.parametrize("size", [(8, 8), (7, 5), (1, 3)])
def test_high_frequencies_pass_through_an_adapter(wavelet: str, size: tuple[int, int]) -> None:
    """hf(A S) = A hf(S): why the high-frequency amplifier may be given the student's own features."""
    x, adapter = torch.randn(2, NARROW, *size).double(), torch.randn(24, NARROW, 1, 1).double()
    expected = high_frequency(F.conv2d(x, adapter), wavelet)
    torch.testing.assert_close(F.conv2d(high_frequency(x, wavelet), adapter), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("cells", [1, 4, 16])
@pytest.mark.parametrize("narrow", [8, 24, 40, 80])
def test_the_cheaper_way_is_taken(cells: int, narrow: int) -> None:
    """Counted by torch: a forward and a backward pass of either way, for a kernel of 3 x 3 with 256 channels."""
    kernel = torch.randn(256, 64, 3, 3)
    x, adapter = torch.randn(2, narrow, cells, cells), torch.randn(64, narrow, 1, 1)
    x.requires_grad_(), adapter.requires_grad_()

    def counted(composed: bool) -> int:
        with FlopCounterMode(display=False) as counter:
            if composed:
                F.conv2d(x, torch.einsum("otij,ts->osij", kernel, adapter.flatten(1)), padding=1).sum().backward()
            else:
                F.conv2d(F.conv2d(x, adapter), kernel, padding=1).sum().backward()
        return counter.get_total_flops()

    # what the adapter itself takes, a few per cent, is left out of the rule
    assert composing_saves(x, adapter) == (counted(True) < 0.97 * counted(False))


def test_a_head_that_cannot_be_composed_answers_all_the_same() -> None:
    head = head_of("yolov8n")
    for branch in (*head.cv2, *head.cv3):
        branch[0].conv.groups = 2  # as if depthwise
        branch[0].conv.weight.data = branch[0].conv.weight.data[:, ::2].contiguous()
    features, adapters = inputs_of(head, 32)
    compare(head, features, adapters, AdaptedHead(head)(features, adapters))
