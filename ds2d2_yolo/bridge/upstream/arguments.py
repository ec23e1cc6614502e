"""Ultralytics' settings, checked before anything is loaded."""

from __future__ import annotations

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


def validate_ultralytics_args(keys: dict[str, Any]) -> None:
    """Let Ultralytics check its own settings now; what it says becomes one line."""
    if keys.get("cfg"):
        _check_cfg(str(keys["cfg"]))
    try:
        get_cfg(overrides=keys)
    except (TypeError, ValueError, SyntaxError) as e:
        raise BadUseError(first_line(e)) from e
    size = keys.get("imgsz", 640)
    if not all(isinstance(n, int) and n > 0 for n in (size if isinstance(size, (list, tuple)) else [size])):
        raise BadUseError(f"imgsz={size} must be a whole number of pixels, such as imgsz=640")
    classes = keys.get("classes")
    wanted = classes if isinstance(classes, (list, tuple)) else [] if classes is None else [classes]
    if any(not isinstance(c, int) or isinstance(c, bool) for c in wanted):
        raise BadUseError(f"classes={classes} must be numbers of classes, such as classes=0,2")
    batch, workers, optimizer = keys.get("batch", 16), keys.get("workers", 8), keys.get("optimizer", "auto")
    if not (batch == -1 or 0 < batch < 1 or (isinstance(batch, int) and batch >= 1)):
        raise BadUseError(f"batch={batch} must be a number of images, -1, or a share of the GPU's memory under 1")
    if workers < 0:
        raise BadUseError(f"workers={workers} must be a whole number of at least 0")
    if str(optimizer).lower() not in OPTIMIZERS:
        raise BadUseError(f"optimizer={optimizer} {ok.one_of(*OPTIMIZERS)(str(optimizer).lower())}")


def _check_cfg(cfg: str) -> None:
    """Refuse a YAML of Ultralytics' settings that holds none, or wrong ones; ours may be among them."""
    try:
        found = YAML.load(check_yaml(cfg))
        get_cfg(overrides={k: v for k, v in Settings.split(found)[1].items() if k != ARGS_KEY})  # of a run's args.yaml
    except (TypeError, ValueError, SyntaxError, AssertionError, OSError) as e:
        raise BadUseError(f"cfg={cfg} cannot be read as a YAML of settings: {first_line(e)}") from e
    if not found:
        raise BadUseError(f"cfg={cfg} holds no settings: one 'key: value' a line is expected")
