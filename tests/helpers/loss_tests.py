"""What every loss must satisfy: a subclass of `LossTests` names the loss and its inputs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor

Terms = tuple[Tensor, ...]


class LossTests(ABC):
    """Tests of a loss of a student's tensor against a teacher's; each runs for every case.

    Attributes:
        cases: Names of the variants of the loss, with the arguments that `teacher_tensor` and `terms` get.
        errors: Regular expressions of messages, with the calls that raise them as ValueError.
        identity_gradient: Largest gradient on identical inputs. An overlap of boxes sums terms that cancel: rounding
            leaves what no training can notice.
    """

    cases: ClassVar[dict[str, dict[str, Any]]] = {"": {}}
    errors: ClassVar[dict[str, Callable[[], object]]] = {}
    identity_gradient: ClassVar[float] = 0.0

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        """Run a test for each case, or for each error."""
        if "case" in metafunc.fixturenames:
            metafunc.parametrize("case", list(self.cases.values()), ids=list(self.cases))
        if "message" in metafunc.fixturenames:
            metafunc.parametrize(("message", "call"), list(self.errors.items()))

    @abstractmethod
    def teacher_tensor(self, dtype: torch.dtype, device: torch.device | str = "cpu", **case: Any) -> Tensor:
        """A tensor of the teacher that the loss compares."""

    @abstractmethod
    def terms(self, student: Tensor, teacher: Tensor, **case: Any) -> Terms:
        """The scalars of the loss."""

    def other_layout(self, x: Tensor) -> Tensor:
        """The same values with other strides."""
        return x.transpose(0, -1).contiguous().transpose(0, -1)

    def empty(self, x: Tensor) -> Tensor:
        """A batch without elements."""
        return x[:0]

    def pair(self, dtype: torch.dtype, device: torch.device | str = "cpu", **case: Any) -> tuple[Tensor, Tensor]:
        """A student's tensor that requires a gradient, and a different one of the teacher."""
        teacher = self.teacher_tensor(dtype, device, **case)
        return (teacher * 1.1 + 0.1).detach().requires_grad_(), teacher

    def gradcheck_pair(self, **case: Any) -> tuple[Tensor, Tensor]:
        """A pair in double precision, small: its gradient is computed element by element."""
        return self.pair(torch.float64, **case)

    def test_smoke(self, case: dict[str, Any], device: torch.device, dtype: torch.dtype) -> None:
        student, teacher = self.pair(dtype, device, **case)
        for term in self.terms(student, teacher, **case):
            assert term.shape == ()
            assert term.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            assert term.device.type == device.type
            (gradient,) = torch.autograd.grad(term, student, retain_graph=True)
            assert gradient.dtype == dtype
            assert torch.isfinite(term)
            assert torch.isfinite(gradient).all()

    def test_errors(self, message: str, call: Callable[[], object]) -> None:
        with pytest.raises(ValueError, match=message):
            call()

    def test_gradcheck(self, case: dict[str, Any]) -> None:
        student, teacher = self.gradcheck_pair(**case)
        assert torch.autograd.gradcheck(lambda x: self.terms(x, teacher, **case), student)

    def test_gradient_reaches_the_student_and_stops_at_the_teacher(self, case: dict[str, Any]) -> None:
        student, teacher = self.pair(torch.float32, **case)
        teacher.requires_grad_()
        for term in self.terms(student, teacher, **case):
            gradient, of_teacher = torch.autograd.grad(term, (student, teacher), retain_graph=True, allow_unused=True)
            assert term > 0
            assert gradient.abs().max() > 0
            assert of_teacher is None

    @pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
    def test_identical_inputs_give_exactly_zero(self, case: dict[str, Any], dtype: torch.dtype) -> None:
        student = self.teacher_tensor(torch.float32, **case).to(dtype).requires_grad_()
        for term in self.terms(student, student.detach().clone(), **case):
            assert term.item() == 0
            (gradient,) = torch.autograd.grad(term, student, retain_graph=True)
            assert gradient.dtype == dtype
            assert gradient.abs().max().item() <= self.identity_gradient

    def test_autocast_changes_nothing(self, case: dict[str, Any], device: torch.device) -> None:
        results = []
        for enabled in (False, True):
            student, teacher = self.pair(torch.float32, device, **case)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=enabled):
                terms = self.terms(student, teacher, **case)
                results.append((*terms, *torch.autograd.grad(sum(terms), student)))
        assert all(torch.equal(a, b) for a, b in zip(*results, strict=True))

    def test_memory_layout_changes_nothing_but_rounding(self, case: dict[str, Any], device: torch.device) -> None:
        student, teacher = self.pair(torch.float64, device, **case)
        expected = self.terms(student, teacher, **case)
        (gradient,) = torch.autograd.grad(sum(expected), student)
        other = self.other_layout(student.detach()).requires_grad_()
        assert other.stride() != student.stride()
        terms = self.terms(other, teacher, **case)
        torch.testing.assert_close(terms, expected, rtol=1e-12, atol=0)
        torch.testing.assert_close(torch.autograd.grad(sum(terms), other)[0], gradient, rtol=1e-12, atol=1e-15)

    def test_device_changes_nothing_but_rounding(self, case: dict[str, Any], device: torch.device) -> None:
        results = []
        for place in (device, torch.device("cpu")):
            student, teacher = self.pair(torch.float32, **case)
            student = student.detach().to(place).requires_grad_()
            terms = self.terms(student, teacher.to(place), **case)
            results.append([x.cpu() for x in (*terms, *torch.autograd.grad(sum(terms), student))])
        torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-6)

    def test_compiles_to_one_graph(self, case: dict[str, Any], device: torch.device) -> None:
        student, teacher = self.pair(torch.float32, device, **case)
        torch.compiler.reset()
        results = []
        for function in (self.terms, torch.compile(self.terms, fullgraph=True, backend="aot_eager")):
            terms = function(student, teacher, **case)
            results.append((*terms, *torch.autograd.grad(terms[0] + 2 * terms[-1], student)))
        torch.testing.assert_close(results[0], results[1], rtol=1e-5, atol=1e-6)

    def test_empty_batch_gives_zero(self, case: dict[str, Any], device: torch.device) -> None:
        student, teacher = self.pair(torch.float32, device, **case)
        empty = self.empty(student.detach()).requires_grad_()
        for term in self.terms(empty, self.empty(teacher), **case):
            assert term.item() == 0
            assert torch.autograd.grad(term, empty)[0].shape == empty.shape


def assert_half_is_exact(term: Callable[[Tensor, Tensor], Tensor], student: Tensor, teacher: Tensor) -> None:
    """Value within 1e-3 of float64 on the same inputs; gradient too, before it is rounded to half precision."""
    exact_input = student.double().requires_grad_()
    exact = term(exact_input, teacher.double())
    (exact_gradient,) = torch.autograd.grad(exact, exact_input)
    half_input = student.clone().requires_grad_()
    value = term(half_input, teacher)
    (gradient,) = torch.autograd.grad(value, half_input)
    assert value.dtype == torch.float32
    assert gradient.dtype == student.dtype
    assert value.item() == pytest.approx(exact.item(), rel=1e-3)
    assert torch.isfinite(gradient).all()
    rounding = torch.finfo(student.dtype).eps / 2 * exact_gradient.abs()
    error = (gradient.double() - exact_gradient).abs() - rounding
    assert error.max() <= 1e-3 * exact_gradient.abs().max()
    # In single precision, where nothing is rounded away, the bound holds without that allowance.
    single_input = student.float().requires_grad_()
    (gradient,) = torch.autograd.grad(term(single_input, teacher), single_input)
    assert (gradient.double() - exact_gradient).abs().max() <= 1e-3 * exact_gradient.abs().max()
