"""The Haar energies as Triton kernels: by the interpreter on a CPU, on a GPU with `--device=cuda`."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from ds2d2_yolo.core.haar.energy import HaarEnergy
from ds2d2_yolo.core.haar.fused import FusedHaarEnergy, can_fuse, haar_energy, haar_gradient
from ds2d2_yolo.core.losses.explicit import explicit_loss
from ds2d2_yolo.core.wavelet import dwt2
from tests.helpers.core_inputs import feature_inputs, wide_values
from tests.helpers.haar import assert_second_backward_is_independent, haar_inputs
from tests.helpers.loss_tests import assert_half_is_exact

# Odd and even sides, more channels than a tile has, more cells than a tile has.
SHAPES = [(2, 19, 7, 9), (1, 3, 1, 4), (2, 4, 5, 1), (1, 2, 18, 22), (3, 6, 8, 10)]
Layout = Callable[[Tensor], Tensor]
LAYOUTS: dict[str, Layout] = {
    "channels first": lambda x: x.contiguous(),
    "channels last": lambda x: x.contiguous(memory_format=torch.channels_last),
    "part of a larger map": lambda x: torch.nn.functional.pad(x, (1, 2, 3, 1))[:, :, 3:-1, 1:-2],
}


@pytest.fixture(autouse=True)
def _kernels_run(request: pytest.FixtureRequest) -> None:
    """Skip tests that launch a kernel where none can run."""
    if find_spec("triton") is None:
        pytest.skip("Triton is not installed")
    if "device" in request.fixturenames and not can_fuse(
        *[torch.ones(1, device=request.getfixturevalue("device"))] * 3
    ):
        pytest.skip("tests on a CPU need TRITON_INTERPRET=1, which is not set where there is a GPU")


class Fused(TorchDispatchMode):
    """Names of the fused kernels that are launched."""

    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        if function.namespace == "ds2d2":
            self.names.append(function._schema.name)
        return function(*args, **(kwargs or {}))


def single_inputs(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, ...]:
    """Inputs of the energies in float32."""
    return tuple(x.to(device, torch.float32) for x in haar_inputs(shape))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    ("of_student", "of_teacher"),
    [("channels last", "channels first"), ("channels first", "channels last"), ("part of a larger map",) * 2],
)
def test_energies_and_gradient_are_those_of_the_transform(shape, of_student, of_teacher, device) -> None:
    student, teacher, weight = single_inputs(shape, device)
    student, teacher = LAYOUTS[of_student](student), LAYOUTS[of_teacher](teacher)
    exact = student.double().requires_grad_()
    low, high = dwt2(exact - teacher.double())
    expected = (weight * low.square()).mean(), (weight.unsqueeze(2) * high.square()).mean()
    (expected_gradient,) = torch.autograd.grad(0.7 * expected[0] + 0.2 * expected[1], exact)
    values = FusedHaarEnergy.apply(student.requires_grad_(), teacher, weight)
    (gradient,) = torch.autograd.grad(0.7 * values[0] + 0.2 * values[1], student)
    torch.testing.assert_close([x.double() for x in values], list(expected), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(gradient.double(), expected_gradient, rtol=1e-5, atol=1e-7)
    assert gradient.stride() == torch.empty_like(student).stride()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_exact(dtype: torch.dtype, device: torch.device) -> None:
    if dtype == torch.bfloat16 and device.type == "cpu":
        pytest.skip("Triton's interpreter truncates bfloat16 where a GPU rounds")
    shape = (2, 5, 7, 9)
    weight = feature_inputs(shape, torch.float32)[2].to(device)

    def term(student: Tensor, teacher: Tensor) -> Tensor:
        low, high = explicit_loss(student, teacher, weight, fused=True)
        return low + 2 * high

    for offset in (0, 100):
        inputs = (wide_values(shape, offset, dtype, seed).to(device) for seed in (2, 3))
        assert_half_is_exact(term, *inputs)


@pytest.mark.parametrize("norm", ["none", "standard"])
def test_explicit_loss_launches_each_kernel_once_and_equals_the_operators(norm: str, device: torch.device) -> None:
    student, teacher, weight = (x.to(device, torch.float32) for x in feature_inputs((2, 5, 7, 9)))
    student.requires_grad_()
    results, launched = [], []
    for fused in (False, True):
        with Fused() as kernels:
            low, high = explicit_loss(student, teacher, weight, norm=norm, fused=fused)
            results.append((low, high, torch.autograd.grad(low + 2 * high, student)[0]))
        launched.append(kernels.names)
    assert launched == [[], ["ds2d2::haar_energy", "ds2d2::haar_gradient"]]
    torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-7)


def test_identical_inputs_give_exactly_zero(device: torch.device) -> None:
    student, _, weight = (x.to(device, torch.float32) for x in feature_inputs((2, 5, 7, 9)))
    low, high = explicit_loss(student.requires_grad_(), student.detach().clone(), weight, fused=True)
    assert (low.item(), high.item()) == (0, 0)
    assert not torch.autograd.grad(low + high, student)[0].any()


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_a_value_that_is_not_finite_spoils_its_block_only(value: float, device: torch.device) -> None:
    student, teacher, weight = single_inputs((2, 3, 6, 8), device)
    student[1, 2, 3, 4] = value
    low, high = FusedHaarEnergy.apply(student.requires_grad_(), teacher, weight)
    assert not torch.stack((low, high)).isfinite().any()
    wrong = ~torch.autograd.grad(low + high, student)[0].isfinite()
    assert wrong[1, 2, 2:4, 4:6].all()
    assert wrong.sum() == 4


def test_operators_keep_what_they_declare(device: torch.device) -> None:
    inputs = single_inputs((2, 19, 7, 9), device)
    one = torch.ones((), device=device)
    checks = ("test_schema", "test_faketensor")
    torch.library.opcheck(haar_energy, inputs, test_utils=checks)
    torch.library.opcheck(haar_gradient, (*inputs, one, 2 * one), test_utils=checks)


def test_second_backward_leaves_the_first_gradient_unchanged(device: torch.device) -> None:
    student, teacher, weight = single_inputs((2, 4, 8, 10), device)
    low, high = FusedHaarEnergy.apply(student.requires_grad_(), teacher, weight)
    assert_second_backward_is_independent(low, high, student)


@pytest.mark.parametrize("reason", ["double", "db2", "no GPU", "no Triton"])
def test_operators_compute_what_the_kernels_do_not(reason: str, monkeypatch: pytest.MonkeyPatch) -> None:
    wavelet = "db2" if reason == "db2" else "haar"
    dtype = torch.float64 if reason == "double" else torch.float32
    student, teacher, weight = feature_inputs((2, 5, 7, 9), dtype, wavelet)
    if reason == "no GPU":
        monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    if reason == "no Triton":
        monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    student.requires_grad_()
    results = []
    with Fused() as kernels:
        for fused in (False, True):
            low, high = explicit_loss(student, teacher, weight, wavelet, fused=fused)
            results.append((low, high, torch.autograd.grad(low + 2 * high, student)[0]))
    assert not kernels.names
    assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))


def test_off_is_the_default() -> None:
    student, teacher, weight = feature_inputs((2, 5, 7, 9), torch.float32)
    with Fused() as kernels:
        result = explicit_loss(student, teacher, weight)
    assert not kernels.names
    assert all(torch.equal(a, b) for a, b in zip(result, HaarEnergy.apply(student, teacher, weight), strict=True))


@pytest.mark.slow
def test_kernels_compile_for_gpus_that_are_not_there() -> None:
    env = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "tests.helpers.compile_kernels"]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert len(lines) == 2 * 3 * 2
    assert all(line.endswith("True") for line in lines)
