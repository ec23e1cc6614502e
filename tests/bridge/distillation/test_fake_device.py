"""The step of a distillation on CUDA, checked without a CUDA device.

Forward: `FakeTensorMode` runs `model(batch)` with student, teacher, amplifier, adapters, weight maps, all terms, gains
and Ultralytics' criterion with its assigner on `cuda`. A mix of devices raises, and so does every operation of the
package that makes the host wait (`WaitDetector`). Backward: autograd cannot run on `cuda` without a device. The same
step, with the measured gradients and the backward pass, therefore runs on `meta` tensors, where the package takes the
path of devices other than the CPU.

Not covered: values on a device, waits inside kernels, float16 and bfloat16 on CUDA (autocast for CUDA is off without a
device), loss scaling, the optimizer step (`FiniteSteps` reads one flag of the gradients if no scaler does), several
devices.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch._subclasses.fake_tensor import FakeTensorMode

from ds2d2_yolo.bridge.distillation.distiller import Distiller
from ds2d2_yolo.config.recipes import load_recipe, recipe_names
from ds2d2_yolo.config.settings import TERMS
from tests.helpers.fake_device import DeviceWaitError, WaitDetector, build_step, place_step
from tests.helpers.terms import ACTIVE

# Ultralytics' criterion (8.4.190): it belongs to the plain student's step too
UPSTREAM = {
    "loss.py:loss": "drops tiny oriented boxes, asks for positives, sizes from the host",
    "loss.py:get_assigned_targets_and_loss": "sizes from the host",
    "loss.py:preprocess": "pads to the largest number of objects in an image",
    "loss.py:forward": "takes the positives",
    "loss.py:calculate_angle_loss": "takes the positives",
    "tal.py:make_anchors": "axes of the grid from the host, strides read",
    "tal.py:get_box_metrics": "pairs of objects and anchors inside them",
    "tal.py:select_candidates_in_gts": "a stride from the host",
}
MEASURED = {"norms.py:measure_gradients": "its norms become gains on the host, in a few batches of an epoch"}

DETECT, OBB = ("yolov8n.yaml", "yolov8s.yaml"), ("yolov8n-obb.yaml", "yolov8s-obb.yaml")
END_TO_END = [("yolo26n-obb.yaml", "yolo11s-obb.yaml"), ("yolov10n.yaml", "yolov8s.yaml")]
SETTINGS: dict[str, dict[str, Any]] = {
    "maps": {"weight_map": "both", "feature_norm": "standard", "disw": 0.5},
    "wavelet": {"wavelet": "db2", "feature_norm": "standard", "weight_map": "score"},
    "adapters": {"adapter_init": "ridge", "levels": [8, 16]},
    "no wavelet terms": {"explicit": False},
    "classes": {"columns": [1, 2]},
}  # fmt: skip
Checkpoint = Callable[..., Path]


@contextmanager
def without_values() -> Iterator[None]:
    """Tensors of any device, without values."""
    with FakeTensorMode(allow_non_fake_inputs=True):
        yield


def run_forward(pair: tuple[str, str], checkpoint: Checkpoint, **settings: Any) -> tuple[Tensor, dict[str, Tensor]]:
    """The loss vector of a step on `cuda` and its logged parts; raises where devices mix or the host waits."""
    names = ("blue", "green", "red") if "columns" in settings else ("red", "green")
    model, criterion = build_step(pair[0], checkpoint(pair[1], names=names), **settings)
    with without_values():
        batch = place_step("cuda", model, criterion)
        with WaitDetector(UPSTREAM):
            loss, items = model(batch)
            loss.sum()
    return loss, items


def check_outputs(loss: Tensor, items: dict[str, Tensor]) -> None:
    """All parts of the loss are float32 on the device, those of the terms among them."""
    assert loss.device.type == "cuda"
    assert loss.dtype == torch.float32
    assert {x.device for x in items.values()} == {loss.device}
    assert {f"{term}_loss" for term in ACTIVE} <= set(items)


@pytest.mark.parametrize("pair", [DETECT, OBB, *END_TO_END], ids=lambda pair: pair[0])
def test_forward(pair: tuple[str, str], checkpoint: Checkpoint) -> None:
    check_outputs(*run_forward(pair, checkpoint))


@pytest.mark.parametrize("name", SETTINGS)
def test_forward_with(name: str, checkpoint: Checkpoint) -> None:
    check_outputs(*run_forward(OBB, checkpoint, **SETTINGS[name]))


@pytest.mark.parametrize("recipe", [name for name in recipe_names() if load_recipe(name).keys() - set(TERMS)])
def test_forward_with_recipe(recipe: str, checkpoint: Checkpoint) -> None:
    check_outputs(*run_forward(DETECT, checkpoint, **load_recipe(recipe)))


class MetaAutocast(torch.autocast):
    """Autocast that takes `meta` for a CPU, since torch has no autocast for it."""

    def __init__(self, device_type: str, *args: Any, **kwargs: Any) -> None:
        super().__init__("cpu" if device_type == "meta" else device_type, *args, **kwargs)


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:Error detected in")
@pytest.mark.parametrize(
    ("pair", "settings"),
    [(DETECT, {}), (OBB, {}), (END_TO_END[0], {}), *((OBB, SETTINGS[k]) for k in ("maps", "wavelet", "adapters"))],
    ids=["detect", "obb", "end-to-end", "maps", "wavelet", "adapters"],
)
def test_backward(
    pair: tuple[str, str], settings: dict[str, Any], checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", MetaAutocast)
    model, criterion = build_step(pair[0], checkpoint(pair[1]), measured=True, **settings)
    batch = place_step("meta", model, criterion)
    with WaitDetector(UPSTREAM, MEASURED), torch.autograd.set_detect_anomaly(True, check_nan=False):
        model(batch)[0].sum().backward()
    assert {"exlo", "imfu"} <= set(criterion.gains.measured[0])
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            assert parameter.grad is not None, name
            assert parameter.grad.device.type == "meta", name


def test_measured_step_waits_where_it_is_named_only(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "autocast", MetaAutocast)
    model, criterion = build_step(OBB[0], checkpoint(OBB[1]), measured=True)
    batch = place_step("meta", model, criterion)
    with WaitDetector(UPSTREAM), pytest.raises(DeviceWaitError, match=r" in measure_gradients"):
        model(batch)


# The detector itself ----------------------------------------------------------------------------------------------
def use_wait(x: Tensor, how: str) -> object:
    """Make the host wait for a device in one of the ways in which code does."""
    positive = x > 0
    ways: dict[str, Callable[[], object]] = {
        "item": lambda: x.sum().item(),
        "tolist": lambda: x.tolist(),
        "float": lambda: float(x.sum()),
        "bool": lambda: bool(positive.any()),
        "if": lambda: 1 if positive.all() else 0,
        "cpu": lambda: x.cpu(),
        "asynchronous cpu": lambda: x.to("cpu", non_blocking=True),
        "copy_": lambda: torch.empty(2, 3).copy_(x),
        "mask": lambda: x[positive],
        "write through a mask": lambda: x.index_put((positive,), x.new_ones(())),
        "masked_select": lambda: x.masked_select(positive),
        "nonzero": lambda: x.nonzero(),
        "where": lambda: torch.where(positive),
        "unique": lambda: x.unique(),
        "equal": lambda: torch.equal(x, x),
        "repeat_interleave": lambda: x.repeat_interleave(x.long()[:, 0], 0),
        "full": lambda: torch.full((2,), x.sum()),
        "tensor": lambda: torch.tensor([1.0, 2.0], device=x.device),
        "new_tensor": lambda: x.new_tensor([1.0, 2.0]),
        "to": lambda: torch.ones(2, 3).to(x.device),
        "list": lambda: x[:, [0, 2]],
    }
    return ways[how]()


@pytest.mark.parametrize(
    "how",
    ["item", "tolist", "float", "bool", "if", "cpu", "asynchronous cpu", "copy_", "mask", "write through a mask",
     "masked_select", "nonzero", "where", "unique", "equal", "repeat_interleave", "full", "tensor", "new_tensor", "to",
     "list"],
)  # fmt: skip
def test_finds_each_way_of_waiting(how: str) -> None:
    with without_values():
        x = torch.empty(2, 3, device="cuda")
        with WaitDetector(), pytest.raises(DeviceWaitError, match=r"distillation/test_fake_device\.py:\d+ in "):
            use_wait(x, how)


def test_lets_pass_what_does_not_wait() -> None:
    with without_values():
        x, on_host = torch.empty(2, 3, device="cuda"), torch.ones(2, 3)
        with WaitDetector():
            torch.where(x > 0, x, 0.0).sum()
            x.masked_fill(x > 0, 1.0)
            x[:, torch.arange(2, device=x.device)].repeat_interleave(2, 0, output_size=4)
            on_host.to("cuda", non_blocking=True).add_(x)
            x * torch.tensor(2.0)  # a scalar of the host is an argument of the kernel


def test_finds_numpy() -> None:
    with without_values():
        x = torch.empty(2, device="cuda")
        with WaitDetector(), pytest.raises(RuntimeError, match="numpy"):
            x.numpy()


def plant(monkeypatch: pytest.MonkeyPatch, method: str, fault: Callable[[Tensor], Tensor]) -> None:
    """Let a method of the distiller that returns terms return the first one with a fault."""
    original = getattr(Distiller, method)

    def faulty(self: Distiller, *args: Any) -> dict[str, Tensor]:
        terms = original(self, *args)
        first = next(iter(terms))
        return {**terms, first: fault(terms[first])}

    monkeypatch.setattr(Distiller, method, faulty)


FAULTS: dict[str, Callable[[Tensor], Tensor]] = {
    "item": lambda term: term * term.item(),
    "cpu": lambda term: term.cpu(),
    "if": lambda term: term if term > 0 else 0 * term,
    "mask": lambda term: term[None][term[None] > 0].sum(),
}


@pytest.mark.parametrize(
    ("fault", "method"),
    [("item", "_explicit_level"), ("cpu", "_explicit_level"), ("if", "_implicit"), ("mask", "_implicit")],
)
def test_step_fails_with_a_planted_wait(
    fault: str, method: str, checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(monkeypatch, method, FAULTS[fault])
    with pytest.raises(DeviceWaitError, match=r"waits for the device: distillation/test_fake_device\.py"):
        run_forward(OBB, checkpoint)


def test_step_fails_with_a_planted_mix_of_devices(checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch) -> None:
    plant(monkeypatch, "_implicit", lambda term: (term + torch.zeros(2)).sum())
    with pytest.raises(RuntimeError, match="same device"):
        run_forward(OBB, checkpoint)


@pytest.mark.filterwarnings("ignore:Anomaly Detection", "ignore:Error detected in")
def test_step_fails_with_a_wait_in_the_backward_pass_only(
    checkpoint: Checkpoint, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch, "autocast", MetaAutocast)

    def fault(term: Tensor) -> Tensor:
        term.register_hook(lambda gradient: gradient * float(gradient))  # type: ignore[no-untyped-call]
        return term

    plant(monkeypatch, "_explicit_level", fault)
    model, criterion = build_step(OBB[0], checkpoint(OBB[1]))
    batch = place_step("meta", model, criterion)
    with WaitDetector(UPSTREAM), torch.autograd.set_detect_anomaly(True, check_nan=False):
        loss = model(batch)[0].sum()
        with pytest.raises(DeviceWaitError, match=r"waits for the device: distillation/test_fake_device\.py"):
            loss.backward()
