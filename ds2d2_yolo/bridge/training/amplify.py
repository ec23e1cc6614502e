"""Python entry point for an amplifier without a student: `amplify`, which the command line calls too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ultralytics.cfg import get_cfg
from ultralytics.utils import DEFAULT_CFG_KEYS, LOGGER

from ds2d2_yolo.bridge.data.security import refuse_code_in_data, safe_loading
from ds2d2_yolo.bridge.models.amplifier_store import AmplifierCard, load_amplifier
from ds2d2_yolo.bridge.training.obtain_amplifier import NOT_PASSED, card_for, obtain_amplifier
from ds2d2_yolo.bridge.training.setup.run_setup import prepare_run
from ds2d2_yolo.bridge.upstream.arguments import validate_ultralytics_args
from ds2d2_yolo.bridge.upstream.devices import check_device, cpu_threads
from ds2d2_yolo.config.options import check_keys
from ds2d2_yolo.config.recipes import resolve_settings
from ds2d2_yolo.config.resources import resolve_data
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.errors import BadUseError

AMPLIFY_KEYS = ("recipe", "teacher_imgsz", "teacher_channels", "wavelet", "amplifier_epochs", "safe")


@dataclass(frozen=True)
class AmplifierResult:
    """A stored high-frequency amplifier.

    Attributes:
        file (Path): Its file, which `amplifier=` takes; runs of this teacher and these data find it by themselves.
        card (AmplifierCard): What it was trained from, its mAP and the teacher's.
    """

    file: Path
    card: AmplifierCard


@cpu_threads()
def amplify(teacher: str | Path | None = None, data: str | Path | None = None, **keys: Any) -> AmplifierResult:
    """Train the high-frequency amplifier of a teacher on a data set, or report the stored one.

    Only the teacher's head learns, on the high-frequency part of the features; all other layers are frozen. It gets a
    quarter of the student's `epochs`, at least 1, or `amplifier_epochs`, and stops where half of them in a row have
    brought nothing. The same call goes on with a training that was cut off.

    Args:
        teacher (str | Path | None): Trained checkpoint, or a release's name that Ultralytics downloads.
        data (str | Path | None): Data-set YAML; the names of the packaged ones work too, such as 'dota.yaml'.
        **keys (Any): `wavelet`, `teacher_imgsz`, `teacher_channels`, `amplifier_epochs`, `recipe`, and the Ultralytics
            training settings of the student's run, whose `epochs`, `imgsz` and `fraction` should be those of that run.

    Returns:
        (AmplifierResult): File and card.

    Raises:
        BadUseError: If anything does not fit, before training begins.

    Examples:
        >>> from ds2d2_yolo.bridge.training.amplify import amplify
        >>> amplify("teacher.pt", "hit-uav.yaml", epochs=100, imgsz=640).card.map50  # doctest: +SKIP
    """
    settings = _settings(teacher, data, keys)
    ultralytics_args = {k: v for k, v in keys.items() if k not in AMPLIFY_KEYS}
    with safe_loading(settings.safe):
        if settings.safe:
            refuse_code_in_data(str(data))
        return _obtain(settings, str(data), ultralytics_args)


def _obtain(settings: Settings, data: str, ultralytics_args: dict[str, Any]) -> AmplifierResult:
    """Load teacher and data, and obtain the amplifier."""
    args = get_cfg(overrides={**ultralytics_args, "data": resolve_data(data)})
    args.model = args.task = None  # there is no student: the task is the teacher's
    run = prepare_run(args, settings)
    epochs = settings.amplifier_epochs
    # a recipe may turn imhi off, which says nothing about this command
    card = run.amplifier_card or card_for(
        run.teacher, run.data, run.teacher_args, settings.wavelet, epochs, run.channels
    )
    if not run.class_map.identical:
        LOGGER.info(f"DS2D2: {run.class_map.describe()}")
    path = obtain_amplifier(card, run.teacher, run.teacher_args)
    return AmplifierResult(path, load_amplifier(path)[1])


def _settings(teacher: str | Path | None, data: str | Path | None, keys: dict[str, Any]) -> Settings:
    """Check all keys before anything is loaded, and return the DS2D2 settings among them."""
    check_keys(
        [k for k in keys if k not in NOT_PASSED],
        {*AMPLIFY_KEYS, *DEFAULT_CFG_KEYS, "teacher"} - NOT_PASSED | {"epochs"},
        "amplify",
    )
    idle = [f"{k}=" for k in keys if k in NOT_PASSED and k != "epochs"]
    if idle:
        raise BadUseError(f"{', '.join(idle)} has no meaning for an amplifier: leave it out")
    missing = [f"{k}=" for k, v in (("teacher", teacher), ("data", data)) if v is None]
    if missing:
        raise BadUseError(f"{', '.join(missing)} missing: ds2d2-yolo amplify teacher=T.pt data=D.yaml")
    ds2d2_args = {k: v for k, v in keys.items() if k in AMPLIFY_KEYS}
    settings = resolve_settings({**ds2d2_args, "teacher": str(teacher)})
    validate_ultralytics_args({k: v for k, v in keys.items() if k not in AMPLIFY_KEYS})
    check_device(keys.get("device"))
    return settings
