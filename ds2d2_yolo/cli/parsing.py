"""Parsing of command-line arguments into settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ds2d2_yolo.errors import BadUseError

# keys whose values stay text: a path or a name may look like a number
TEXT_KEYS = {
    "teacher", "student", "model", "data", "name", "project", "recipe", "amplifier", "source", "out", "check_images",
    "results", "save_dir", "unlabelled",
}  # fmt: skip
LIST_KEYS = {"model", "unlabelled"}  # text keys that take several values in brackets
BARE_FLAGS = ("resume", "overwrite")  # valid without a value: 'resume' means resume=True


def parse(arguments: Sequence[str]) -> dict[str, Any]:
    """Parse `key=value` arguments into settings, typed as Ultralytics types them.

    Args:
        arguments (Sequence[str]): Arguments after the mode; a bare 'resume' means resume=True.

    Returns:
        (dict[str, Any]): Settings.

    Raises:
        BadUseError: If an argument is not of the form key=value, or a key comes twice.

    Examples:
        >>> parse(["epochs=3", "levels=[8,16]", "formats=[onnx,engine]"])
        {'epochs': 3, 'levels': [8, 16], 'formats': ['onnx', 'engine']}
    """
    from ds2d2_yolo.bridge.upstream.arguments import merge_equals_args

    settings: dict[str, Any] = {}
    errors: list[str] = []
    try:
        merged = merge_equals_args(list(arguments))
    except SyntaxError as e:
        raise BadUseError(str(e).splitlines()[0]) from e
    except IndexError as e:  # of '[ =' (8.4.190)
        raise BadUseError(f"'{' '.join(arguments)}' is no key=value") from e
    for argument in merged:
        key, equals, text = argument.lstrip("-").partition("=")
        if key in settings:
            errors.append(f"'{key}' is given twice")
        elif equals and key and text:
            settings[key] = (
                _text_value(key, text) if key in TEXT_KEYS and text.lower() != "none" else _typed_value(text)
            )
        elif argument in BARE_FLAGS:
            settings[argument] = True
        else:
            errors.append(f"'{argument}' is no key=value")
    if errors:
        raise BadUseError("; ".join(errors))
    return settings


def _text_value(key: str, text: str) -> str | list[str]:
    """Return a value as text; several in brackets, such as `model=[a.pt,b.pt]`, become a list of texts."""
    if key in LIST_KEYS and text.startswith("[") and text.endswith("]"):
        return [part.strip().strip("'\"") for part in text[1:-1].split(",") if part.strip()]
    return text


def _typed_value(text: str) -> Any:
    """Type a value as Ultralytics does; words in brackets, which Ultralytics returns as one text, become a list."""
    from ds2d2_yolo.bridge.upstream.arguments import smart_value

    value = smart_value(text)
    if isinstance(value, str) and value.startswith("[") and value.endswith("]"):
        parts = [part.strip() for part in value[1:-1].split(",")]
        return [smart_value(part) for part in parts if part]
    return value
