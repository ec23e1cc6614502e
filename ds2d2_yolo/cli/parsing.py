"""From what was typed to settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ds2d2_yolo.errors import BadUseError

# names that must not become numbers; any of them may look like one
TEXT = {
    "teacher", "student", "model", "data", "name", "project", "recipe", "amplifier", "source", "out", "check_images",
    "results", "save_dir",
}  # fmt: skip
FLAGS = ("resume", "overwrite")  # words that may stand alone: 'resume' is resume=True


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Turn `key=value` arguments into settings, typed as Ultralytics types them.

    Args:
        arguments (Sequence[str]): Arguments after the mode; 'resume' alone means resume=True.

    Returns:
        (dict[str, Any]): Settings.

    Raises:
        BadUseError: If an argument is no key=value, or a key comes twice.

    Examples:
        >>> parse(["epochs=3", "levels=[8,16]", "formats=[onnx,engine]"])
        {'epochs': 3, 'levels': [8, 16], 'formats': ['onnx', 'engine']}
    """
    from ds2d2_yolo.bridge.upstream.arguments import merge_equals_args

    settings: dict[str, Any] = {}
    wrong: list[str] = []
    try:
        merged = merge_equals_args(list(arguments))
    except SyntaxError as e:
        raise BadUseError(str(e).splitlines()[0]) from e
    except IndexError as e:  # of '[ =' (8.4.190)
        raise BadUseError(f"'{' '.join(arguments)}' is no key=value") from e
    for argument in merged:
        key, equals, text = argument.lstrip("-").partition("=")
        if key in settings:
            wrong.append(f"'{key}' is given twice")
        elif equals and key and text:
            settings[key] = _text(key, text) if key in TEXT and text.lower() != "none" else _typed(text)
        elif argument in FLAGS:
            settings[argument] = True
        else:
            wrong.append(f"'{argument}' is no key=value")
    if wrong:
        raise BadUseError("; ".join(wrong))
    return settings


def _text(key: str, text: str) -> str | list[str]:
    """Leave a value text; several models in brackets are a list of such, as `model=[a.pt,b.pt]`."""
    if key == "model" and text.startswith("[") and text.endswith("]"):
        return [part.strip() for part in text[1:-1].split(",") if part.strip()]
    return text


def _typed(text: str) -> Any:
    """Type a value as Ultralytics does; words in brackets, which it leaves one text, become a list."""
    from ds2d2_yolo.bridge.upstream.arguments import smart_value

    value = smart_value(text)
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        parts = [part.strip() for part in value[1:-1].split(",")]
        return [smart_value(part) for part in parts if part]
    return value
