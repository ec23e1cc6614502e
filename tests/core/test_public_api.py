"""The public names of the core, and that each is documented with an example."""

from __future__ import annotations

import doctest

import pytest

from ds2d2_yolo import core


def test_public_names() -> None:
    assert core.__all__ == [
        "disw_map",
        "dwt2",
        "explicit_loss",
        "giou",
        "high_frequency",
        "implicit_box_loss",
        "implicit_class_loss",
        "probiou",
        "quality_focal_kd",
        "region_box_loss",
        "region_class_loss",
        "score_map",
        "softmax_kd",
    ]
    assert all(callable(getattr(core, name)) for name in core.__all__)


@pytest.mark.parametrize("name", core.__all__)
def test_each_function_has_arguments_result_errors_and_an_example(name: str) -> None:
    text = getattr(core, name).__doc__
    assert all(f"\n    {section}:\n" in text for section in ("Args", "Returns", "Raises", "Examples"))
    assert doctest.DocTestParser().get_examples(text)
