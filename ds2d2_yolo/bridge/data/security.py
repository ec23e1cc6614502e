"""Untrusted files: with `safe=True` no checkpoint, model YAML or data set can run code."""

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
SAFE_SUFFIXES = (".pt", ".onnx", ".yaml", ".yml")  # formats without programs, or refused for another reason
CACHE_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
CACHE_TYPES = {
    (module, name)
    for module in ("numpy", "numpy.core.multiarray", "numpy._core.multiarray", "numpy.core.numeric",
                   "numpy._core.numeric")
    for name in ("ndarray", "dtype", "_reconstruct", "scalar", "_frombuffer")
}  # fmt: skip


@contextmanager
def safe_loading(safe: bool) -> Iterator[None]:
    """Make Ultralytics load checkpoints and build models without running code from them, while the context lasts.

    Checkpoints are read with torch's `weights_only` and a list of classes of Ultralytics and torch; a model YAML may
    name only layers, and its activation is not evaluated. Processes that are started inside the context do the same.
    Ultralytics (8.4.190) reads its flag from the environment when it is imported, so the value that it read is changed
    here and restored. So is its reader of label caches, which unpickles.

    Args:
        safe (bool): Whether to restrict. If not, nothing changes: the environment (`ULTRALYTICS_SAFE_LOAD=1`) counts.

    Yields:
        (None): Loading is restricted inside the context.

    Raises:
        BadUseError: If this torch is too old for it.
    """
    if not safe:
        yield
        return
    if not safe_loading_supported():
        raise BadUseError(f"safe=True needs torch 2.6 or newer, this is {torch.__version__}: pip install -U torch")
    flag, reader, environment = tasks.SAFE_LOAD, dataset.load_dataset_cache_file, os.environ.get(FLAG)
    tasks.SAFE_LOAD, dataset.load_dataset_cache_file, os.environ[FLAG] = True, read_cache, "1"
    try:
        yield
    finally:
        tasks.SAFE_LOAD, dataset.load_dataset_cache_file = flag, reader
        if environment is None:
            del os.environ[FLAG]
        else:
            os.environ[FLAG] = environment


def safe_loading_supported() -> bool:
    """Return whether `safe_loading` works with this torch."""
    return bool(tasks._SafeLoad.SUPPORTED)


def safe_loading_active() -> bool:
    """Return whether loading is restricted now, by `safe_loading` or by the environment."""
    return bool(tasks._SafeLoad.restricted())


def refuse_program(model: str) -> None:
    """Refuse a model in a format that may hold a program, such as TorchScript or TensorRT.

    Args:
        model (str): Value of `model=`.

    Raises:
        BadUseError: If it is none of `SAFE_SUFFIXES`; a name without suffix is a release's.
    """
    suffix = Path(model).suffix.lower()
    if (suffix and suffix not in SAFE_SUFFIXES) or Path(model).is_dir():
        raise BadUseError(f"model={model} may hold a program: safe=True reads checkpoints (.pt) and ONNX alone")


def refuse_activation(model: Any, who: str) -> None:
    """Refuse a loaded model whose YAML has an activation that is no plain call of `torch.nn`.

    A training builds the model again from that YAML, after everything else has been checked.

    Args:
        model (Any): Ultralytics model.
        who (str): The model as messages name it.

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

    The YAMLs in this package's folder `data`, by path, may have code.

    Args:
        data (str): Value of `data=`.

    Raises:
        BadUseError: If it is no YAML on this machine, has a `download:`, or one of its label caches is not valid.
    """
    file = Path(resolve_data(data))
    if file.suffix.lower() not in (".yaml", ".yml") or not file.is_file():
        raise BadUseError(f"data={data} is no data YAML on this machine: safe=True takes nothing else, name its path")
    if is_archive(file):
        raise BadUseError(f"data={data} is an archive with the name of a YAML: unpack it, and look what is in it")
    try:
        content = YAML.load(file)  # as Ultralytics reads it, with its repairs
    except Exception:  # loading the data reports what is wrong
        return
    packaged = file.resolve().parent == resource_dir("data").resolve()
    if "download" in content and not packaged:
        raise BadUseError(f"data={data} has a 'download:', which is run as code: safe=True takes it without that entry")
    _check_caches(_splits(file))


def is_archive(file: Path) -> bool:
    """Return whether Ultralytics would unpack a file that is named as data.

    Args:
        file (Path): The file, whatever its suffix.

    Returns:
        (bool): True for ZIP and TAR archives.
    """
    return zipfile.is_zipfile(file) or is_tarfile(file)


def _splits(file: Path) -> list[Any]:
    """Return the splits of a data set, none if one of them is missing: `read_cache` guards its caches later."""
    try:
        with quiet(logging.CRITICAL):
            data = check_det_dataset(file, autodownload=False)
    except Exception:  # loading the data reports what is wrong
        return []
    return [data[split] for split in ("train", "val", "test") if data.get(split)]


def _check_caches(splits: Iterable[Any]) -> None:
    """Refuse label caches with anything but numbers and texts: Ultralytics (8.4.190) unpickles them."""
    folders = {label.parent for split in splits for label in label_paths(list_images(split))}
    for file in sorted(folder.with_suffix(".cache") for folder in folders):
        if file.is_file():
            read_cache(file)


def read_cache(path: Path) -> dict[str, Any]:
    """Read a label cache of Ultralytics without running code from it.

    Args:
        path (Path): The file.

    Returns:
        (dict[str, Any]): Its content.

    Raises:
        BadUseError: If it holds anything but containers, numbers and texts.
        FileNotFoundError: If there is none.
    """
    with path.open("rb") as opened:
        try:
            CACHE_HEADERS[np.lib.format.read_magic(opened)](opened)
            content: dict[str, Any] = _Unpickler(opened).load().item()
        except Exception as e:  # a truncated file can raise anything
            problem = f"{path} is no label cache of Ultralytics ({first_line(e)})"
            raise BadUseError(f"{problem}: remove it, it is made anew") from e
    return content


class _Unpickler(pickle.Unpickler):
    """Builds containers, texts, numbers and NumPy arrays, nothing else."""

    def find_class(self, module: str, name: str) -> Any:
        """Return a NumPy type; refuse every other name."""
        if (module, name) not in CACHE_TYPES:
            raise pickle.UnpicklingError(f"it names {module}.{name}")
        return super().find_class(module, name)
