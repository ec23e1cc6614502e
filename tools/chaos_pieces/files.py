"""Files of a command that was killed: which of them claim to be whole, and whether they are."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Iterator
from pathlib import Path

PICTURES = {"val.png", "compare.png"}  # of the package itself


def fault(file: Path) -> str | None:
    """Return what is wrong with a file, None if it is whole or of a kind that is not known."""
    try:
        _read(file)
    except Exception as e:  # whatever a reader raises on a broken file
        return f"{file}: {type(e).__name__}: {(str(e).splitlines() or [''])[0]}"
    return None


def _read(file: Path) -> None:
    """Read a file to its end; raise if it is not whole."""
    if file.suffix == ".pt":
        from ultralytics.utils.patches import torch_load

        checkpoint = torch_load(file, map_location="cpu")
        assert checkpoint.get("model") is not None or checkpoint.get("ema") is not None, "no model in it"
    elif file.suffix == ".safetensors":
        from safetensors.torch import load_file

        assert load_file(file), "no tensor in it"
    elif file.suffix == ".csv":
        text = file.read_text(encoding="utf-8")
        rows = list(csv.reader(io.StringIO(text)))
        assert text.endswith("\n"), "the last row has no end"
        assert len({len(row) for row in rows}) == 1, "a row of another length"
    elif file.suffix == ".json":
        json.loads(file.read_text(encoding="utf-8"))
    elif file.suffix == ".jsonl":  # a journal is appended to: a line without an end does not count
        [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n")[:-1]]
    elif file.suffix in {".png", ".jpg"}:
        from PIL import Image

        with Image.open(file) as image:
            image.load()
    elif file.suffix == ".onnx":
        import onnx

        onnx.checker.check_model(onnx.load(file))
    elif file.suffix in {".md", ".txt", ".yaml"} and "labels" not in file.parts:
        assert file.read_text(encoding="utf-8").endswith("\n"), "the last line has no end"


def complete_files(folders: list[Path]) -> Iterator[Path]:
    """Yield the files that claim to be whole.

    Ultralytics writes args.yaml, its label caches and its pictures in place; nothing depends on them, a cache that
    cannot be read is made anew.
    """
    for folder in folders:
        for file in sorted(folder.rglob("*")):
            hidden = any(part.startswith(".") for part in file.relative_to(folder).parts)
            drawn = file.suffix in {".png", ".jpg"} and file.name not in PICTURES and "images" not in file.parts
            from_ultralytics = drawn or file.suffix == ".cache" or file.name in {"args.yaml", "log.txt"}
            if file.is_file() and not hidden and not from_ultralytics:
                yield file


def left_over(folders: list[Path]) -> list[str]:
    """Return what a finished command must not leave."""
    hidden = [f for folder in folders for f in folder.rglob(".*") if not f.name.endswith(".lock")]
    return [str(f) for f in hidden] + [str(f) for folder in folders for f in folder.rglob("resume-*.safetensors")]


def weights_of(file: Path) -> str:
    """Return the hash of a checkpoint's weights."""
    from ultralytics.utils.patches import torch_load

    digest = hashlib.sha256()
    for name, tensor in torch_load(file, map_location="cpu")["model"].state_dict().items():
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    return digest.hexdigest()


def files_of(folder: Path) -> dict[str, str]:
    """Return the hashes of a folder's images, labels and lists."""
    kinds = {".png", ".jpg", ".txt", ".csv", ".yaml"}
    files = [f for f in sorted(folder.rglob("*")) if f.suffix in kinds]
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


def epochs_in(run: Path) -> tuple[int, int]:
    """Return a run's rows in results.csv and the epochs that last.pt stands for; -1 where that is finished."""
    from ultralytics.utils.patches import torch_load

    rows = run / "results.csv"
    written = len(rows.read_text(encoding="utf-8").splitlines()) - 1 if rows.is_file() else 0
    last = run / "weights" / "last.pt"
    if not last.is_file():
        return written, 0
    epoch = torch_load(last, map_location="cpu")["epoch"]
    return written, -1 if epoch < 0 else epoch + 1


def worse_best(run: Path) -> str | None:
    """Return why best.pt is worse than results.csv says, None if it is not."""
    from ultralytics.utils.patches import torch_load

    best, (_, saved) = run / "weights" / "best.pt", epochs_in(run)
    if saved == 0:
        return None
    with (run / "results.csv").open(encoding="utf-8") as f:
        rows = list(csv.DictReader(f))
    highest_map = max(float(r["metrics/mAP50-95(B)"]) for r in rows if saved < 0 or int(r["epoch"]) <= saved)
    best_map = float(torch_load(best, map_location="cpu")["train_metrics"]["metrics/mAP50-95(B)"])
    return None if best_map >= highest_map - 1e-5 else f"best.pt has {best_map}, results.csv {highest_map}"
