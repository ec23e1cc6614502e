"""What a run was made of, so that it can be made again: versions, settings, revision, hashes of what it read."""

from __future__ import annotations

import hashlib
import json
import platform
import sys
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils.git import GitRepo

from ds2d2_yolo._version import __version__
from ds2d2_yolo.bridge.data.dataset import data_hash
from ds2d2_yolo.bridge.upstream.arguments import ARGS_KEY

FILE = "run.json"
PACKAGE = Path(__file__).resolve().parents[2]
PACKAGES = ("torchvision", "ultralytics", "numpy", "opencv-python", "pillow", "pywavelets", "safetensors")


def origin_of(trainer: Any, amplifier: Path | None) -> dict[str, Any]:
    """Return what a run is made of.

    Args:
        trainer (Any): A trainer of this package that is about to train.
        amplifier (Path | None): The run's amplifier.

    Returns:
        (dict[str, Any]): `versions`; `revision` of the package's own checkout (None for one that was installed as a
            wheel) and `code`, SHA-256 over its Python files, which tells changes that were not committed; `machine`;
            `settings` and `ultralytics`, all of them; `hashes` of the teacher's weights, of both splits (names and
            sizes of images, contents of labels), of the amplifier's file and of the student's, where it is one.
    """
    data: Mapping[str, Any] = trainer.data
    student = trainer.args.pretrained if isinstance(trainer.args.pretrained, (str, Path)) else trainer.args.model
    checkpoint = Path(str(student)) if str(student).endswith(".pt") else None
    theirs = {k: v for k, v in vars(trainer.args).items() if k != ARGS_KEY}
    return {
        "began": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": {"python": platform.python_version(), "ds2d2-yolo": __version__, **_versions()},
        "revision": _revision(),
        "code": _code_hash(),
        "machine": {
            "system": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "threads": torch.get_num_threads(),
            "device": str(trainer.device),
            "cuda": torch.version.cuda if trainer.device.type == "cuda" else None,
        },
        "settings": trainer.settings.as_dict(),
        "ultralytics": json.loads(json.dumps(theirs, default=str)),
        "hashes": {
            "teacher": trainer.teacher.sha256,
            "train": data_hash(data),
            "val": data_hash({**data, "train": data[trainer.args.split]}),
            "amplifier": _file_hash(amplifier),
            "student": _file_hash(checkpoint),
        },
    }


def with_origin(folder: Path, origin: Mapping[str, Any], resumed: bool) -> str:
    """Return the content of run.json: the origin of the run, or one more behind it where the run goes on."""
    earlier: list[Any] = []
    file = folder / FILE
    if resumed and file.is_file():
        try:
            earlier = list(json.loads(file.read_text(encoding="utf-8")))
        except ValueError:  # not ours
            earlier = []
    return json.dumps([*earlier, origin], indent=2, ensure_ascii=False) + "\n"


def _versions() -> dict[str, str | None]:
    """Return the versions of the packages that results depend on."""
    found: dict[str, str | None] = {"torch": str(torch.__version__)}  # with what it was built for
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:  # OpenCV comes under several names
            found[name] = None
    return found


def _revision() -> str | None:
    """Return the commit of the checkout that the package lies in, None where it was installed as a wheel."""
    root = PACKAGE.parent
    return GitRepo(root).commit if (root / ".git").exists() else None


def _code_hash() -> str:
    """Return the hash of the package's Python files."""
    digest = hashlib.sha256()
    for file in sorted(PACKAGE.rglob("*.py")):
        digest.update(file.relative_to(PACKAGE).as_posix().encode() + file.read_bytes())
    return digest.hexdigest()


def _file_hash(file: Path | None) -> str | None:
    """Return the hash of a file, None where there is none."""
    return hashlib.sha256(file.read_bytes()).hexdigest() if file is not None and file.is_file() else None
