"""Detections from the raw output of an exported YOLO model, in NumPy alone: letterbox, decoding, suppression.

`ds2d2-yolo export` copies this file beside the exported one and fills in the constants. It is a reference for devices
without PyTorch, such as boards with an NPU, and for ports to other languages. For a batch of one image:

    import numpy as np
    import onnxruntime
    import best_postprocess as post

    session = onnxruntime.InferenceSession("best.onnx")
    pixels, frame = post.letterbox(image)  # image: height x width x channels, uint8, RGB
    (raw, *_) = session.run(None, {session.get_inputs()[0].name: pixels})
    for x, y, w, h, angle, score, label in post.detect(raw[0], frame):
        print(post.NAMES[int(label)], score)
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

# The constants of the exported model.
NAMES: tuple[str, ...] = ("object",)
HEIGHT, WIDTH = 640, 640  # of the network's input, in pixels
ROTATED = True  # oriented boxes: the last row of the output is the angle
END2END = False  # the network suppresses overlaps by itself
CONF, IOU, MAX_DET = 0.25, 0.7, 300  # score above which a detection counts, overlap that suppresses, detections at most
# The end of the constants.

PADDING = 114  # grey of the letterbox's border
EPS = 1e-7  # of the overlap of oriented boxes


class Frame(NamedTuple):
    """Place of an image in the network's input.

    Attributes:
        scale (float): Pixels of the input over those of the image.
        left (int): Border on the left, in pixels of the input.
        top (int): Border at the top.
    """

    scale: float
    left: int
    top: int


def letterbox(image: Any, height: int = HEIGHT, width: int = WIDTH) -> tuple[Any, Frame]:
    """Scale an image into the network's input, with a grey border.

    Args:
        image (np.ndarray): Height x width x channels, uint8; RGB where there are 3.
        height (int): Of the input, in pixels.
        width (int): Of the input.

    Returns:
        pixels (np.ndarray): 1 x channels x height x width, float32 in [0, 1].
        frame (Frame): For `detect`.
    """
    scale = min(height / image.shape[0], width / image.shape[1])
    inner_height, inner_width = round(image.shape[0] * scale), round(image.shape[1] * scale)
    # the border is the same on both sides; of an odd one the larger part lies at the right and at the bottom
    left, top = round((width - inner_width) / 2 - 0.1), round((height - inner_height) / 2 - 0.1)
    pixels = np.full((height, width, image.shape[2]), PADDING, np.float32)
    pixels[top : top + inner_height, left : left + inner_width] = resize(image, inner_height, inner_width)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1)[None]) / np.float32(255), Frame(scale, left, top)


def resize(image: Any, height: int, width: int) -> Any:
    """Return an image resized by linear interpolation between pixel centres, rounded to whole levels.

    Args:
        image (np.ndarray): Height x width x channels, uint8.
        height (int): Wanted height in pixels.
        width (int): Wanted width.

    Returns:
        (np.ndarray): Float32.
    """
    image = image.astype(np.float32)
    for axis, size in enumerate((height, width)):
        length = image.shape[axis]
        position = ((np.arange(size) + 0.5) * length / size - 0.5).clip(0, length - 1)
        first = position.astype(np.int64)
        second = np.minimum(first + 1, length - 1)
        weight = (position - first).astype(np.float32).reshape([-1 if i == axis else 1 for i in range(3)])
        image = image.take(first, axis) * (1 - weight) + image.take(second, axis) * weight
    return np.floor(image + 0.5)


def detect(raw: Any, frame: Frame, conf: float = CONF, iou: float = IOU, max_det: int = MAX_DET) -> Any:
    """Return the detections of an image.

    Args:
        raw (np.ndarray): Output of the network for the image: (4 + classes + angle) x anchors with x, y, w, h in pixels
            of the input, scores from 0 to 1 and the angle in radians; of an end-to-end model detections x (6 or 7).
        frame (Frame): Of `letterbox`.
        conf (float): Score above which a detection counts.
        iou (float): Overlap above which the higher score suppresses the lower one of the same class.
        max_det (int): Largest number of detections.

    Returns:
        (np.ndarray): N x 7, by falling score: x, y of the centre, w, h in pixels of the image, angle in radians from 0
            to below pi / 2 (0 for upright boxes), score, class.
    """
    rows = decode(raw, conf)
    if not END2END:
        rows = suppress(rows, iou)
    return to_image(rows[:max_det], frame)


def decode(raw: Any, conf: float = CONF) -> Any:
    """Return the predictions above a score, each with its best class.

    Args:
        raw (np.ndarray): As in `detect`.
        conf (float): Score above which a prediction counts.

    Returns:
        (np.ndarray): N x 7 by falling score: x, y, w, h in pixels of the input, angle, score, class.
    """
    raw = np.asarray(raw, np.float32)
    if END2END:
        boxes, scores, labels, angles = raw[:, :4], raw[:, 4], raw[:, 5], raw[:, 6:]
        if not ROTATED:  # corners
            boxes = np.concatenate(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]), 1)
    else:
        classes = raw[4 : 4 + len(NAMES)]
        boxes, scores, labels, angles = raw[:4].T, classes.max(0), classes.argmax(0), raw[4 + len(NAMES) :].T
    angle = angles[:, 0] if ROTATED else np.zeros(len(boxes), np.float32)
    rows = np.column_stack((boxes, angle, scores, labels)).astype(np.float32)
    rows = rows[scores > conf]
    return rows[np.argsort(-rows[:, 5], kind="stable")]


def suppress(rows: Any, iou: float = IOU) -> Any:
    """Drop predictions that overlap one of the same class with a higher score.

    Oriented boxes are dropped by every higher score, dropped ones included, which is Ultralytics' Fast-NMS (Bolya et
    al., ICCV 2019, arXiv 1904.02689). Upright boxes are dropped by the higher scores that stay.

    Args:
        rows (np.ndarray): Of `decode`.
        iou (float): Overlap above which a prediction is dropped.

    Returns:
        (np.ndarray): The rows that stay, in the same order.
    """
    stays = np.ones(len(rows), bool)
    for i in range(len(rows)):
        if not (stays[i] or ROTATED):
            continue
        later = rows[i + 1 :]
        overlap = oriented_overlap(rows[i], later) if ROTATED else upright_overlap(rows[i], later)
        stays[i + 1 :] &= ~((overlap > iou) & (later[:, 6] == rows[i, 6]))
    return rows[stays]


def upright_overlap(box: Any, boxes: Any) -> Any:
    """Return the IoU of a box x, y, w, h with others."""
    low = np.maximum(box[:2] - box[2:4] / 2, boxes[:, :2] - boxes[:, 2:4] / 2)
    high = np.minimum(box[:2] + box[2:4] / 2, boxes[:, :2] + boxes[:, 2:4] / 2)
    shared = (high - low).clip(0).prod(1)
    return shared / (box[2] * box[3] + boxes[:, 2] * boxes[:, 3] - shared)


def oriented_overlap(box: Any, boxes: Any) -> Any:
    """Return the ProbIoU of a box x, y, w, h, angle with others (Llerena et al. 2021, arXiv 2106.06072).

    ``1 - sqrt(1 - exp(-D))``, with D the Bhattacharyya distance of the boxes as normal distributions.
    """
    a1, b1, c1 = covariance(box[None])
    a2, b2, c2 = covariance(boxes)
    dx, dy = box[0] - boxes[:, 0], box[1] - boxes[:, 1]
    determinant = (a1 + a2) * (b1 + b2) - (c1 + c2) ** 2
    distance = ((a1 + a2) * dy**2 + (b1 + b2) * dx**2) / (determinant + EPS) / 4
    distance = distance - (c1 + c2) * dx * dy / (determinant + EPS) / 2
    product = (a1 * b1 - c1**2).clip(0) * (a2 * b2 - c2**2).clip(0)
    distance = (distance + np.log(determinant / (4 * np.sqrt(product) + EPS) + EPS) / 2).clip(EPS, 100)
    return 1 - np.sqrt(1 - np.exp(-distance) + EPS)


def covariance(boxes: Any) -> tuple[Any, Any, Any]:
    """Return the covariance [[a, c], [c, b]] of boxes as normal distributions."""
    w, h, angle = boxes[:, 2] ** 2 / 12, boxes[:, 3] ** 2 / 12, boxes[:, 4]
    cos, sin = np.cos(angle), np.sin(angle)
    return w * cos**2 + h * sin**2, w * sin**2 + h * cos**2, (w - h) * cos * sin


def to_image(rows: Any, frame: Frame) -> Any:
    """Return detections in pixels of the image, with angles from 0 to below pi / 2.

    Args:
        rows (np.ndarray): Of `decode` or `suppress`.
        frame (Frame): Of `letterbox`.

    Returns:
        (np.ndarray): Rows of the same columns.
    """
    rows = rows.copy()
    rows[:, :2] -= frame.left, frame.top
    rows[:, :4] /= frame.scale
    turned = rows[:, 4] % np.pi >= np.pi / 2
    rows[turned, 2:4] = rows[turned, 3:1:-1]
    rows[:, 4] %= np.pi / 2
    return rows


def corners(rows: Any) -> Any:
    """Return the corners of boxes.

    Args:
        rows (np.ndarray): N x 7 of `detect`.

    Returns:
        (np.ndarray): N x 4 x 2, x and y.
    """
    cos, sin = np.cos(rows[:, 4]), np.sin(rows[:, 4])
    along = np.stack((cos, sin), 1) * rows[:, 2:3] / 2
    across = np.stack((-sin, cos), 1) * rows[:, 3:4] / 2
    return rows[:, None, :2] + np.stack((along + across, along - across, -along - across, across - along), 1)
