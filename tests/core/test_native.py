"""The Haar energies in C: right, built once, and never in the way where they cannot be had."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest
import torch
from torch import Tensor

from ds2d2_yolo.core import native
from ds2d2_yolo.core.wavelet import dwt2


@pytest.fixture
def built() -> native.Haar:
    found = native.haar()
    if found is None:
        pytest.skip("no C compiler")
    return found


@pytest.fixture
def fresh(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine on which nothing was built yet."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv(native.SWITCH, raising=False)
    return tmp_path / "ds2d2_yolo"


def example(shape: tuple[int, ...], offset: float, scaled: bool) -> tuple[Tensor, Tensor, Tensor, Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    student, teacher = offset + torch.randn(2, *shape, generator=generator)
    weight = 1 + torch.rand(shape[0], 1, shape[2] // 2, shape[3] // 2, generator=generator)
    return student, teacher, weight, 1 + torch.rand(shape[1], 1, 1, generator=generator) if scaled else None


@pytest.mark.parametrize("shape", [(3, 6, 8, 10), (2, 7, 2, 4), (1, 1, 6, 2), (2, 5, 40, 66)])
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_equals_the_transform_in_double_precision(
    built: native.Haar, shape: tuple[int, ...], scaled: bool, offset: float
) -> None:
    student, teacher, weight, scale = example(shape, offset, scaled)
    leaf = student.double().requires_grad_()
    low, high = dwt2((leaf - teacher.double()) * (1 if scale is None else scale.double()))
    energies = (weight * low.square()).sum(), (weight.unsqueeze(2) * high.square()).sum()
    (expected,) = torch.autograd.grad(0.35 * energies[0] + 0.1 * energies[1], leaf)
    torch.testing.assert_close(built.energy(student, teacher, weight, scale), energies, rtol=1e-6, atol=0)
    out = torch.full_like(student, torch.nan)
    assert built.gradient(student, teacher, weight, scale, 0.7, 0.2, out) is out
    torch.testing.assert_close(out.double(), expected, rtol=0, atol=2e-6 * float(expected.abs().max()))


def test_identical_features_give_exactly_nothing(built: native.Haar) -> None:
    student, _, weight, _ = example((2, 3, 6, 8), 100.0, False)
    assert [x.item() for x in built.energy(student, student.clone(), weight)] == [0, 0]
    out = built.gradient(student, student.clone(), weight, None, 0.7, 0.2, torch.empty_like(student))
    assert out.count_nonzero() == 0


@pytest.mark.parametrize("value", [torch.nan, torch.inf])
def test_what_is_not_finite_shows(built: native.Haar, value: float) -> None:
    student, teacher, weight, _ = example((2, 3, 6, 8), 0.0, False)
    student[1, 2, 3, 4] = value
    assert not torch.stack(built.energy(student, teacher, weight)).isfinite().any()
    wrong = ~built.gradient(student, teacher, weight, None, 0.7, 0.2, torch.empty_like(student)).isfinite()
    assert wrong[1, 2, 2:4, 4:6].all()  # its block
    assert wrong.sum() == 4


def test_equal_weights_however_they_lie(built: native.Haar) -> None:
    student, teacher, weight, _ = example((2, 3, 6, 8), 0.0, False)
    turned = weight.transpose(2, 3).contiguous().transpose(2, 3)
    assert not turned.is_contiguous()
    assert built.energy(student, teacher, turned) == built.energy(student, teacher, weight)


def test_is_built_once(fresh: Path, built: native.Haar, monkeypatch: pytest.MonkeyPatch) -> None:
    assert native.haar.__wrapped__() is not None
    (file,) = fresh.iterdir()
    before = file.stat()
    monkeypatch.setattr(native, "_compile", lambda _: pytest.fail("built twice"))
    assert native.haar.__wrapped__() is not None
    assert (file.stat().st_ino, file.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_what_a_crash_left_is_built_again(fresh: Path, built: native.Haar) -> None:
    other = "from ds2d2_yolo.core.native import haar; raise SystemExit(haar() is None)"
    for _ in range(2):
        assert subprocess.run([sys.executable, "-c", other], check=False).returncode == 0
        (file,) = fresh.iterdir()
        assert file.stat().st_size > 1000
        file.write_bytes(b"half of a library")


def test_an_older_compiler_gets_plainer_code(
    fresh: Path, built: native.Haar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / "old cc"
    old.write_text(f'#!/bin/sh\ncase "$*" in *{native.PLAIN}*) exec cc "$@";; esac\nexit 1\n', encoding="utf-8")
    old.chmod(0o755)
    monkeypatch.setenv("CC", f"'{old}'")
    assert native.haar.__wrapped__() is not None


@pytest.mark.parametrize(
    "without", ["switch", "compiler", "a compiler that fails", "a command", "a place", "a home", "an owner", "time"]
)
def test_goes_without_where_it_cannot_be_had(
    without: str, fresh: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if without == "switch":
        monkeypatch.setenv(native.SWITCH, "0")
    elif without == "compiler":
        monkeypatch.delenv("CC", raising=False)
        monkeypatch.setenv("PATH", str(tmp_path))
    elif without == "a compiler that fails":
        monkeypatch.setenv("CC", "false")
    elif without == "a command":
        monkeypatch.setenv("CC", "cc 'half of a quotation")
    elif without == "a home":
        monkeypatch.delenv("XDG_CACHE_HOME")
        monkeypatch.setattr(Path, "home", mock.Mock(side_effect=RuntimeError("Could not determine home directory.")))
    elif without == "an owner":
        mine = os.getuid()
        monkeypatch.setattr(os, "getuid", lambda: mine + 1)
    elif without == "a place":
        (tmp_path / "file").touch()
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "file"))
    else:
        monkeypatch.setattr(native, "SECONDS", 0.01)
        monkeypatch.setenv("CC", "sh -c 'sleep 5' --")
    assert native.haar.__wrapped__() is None


@pytest.mark.parametrize(
    ("right", "wrong"),
    [("ll * ll", "ll * lh"), ("0.25f", "0.5f"), ("k * k * of_high", "of_high"), ("b - mean", "a - mean")],
)
def test_wrong_code_is_not_used(
    right: str, wrong: str, fresh: Path, built: native.Haar, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = native.SOURCE.read_text(encoding="utf-8")
    assert right in text
    source = tmp_path / "haar.c"
    source.write_text(text.replace(right, wrong), encoding="utf-8")
    monkeypatch.setattr(native, "SOURCE", source)
    assert native.haar.__wrapped__() is None


def test_processes_that_begin_at_once_all_get_it(fresh: Path, built: native.Haar) -> None:
    code = "from ds2d2_yolo.core.native import haar; raise SystemExit(haar() is None)"
    running = [subprocess.Popen([sys.executable, "-c", code], env=os.environ.copy()) for _ in range(2)]
    assert [process.wait() for process in running] == [0, 0]
    assert len(list(fresh.iterdir())) == 1
