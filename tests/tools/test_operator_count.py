"""The count of an operator's kernels: bytes and operations by hand, fake tensors against real ones."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

TOOLS = Path(__file__).resolve().parents[2] / "tools"


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(TOOLS))
    import operator_count

    return operator_count


X, HALF, WEIGHT, BIAS = torch.ones(2, 3, 4, 4), torch.ones(2, 3, 4, 4).half(), torch.ones(5, 3, 1, 1), torch.ones(5)
MAP, FLOPS = 2 * 5 * 4 * 4 * 4, 2 * 2 * 5 * 3 * 4 * 4  # bytes of the convolution's output, its operations
SIZE = X.numel() * 4
OPERATORS: dict[str, tuple[Callable[[], object], list[tuple[int, int]]]] = {
    "two reads, one write": (lambda: X + X, [(3 * SIZE, 0)]),
    "cast": (lambda: HALF.float(), [(SIZE // 2 + SIZE, 0)]),
    "view": (lambda: X[:, 1:].transpose(1, 2).unsqueeze(0).expand(4, -1, -1, -1, -1), []),
    "part of a tensor": (lambda: X[:, :1].neg(), [(2 * SIZE // 3, 0)]),
    "repeated elements": (lambda: X * torch.ones(1).expand(4), [(4, 0), (2 * SIZE + 4, 0)]),
    "several results": (lambda: X.max(1), [(SIZE + 2 * 16 * (4 + 8), 0)]),
    "list of inputs": (lambda: torch.cat([X, X]), [(4 * SIZE, 0)]),
    "allocation": (lambda: (torch.empty(3), torch.empty_like(X), X.new_empty(2)), []),
    "constant of the same shape": (lambda: (torch.zeros_like(X), X.new_ones(2)), [(SIZE, 0), (8, 0)]),
    "in place": (lambda: torch.empty_like(X).mul_(2), [(2 * SIZE, 0)]),
    "overwritten": (lambda: torch.empty_like(X).copy_(X), [(2 * SIZE, 0)]),
    "into given memory": (lambda: torch.add(X, X, out=torch.empty_like(X)), [(3 * SIZE, 0)]),
    "product": (lambda: torch.ones(2, 3) @ torch.ones(3, 4), [(24, 0), (48, 0), (4 * (6 + 12 + 8), 2 * 2 * 3 * 4)]),
    "convolution": (lambda: F.conv2d(X, WEIGHT), [(SIZE + 60 + MAP, FLOPS)]),
    "convolution with bias": (lambda: F.conv2d(X, WEIGHT, BIAS), [(SIZE + 60 + MAP, FLOPS), (2 * MAP + 20, 0)]),
}


@pytest.mark.parametrize("name", OPERATORS)
def test_kernels_of_an_operator(counting: Any, name: str) -> None:
    run, expected = OPERATORS[name]
    work, _ = counting.count(run)
    assert sorted(work.kernels.elements(), key=repr) == sorted((counting.Kernel(*k) for k in expected), key=repr)


def test_each_gradient_of_a_convolution_is_a_kernel(counting: Any) -> None:
    leaves = [x.clone().requires_grad_() for x in (X, WEIGHT, BIAS)]
    y = F.conv2d(*leaves)
    work, _ = counting.count(lambda: torch.autograd.grad(y, leaves, torch.ones_like(y)))
    ones, of_product, of_bias = (MAP, 0), (MAP + 60 + SIZE, FLOPS), (MAP + 20, 0)
    assert {(k.bytes, k.flops): n for k, n in work.kernels.items()} == {ones: 1, of_product: 2, of_bias: 1}
    work, _ = counting.count(lambda: F.conv2d(X, leaves[1]).backward(torch.ones_like(y)))
    assert work.flops == 2 * FLOPS, "no gradient of the input"


def make_block(device: torch.device) -> nn.Sequential:
    """A convolution, a normalisation and an activation."""
    return nn.Sequential(nn.Conv2d(3, 4, 3, device=device), nn.BatchNorm2d(4, device=device), nn.SiLU())


def gradient_of(block: nn.Sequential, x: Tensor) -> Tensor:
    """The gradient of a loss with a scalar that becomes a tensor on the device."""
    y = block(x)
    torch.where(y > 0, y, 0.0).float().square().mean().backward()
    return block[0].weight.grad


def test_fake_tensors_count_as_real_ones_and_a_gpu_need_not_be_there(counting: Any) -> None:
    block, x = make_block(torch.device("cpu")), torch.rand(2, 3, 8, 8)
    real, gradient = counting.count(lambda: gradient_of(block, x))
    assert gradient.any()
    for device in (torch.device("cpu"), counting.GPU):
        with counting.fake_tensors(device):
            inputs = make_block(device), torch.empty(2, 3, 8, 8)
            work, fake = counting.count(partial(gradient_of, *inputs))
        assert fake.device.type == device.type
        assert work.kernels == real.kernels


def test_modules_become_fake_with_what_they_share(counting: Any) -> None:
    block = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).requires_grad_(False)
    both, like = nn.ModuleList([block, nn.Sequential(block[0])]), block[0].weight
    with counting.fake_tensors(counting.GPU):
        counting.to_fake(both, counting.GPU, torch.float16)
        weight = both[1][0].weight
        assert weight is block[0].weight
        assert (weight.device.type, weight.dtype, weight.requires_grad) == ("cuda", torch.float16, False)
        assert (weight.shape, weight.stride()) == (like.shape, like.stride())
        assert block[1].num_batches_tracked.dtype == torch.int64


def test_work_adds_up_and_is_bounded_by_memory_or_operations(counting: Any) -> None:
    first, second = counting.Kernel(100, 0), counting.Kernel(10, 400)
    work = counting.Work(counting.Counter({first: 2, second: 1}))
    assert (work.bytes, work.flops, work.launches) == (210, 400, 3)
    assert (work + work - work).kernels == work.kernels
    device = counting.Device("name", bandwidth=10, half=20, single=5)
    assert work.seconds(device, half=True) == 2 * 100 / 10 + 400 / 20
    assert work.seconds(device, half=False) == 2 * 100 / 10 + 400 / 5
