"""Validation of Ultralytics' settings before anything is loaded or any folder is made."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ultralytics.cfg import get_cfg, merge_equals_args, smart_value
from ultralytics.utils import YAML
from ultralytics.utils.checks import check_yaml

from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.config import checks as ok
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError

__all__ = ["ARGS_KEY", "OPTIMIZERS", "merge_equals_args", "smart_value", "validate_ultralytics_args"]

ARGS_KEY = "ds2d2"  # of the DS2D2 settings among Ultralytics'
# of Ultralytics 8.4.190, which looks at the name when the first epoch begins, and takes it in any case
OPTIMIZERS = ("adam", "adamax", "adamw", "nadam", "radam", "rmsprop", "sgd", "musgd", "auto")
COMPILE_MODES = ("default", "reduce-overhead", "max-autotune", "max-autotune-no-cudagraphs")  # of torch.compile
MAX_SEED = 2**32 - 1025  # NumPy takes less than 2**32; Ultralytics adds 1 and the number of the process


def validate_ultralytics_args(keys: dict[str, Any]) -> None:
    """Check Ultralytics' settings now, those too that Ultralytics looks at when a training has begun.

    Args:
        keys (dict[str, Any]): Ultralytics' settings by name. A YAML that `cfg` names is checked likewise.

    Raises:
        BadUseError: Naming the first wrong setting, in one line.
    """
    if keys.get("cfg"):
        _check_values(_read_cfg(str(keys["cfg"])))
    try:
        get_cfg(overrides=keys)
    except (TypeError, ValueError, SyntaxError) as e:
        raise BadUseError(first_line(e)) from e
    _check_values(keys)


def _read_cfg(cfg: str) -> dict[str, Any]:
    """Return the settings of a YAML of Ultralytics' settings, without DS2D2's; refuse one that holds none."""
    try:
        content = YAML.load(check_yaml(cfg))
        settings = {k: v for k, v in Settings.split(content)[1].items() if k != ARGS_KEY}  # of a run's args.yaml
        get_cfg(overrides=settings)
    except (TypeError, ValueError, SyntaxError, AssertionError, OSError) as e:
        raise BadUseError(f"cfg={cfg} cannot be read as a YAML of settings: {first_line(e)}") from e
    if not content:
        raise BadUseError(f"cfg={cfg} holds no settings: one 'key: value' a line is expected")
    return settings


def _check_values(keys: Mapping[str, Any]) -> None:
    """Refuse values that `get_cfg` lets pass and that fail, or are ignored without a word, later."""
    for key, value in keys.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise BadUseError(f"{key}={value} must be a finite number")
        wrong = CHECKS[key](value) if key in CHECKS else None
        if wrong:
            raise BadUseError(f"{key}={value} {wrong}")


def _wrong_imgsz(value: Any) -> str | None:
    """Check for whole pixels, of one or of both sides."""
    sides = value if isinstance(value, (list, tuple)) else [value]
    fits = sides and all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in sides)
    return None if fits else "must be a whole number of pixels, such as imgsz=640"


def _wrong_classes(value: Any) -> str | None:
    """Check for class indices; None is all classes."""
    indices = value if isinstance(value, (list, tuple)) else [] if value is None else [value]
    fits = all(isinstance(c, int) and not isinstance(c, bool) for c in indices)
    return None if fits else "must be numbers of classes, such as classes=0,2"


def _wrong_batch(value: Any) -> str | None:
    """Check for a batch size, or for one of the two forms of AutoBatch."""
    if not isinstance(value, bool) and (value == -1 or 0 < value < 1 or (isinstance(value, int) and value >= 1)):
        return None
    return "must be a number of images, -1, or a share of the GPU's memory under 1"


def _wrong_optimizer(value: Any) -> str | None:
    """Check for the name of an optimizer, in any case."""
    return ok.one_of(*OPTIMIZERS)(str(value).lower())


def _wrong_seed(value: Any) -> str | None:
    """Check for the upper bound; `get_cfg` knows the lower one."""
    return None if value <= MAX_SEED else f"must be at most {MAX_SEED}"


def _wrong_cache(value: Any) -> str | None:
    """Check for a place to cache images; Ultralytics takes an unknown word for False."""
    if value is None or isinstance(value, bool) or str(value).lower() in {"ram", "disk"}:
        return None
    return "must be True, False, ram or disk"


def _wrong_compile(value: Any) -> str | None:
    """Check for a mode of `torch.compile`; Ultralytics goes on without it where torch does not know the mode."""
    return None if isinstance(value, bool) else ok.one_of(*COMPILE_MODES)(value)


def _wrong_freeze(value: Any) -> str | None:
    """Check for the number of layers, or for a list of their numbers and names; `loading.check_freeze` looks them up.

    Ultralytics (8.4.190) ignores any other type.
    """
    layers = value if isinstance(value, list) else [value]
    fits = value is None or all(
        (isinstance(x, int) and not isinstance(x, bool) and x >= 0) or (isinstance(x, str) and x) for x in layers
    )
    if fits and not isinstance(value, str):
        return None
    return "must be a number of layers, or a list of numbers and names of layers, such as freeze=10 or freeze=[0,1]"


def _wrong_pretrained(value: Any) -> str | None:
    """Check for a flag or the name of a checkpoint; `loading.check_pretrained` loads it."""
    if value is None or isinstance(value, bool):
        return None
    if not isinstance(value, (str, Path)):
        return "must be True, False or a checkpoint (.pt)"
    if Path(value).suffix.lower() == ".pt":
        return None
    return "is no checkpoint (.pt): name one, such as runs/train/weights/best.pt, or True or False"


def _at_least_0(value: Any) -> str | None:
    """Check for a lower bound of 0; `get_cfg` knows the types."""
    return None if value is None or value >= 0 else "must be at least 0"


def _wrong_place(value: Any) -> str | None:
    """Check for the part of a path; Ultralytics takes numbers for their text."""
    return None if value in (None, "") or isinstance(value, (int, float)) else ok.path(value)


CHECKS: dict[str, Callable[[Any], str | None]] = {
    "imgsz": _wrong_imgsz,
    "classes": _wrong_classes,
    "batch": _wrong_batch,
    "workers": lambda value: None if value >= 0 else "must be a whole number of at least 0",
    "optimizer": _wrong_optimizer,
    "seed": _wrong_seed,
    "cache": _wrong_cache,
    "compile": _wrong_compile,
    "copy_paste_mode": ok.one_of("flip", "mixup"),
    "freeze": _wrong_freeze,
    "pretrained": _wrong_pretrained,
    "project": _wrong_place,
    "name": _wrong_place,
    **dict.fromkeys(("time", "warmup_epochs", "box", "cls", "dfl", "angle"), _at_least_0),
}
