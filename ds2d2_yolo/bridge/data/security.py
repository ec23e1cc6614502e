"""Files of strangers: with `safe=True` nothing in a checkpoint, a model YAML or a data set can run code."""

from __future__ import annotations

import logging
import os
import pickle
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tarfile import is_tarfile
from typing import Any

import numpy as np
import torch
from ultralytics.data import dataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.nn import tasks
from ultralytics.utils import YAML

from ds2d2_yolo.bridge.data.images import label_paths, list_images
from ds2d2_yolo.bridge.upstream.logging import quiet
from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.config.resources import resolve_data, resource_dir
from ds2d2_yolo.errors import BadUseError

FLAG = "ULTRALYTICS_SAFE_LOAD"
READS = (".pt", ".onnx", ".yaml", ".yml")  # what holds data alone, or is refused for another reason
CACHE_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
CACHE_TYPES = {
    (module, name)
    for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric",
                   "numpy._core.numeric")
    for name in ("ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer")
}  # fmt: skip


@contextmanager
def safe_loading(safe: bool) -> Iterator[None]:
    """Have Ultralytics load checkpoints and build models without running code from them, while the context lasts.

    Checkpoints are read with torch's `weights_only` and a list of Ultralytics' and torch's own classes; a model YAML
    may name layers alone, and its activation is not evaluated. Processes that are started meanwhile do the same.
    Ultralytics reads its flag from the environment when it is imported (8.4.190), so the value that it read is changed
    here and put back. So is its reader of label caches, which unpickles.

    Args:
        safe (bool): Whether to; without it nothing changes, and `ULTRALYTICS_SAFE_LOAD=1` in the environment counts.

    Yields:
        (None): While it lasts, loading is restricted.

    Raises:
        BadUseError: If this torch cannot.
    """
    if not safe:
        yield
        return
    if not tasks._SafeLoad.SUPPORTED:
        raise BadUseError(f"safe=True needs torch 2.6 or newer, this is {torch.__version__}: pip install -U torch")
    own, reader, before = tasks.SAFE_LOAD, dataset.load_dataset_cache_file, os.environ.get(FLAG)
    tasks.SAFE_LOAD, dataset.load_dataset_cache_file, os.environ[FLAG] = True, read_cache, "1"
    try:
        yield
    finally:
        tasks.SAFE_LOAD, dataset.load_dataset_cache_file = own, reader
        if before is None:
            del os.environ[FLAG]
        else:
            os.environ[FLAG] = before


def safe_loading_active() -> bool:
    """Return whether loading is restricted now, by `safe_loading` or by the environment."""
    return bool(tasks._SafeLoad.restricted())


def refuse_program(model: str) -> None:
    """Refuse a model in a format that may hold a program, such as TorchScript or TensorRT.

    Args:
        model (str): What `model=` names.

    Raises:
        BadUseError: If it is none of `READS`; a name without suffix is a release's.
    """
    suffix = Path(model).suffix.lower()
    if (suffix and suffix not in READS) or Path(model).is_dir():
        raise BadUseError(f"model={model} may hold a program: safe=True reads checkpoints (.pt) and ONNX alone")


def refuse_activation(model: Any, who: str) -> None:
    """Refuse a loaded model whose YAML names an activation that is no plain call of `torch.nn`.

    A training builds the model anew from that YAML, after everything else has been checked.

    Args:
        model (Any): Ultralytics model.
        who (str): The model as the message is to name it.

    Raises:
        BadUseError: If building it would fail under `safe_loading`.
    """
    activation = getattr(model, "yaml", {}).get("activation")
    try:
        if activation:
            tasks._SafeLoad.activation(activation)
    except TypeError as e:
        raise BadUseError(f"{who} has activation={activation!r}, which is run as code: safe=True refuses it") from e


def refuse_code_in_data(data: str) -> None:
    """Refuse a data set from which Ultralytics would run code: in its YAML, or in a label cache beside its labels.

    The packaged YAMLs are this package's own: those in its folder `data`, by path, may have code.

    Args:
        data (str): What `data=` names.

    Raises:
        BadUseError: If it is no YAML on this machine, has a `download:`, or one of its label caches is none.
    """
    file = Path(resolve_data(data))
    if file.suffix.lower() not in (".yaml", ".yml") or not file.is_file():
        raise BadUseError(f"data={data} is no data YAML on this machine: safe=True takes nothing else, name its path")
    if is_archive(file):
        raise BadUseError(f"data={data} is an archive with the name of a YAML: unpack it, and look what is in it")
    try:
        found = YAML.load(file)  # as Ultralytics reads it, mended where it mends
    except Exception:  # whatever it is: loading the data says what is wrong
        return
    packaged = file.resolve().parent == resource_dir("data").resolve()
    if "download" in found and not packaged:
        raise BadUseError(f"data={data} has a 'download:', which is run as code: safe=True takes it without that entry")
    _check_caches(_splits(file))


def is_archive(file: Path) -> bool:
    """Return whether Ultralytics would unpack a file that is named as data."""
    return zipfile.is_zipfile(file) or is_tarfile(file)


def _splits(file: Path) -> list[Any]:
    """Return the places of a data set's images, none where they are not all there: `read_cache` guards those too."""
    try:
        with quiet(logging.CRITICAL):
            data = check_det_dataset(file, autodownload=False)
    except Exception:  # loading the data says what is wrong
        return []
    return [data[split] for split in ("train", "val", "test") if data.get(split)]


def _check_caches(splits: Iterable[Any]) -> None:
    """Refuse label caches that hold something else than numbers and texts: Ultralytics unpickles them (8.4.190)."""
    folders = {label.parent for split in splits for label in label_paths(list_images(split))}
    for file in sorted(folder.with_suffix(".cache") for folder in folders):
        if file.is_file():
            read_cache(file)


def read_cache(path: Path) -> dict[str, Any]:
    """Read a label cache of Ultralytics without running code from it.

    Args:
        path (Path): Its file.

    Returns:
        (dict[str, Any]): What it holds.

    Raises:
        BadUseError: If it holds something else than containers, numbers and texts.
        FileNotFoundError: If there is none.
    """
    with path.open("rb") as opened:
        try:
            CACHE_HEADERS[np.lib.format.read_magic(opened)](opened)
            held: dict[str, Any] = _Unpickler(opened).load().item()
        except Exception as e:  # half a file can raise anything
            said = f"{path} is no label cache of Ultralytics ({first_line(e)})"
            raise BadUseError(f"{said}: remove it, it is made anew") from e
    return held


class _Unpickler(pickle.Unpickler):
    """Builds containers, texts, numbers and numpy's arrays, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a type of numpy; refuse every other name."""
        if (module, name) not in CACHE_TYPES:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)
