"""NVIDIA ModelOpt, with which Ultralytics (8.4.190) trains, restores and exports INT8 students.

ModelOpt inserts a fake quantiser before the input and the weight of each convolution. A fake quantiser rounds to 8 bits
and computes in float. Beside a plain model, Ultralytics' checkpoints hold the quantisers under the key `modelopt`.
"""

from __future__ import annotations

import importlib
import warnings
import zipfile
from pathlib import Path

from ultralytics.utils.checks import check_requirements
from ultralytics.utils.torch_utils import MODELOPT_REQUIREMENTS

from ds2d2_yolo.errors import BadUseError

INSTALL = "pip install 'ds2d2-yolo[quantize]'"


def modelopt_installed() -> bool:
    """Return whether ModelOpt is installed as Ultralytics requires it, with what it imports."""
    return bool(check_requirements(MODELOPT_REQUIREMENTS, install=False))


def require_modelopt(subject: str) -> None:
    """Import ModelOpt, and refuse what needs it where it is missing: Ultralytics would install it during a command.

    The import comes before a run is seeded: ModelOpt imports `rich`, which draws a random number.

    Args:
        subject (str): What needs it, as the message begins, such as 'quantize=8'.

    Raises:
        BadUseError: With the command that installs it.
    """
    try:
        if not modelopt_installed():
            raise ImportError
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of packages that INT8 does not need
            importlib.import_module("modelopt.torch.quantization")
        # restoring a checkpoint (0.47): Ultralytics moves the model after ModelOpt has asked for it
        warnings.filterwarnings("ignore", "Could not identify the device for TensorQuantizer")
    except ImportError as e:
        raise BadUseError(f"{subject} needs NVIDIA ModelOpt: {INSTALL}") from e


def require_for_checkpoint(file: Path, who: str) -> None:
    """Import ModelOpt for the checkpoint of a quantised student, and refuse that checkpoint where ModelOpt is missing.

    The pickled part is searched for a key of ModelOpt's state: nothing is unpickled.

    Args:
        file (Path): A checkpoint; other files pass.
        who (str): The model as messages name it.

    Raises:
        BadUseError: With the command that installs ModelOpt.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            pickles = [name for name in archive.namelist() if name.endswith("data.pkl")]
            quantised = any(b"modelopt_state_dict" in archive.read(name) for name in pickles)
    except (OSError, zipfile.BadZipFile):  # loading it reports what is wrong
        return
    if quantised:
        require_modelopt(f"{who} was trained with quantize=8 and")
