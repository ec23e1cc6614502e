"""Small data sets and images. They import OpenCV only when they write: conftest.py imports this module first."""

from __future__ import annotations

from pathlib import Path


def write_tiny_data(root: Path, task: str, images: int = 8, size: int = 96) -> Path:
    """Write a data set of bright rectangles on noise and return its YAML."""
    import cv2
    import numpy as np

    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        (root / "images" / split).mkdir(parents=True)
        (root / "labels" / split).mkdir(parents=True)
        for i in range(images):
            image = rng.integers(0, 60, (size, size, 3), dtype=np.uint8)
            rows = []
            for _ in range(4):
                kind = int(rng.integers(0, 2))
                centre, side = rng.uniform(20, size - 20, 2), rng.uniform(10, 24, 2)
                angle = float(rng.uniform(0, 90)) if task == "obb" else 0.0
                corners = cv2.boxPoints((tuple(map(float, centre)), tuple(map(float, side)), angle))
                cv2.fillPoly(image, [corners.astype(np.int32)], (80, 240, 80) if kind else (80, 80, 240))
                corners = corners.clip(0, size) / size
                if task == "obb":
                    rows.append(f"{kind} " + " ".join(f"{v:.6f}" for v in corners.ravel()))
                else:
                    low, high = corners.min(0), corners.max(0)
                    rows.append(f"{kind} " + " ".join(f"{v:.6f}" for v in (*(low + high) / 2, *(high - low))))
            cv2.imwrite(str(root / "images" / split / f"{i}.png"), image)
            (root / "labels" / split / f"{i}.txt").write_text("\n".join(rows), encoding="utf-8")
    yaml = root / "data.yaml"
    text = f"path: {root.as_posix()}\ntrain: images/train\nval: images/val\nnames: {{0: red, 1: green}}\n"
    yaml.write_text(text, encoding="utf-8")
    return yaml


def write_bands(root: Path, channels: int) -> Path:
    """Write the tiny data set with images of so many channels, in files of a page a channel, and return its YAML."""
    import cv2
    import numpy as np

    yaml = write_tiny_data(root, "obb")
    for file in list((root / "images").rglob("*.png")):
        image = cv2.imread(str(file))
        bands = [np.ascontiguousarray(np.roll(image[..., c % 3], c, 0)) for c in range(channels)]
        cv2.imwritemulti(str(file.with_suffix(".tiff")), bands)
        file.unlink()
    yaml.write_text(yaml.read_text(encoding="utf-8") + f"channels: {channels}\n", encoding="utf-8")
    return yaml


def picture() -> bytes:
    """Return a PNG of 64 x 64 px."""
    import cv2
    import numpy as np

    return bytes(cv2.imencode(".png", np.full((64, 64, 3), 90, np.uint8))[1])
