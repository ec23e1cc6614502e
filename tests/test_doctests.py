"""The examples in the docstrings of the packages that need neither Ultralytics nor data."""

from __future__ import annotations

import doctest
import pkgutil
from importlib import import_module

import pytest

PACKAGES = ["core", "config", "utils", "report"]
TRITON = "ds2d2_yolo.core.haar.kernel"  # the one module that imports Triton, which not every platform has


def modules_with_examples() -> list[str]:
    """Names of the modules whose docstrings hold examples."""
    names = []
    for package in (import_module(f"ds2d2_yolo.{name}") for name in PACKAGES):
        modules = pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
        names += [package.__name__, *(module.name for module in modules if module.name != TRITON)]
    finder = doctest.DocTestFinder(exclude_empty=True)
    return [name for name in names if any(test.examples for test in finder.find(import_module(name)))]


@pytest.mark.parametrize("name", modules_with_examples())
def test_examples_hold(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    result = doctest.testmod(import_module(name), optionflags=doctest.ELLIPSIS)
    assert not result.failed, capsys.readouterr().out


def test_the_core_has_examples() -> None:
    assert {"ds2d2_yolo.core", "ds2d2_yolo.core.disw", "ds2d2_yolo.core.wavelet"} <= set(modules_with_examples())
