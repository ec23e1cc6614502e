"""Formulae of the documentation site as MathML, which browsers draw without scripts, fonts or a network.

zensical.toml names `math_block` as the format of fenced blocks with the language `math`, which GitHub also draws.
"""

from __future__ import annotations

from typing import Any

from latex2mathml.converter import convert


def math_block(source: str, *_: Any, **__: Any) -> str:
    """Return the formula of a fenced block as HTML (a format of `pymdownx.superfences`).

    Args:
        source (str): LaTeX.
        *_ (Any): Language, class, options and the Markdown instance, which the formula does not depend on.
        **__ (Any): Further arguments of a format.

    Returns:
        (str): MathML in a block that scrolls sideways on narrow screens.
    """
    return f'<div class="formula">{convert(source, display="block")}</div>'
