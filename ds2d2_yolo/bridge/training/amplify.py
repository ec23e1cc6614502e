"""The Python entrance to an amplifier on its own: `amplify`, which the command line calls too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG_KEYS, LOGGER
from ultralytics.utils.torch_utils import parse_device

from ds2d2_yolo.bridge.data.class_map import class_names, match_classes
from ds2d2_yolo.bridge.data.dataset import load_data
from ds2d2_yolo.bridge.data.label_checks import check_labels
from ds2d2_yolo.bridge.data.security import refuse_code_in_data, safe_loading
from ds2d2_yolo.bridge.models.amplifier_store import AmplifierCard, load_amplifier
from ds2d2_yolo.bridge.models.input_channels import fit_channels
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.bridge.training.amplifier_trainer import NOT_PASSED, card_for, obtain_amplifier
from ds2d2_yolo.bridge.upstream.arguments import validate_ultralytics_args
from ds2d2_yolo.bridge.upstream.devices import check_device, cpu_threads
from ds2d2_yolo.config.options import check_keys
from ds2d2_yolo.config.recipes import resolve_settings
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError

OURS = ("recipe", "teacher_channels", "wavelet", "amplifier_epochs", "safe")


@dataclass(frozen=True)
class AmplifierResult:
    """A kept high-frequency amplifier.

    Attributes:
        file (Path): Its file, which `amplifier=` takes; runs of this teacher and these data find it by themselves.
        card (AmplifierCard): What it was trained from, its mAP and the teacher's.
    """

    file: Path
    card: AmplifierCard


@cpu_threads()
def amplify(teacher: str | Path | None = None, data: str | Path | None = None, **keys: Any) -> AmplifierResult:
    """Train the high-frequency amplifier of a teacher on a data set, or report the one that is kept.

    The teacher's head alone learns, on the high-frequency part of the features; everything else is frozen. It gets a
    quarter of the student's `epochs`, at least 1, or `amplifier_epochs`, and stops where half of them in a row have
    brought nothing. The same call goes on with a training that was cut off.

    Args:
        teacher (str | Path | None): Trained checkpoint, or a release's name that Ultralytics downloads.
        data (str | Path | None): Data-set YAML; the names of the package's own work too, such as 'dota.yaml'.
        **keys (Any): `wavelet`, `teacher_channels`, `amplifier_epochs`, `recipe`, and the Ultralytics training settings
            of the student's run, whose `epochs`, `imgsz` and `fraction` should be those of that run.

    Returns:
        (AmplifierResult): File and card.

    Raises:
        BadUseError: If anything does not fit, before training begins.

    Examples:
        >>> from ds2d2_yolo.bridge.training.amplify import amplify
        >>> amplify("teacher.pt", "hit-uav.yaml", epochs=100, imgsz=640).card.map50  # doctest: +SKIP
    """
    settings = _settings(teacher, data, keys)
    rest = {k: v for k, v in keys.items() if k not in OURS}
    with safe_loading(settings.safe):
        if settings.safe:
            refuse_code_in_data(str(data))
        return _obtain(settings, str(data), rest)


def _obtain(settings: Settings, data: str, rest: dict[str, Any]) -> AmplifierResult:
    """Load teacher and data, and obtain the amplifier."""
    loaded = load_teacher(settings.teacher, None)
    args = get_cfg(overrides={**rest, "task": "obb" if loaded.rotated else "detect", "data": resolve_data(data)})
    args.device = parse_device(args.device)
    found = load_data(args)
    check_labels(found, args.task, args.split, args.fraction)
    channels = fit_channels(loaded, found["channels"], settings.teacher_channels)
    card = card_for(loaded, found, args, settings.wavelet, settings.amplifier_epochs, channels)
    class_map = match_classes(loaded.names, class_names(found["names"]))
    if not class_map.identical:
        LOGGER.info(f"DS2D2: {class_map.describe()}")
    file = obtain_amplifier(card, loaded, args)
    return AmplifierResult(file, load_amplifier(file)[1])


def _settings(teacher: str | Path | None, data: str | Path | None, keys: dict[str, Any]) -> Settings:
    """Check everything that was given before anything is loaded, and return what is ours of it."""
    check_keys(
        [k for k in keys if k not in NOT_PASSED],
        {*OURS, *DEFAULT_CFG_KEYS, "teacher"} - NOT_PASSED | {"epochs"},
        "amplify",
    )
    idle = [f"{k}=" for k in keys if k in NOT_PASSED and k != "epochs"]
    if idle:
        raise BadUseError(f"{', '.join(idle)} has no meaning for an amplifier: leave it out")
    missing = [f"{k}=" for k, v in (("teacher", teacher), ("data", data)) if v is None]
    if missing:
        raise BadUseError(f"{', '.join(missing)} missing: ds2d2-yolo amplify teacher=T.pt data=D.yaml")
    ours = {k: v for k, v in keys.items() if k in OURS}
    settings = resolve_settings({**ours, "teacher": str(teacher)})
    validate_ultralytics_args({k: v for k, v in keys.items() if k not in OURS})
    check_device(keys.get("device"))
    return settings
