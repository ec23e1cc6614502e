"""Arrays of an explanation, without models."""

from __future__ import annotations

from typing import Any

import numpy as np

from ds2d2_yolo.explanation.facts import AmplifierMaps, BandMaps, Boxes, Explanation, ImageExplanation, LevelMaps

SIDE = 128


def boxes(*labels: str, seed: int = 0) -> Boxes:
    """Upright boxes of these classes."""
    rng = np.random.default_rng(seed)
    low = rng.uniform(10, 80, (len(labels), 2))
    high = low + rng.uniform(8, 30, (len(labels), 2))
    corners = np.stack([low, np.stack([high[:, 0], low[:, 1]], 1), high, np.stack([low[:, 0], high[:, 1]], 1)], 1)
    return Boxes(corners, labels, np.ones(len(labels)))


def image(name: str = "a.png", strides: tuple[int, ...] = (8, 16, 32), scale: float = 1.0, **changed: Any
          ) -> ImageExplanation:  # fmt: skip
    """An image with maps of noise; `scale` multiplies features and energies."""
    rng = np.random.default_rng(1)

    def noise(side: int) -> Any:
        return (scale * rng.random((side, side))).astype(np.float32)

    levels = tuple(
        LevelMaps(
            s, (0.0, 0.0), 1 + noise(SIDE // s // 2) / scale, *(BandMaps(*(noise(SIDE // s // 2) for _ in range(3)))
            for _ in range(2))
        )
        for s in strides
    )  # fmt: skip
    cells = SIDE // strides[0]
    maps = AmplifierMaps(strides[0], noise(cells), noise(cells), np.eye(cells, dtype=bool))
    values = {
        term: tuple(float(scale * (i + 1)) for i in range(len(strides))) for term in ("exlo", "exhi", "imfu", "imhi")
    }
    facts = {
        "file": name, "pixels": rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8), "area": (0, 0, SIDE, SIDE),
        "truth": boxes("red", "green", "green"), "teacher": boxes("red", "blue", seed=1), "student": boxes(),
        "levels": levels, "amplifiers": {"imfu": maps, "imhi": maps}, "values": values,
    }  # fmt: skip
    return ImageExplanation(**{**facts, **changed})


def explanation(*images: ImageExplanation, **changed: Any) -> Explanation:
    """An explanation of these images."""
    facts = {
        "teacher": "/models/teacher.pt", "student": "/runs/train/weights/best.pt", "data": "data.yaml", "split": "val",
        "imgsz": SIDE, "conf": 0.25, "wavelet": "haar", "classes": ("red", "green", "blue"),
        "shared": "the teacher has all classes of the student",
        "fitted_to": "32 images of split=train", "r2": tuple(0.5 for _ in images[0].levels), "no_amplifier": "",
        "images": images,
    }  # fmt: skip
    return Explanation(**{**facts, **changed})
