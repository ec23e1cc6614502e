"""Trained high-frequency amplifiers on disk: their files, their origin, and their check against a run."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, get_args, get_origin, get_type_hints

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor
from ultralytics.utils import USER_CONFIG_DIR

from ds2d2_yolo.bridge.data.class_map import join_names
from ds2d2_yolo.bridge.models.amplifier import FORMAT, KINDS
from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.bridge.upstream.messages import first_line
from ds2d2_yolo.errors import BadUseError
from ds2d2_yolo.utils.atomic_files import replacing

SCHEDULE = 2  # of the training, part of the key: a new number where it changes, so that amplifiers are trained anew


@dataclass(frozen=True)
class AmplifierCard:
    """Origin and accuracy of an amplifier; it is valid for this origin only.

    Attributes:
        teacher (str): SHA-256 of the teacher's weights.
        data (str): SHA-256 of the training split, see `data.data_hash`.
        wavelet (str): Wavelet of the high-frequency features.
        classes (tuple[str, ...]): The teacher's classes, in the order of its outputs.
        shared (tuple[str, ...]): The shared classes that it was trained on, by the data's names.
        channels (tuple[int, ...]): The data's channels that the teacher takes, in the teacher's order.
        imgsz (int): Image size of its training in pixels.
        fraction (float): Share of the training split, or a whole number of images.
        epochs (int): Epochs of its training, before early stopping.
        map50 (float): Its validation mAP50 on high-frequency features, -1 where it was not measured.
        map50_95 (float): Likewise mAP50-95.
        teacher_map50 (float): The teacher's mAP50 on the same images and classes, -1 where it was not measured.
        teacher_map50_95 (float): Likewise mAP50-95.
        ultralytics (str): Version it was trained with.
        torch (str): Likewise of torch.
        ds2d2 (str): Likewise of this package.
    """

    teacher: str
    data: str
    wavelet: str
    classes: tuple[str, ...]
    shared: tuple[str, ...]
    channels: tuple[int, ...]
    imgsz: int
    fraction: float
    epochs: int
    map50: float = -1.0
    map50_95: float = -1.0
    teacher_map50: float = -1.0
    teacher_map50_95: float = -1.0
    ultralytics: str = ""
    torch: str = ""
    ds2d2: str = ""

    @property
    def key(self) -> str:
        """(str): Name of the stored file, 16 hexadecimal digits. The epochs are not part of it."""
        origin = [SCHEDULE, self.teacher, self.data, self.wavelet, self.classes, self.shared, self.channels]
        return hashlib.sha256(json.dumps([*origin, self.imgsz, self.fraction]).encode()).hexdigest()[:16]

    @property
    def reached(self) -> str:
        """(str): Its mAP relative to the teacher's, such as 'mAP50 0.300, 75 % of the teacher's 0.400; ...'."""
        return "; ".join(
            f"{name} {value:.3f}" + (f", {value / teacher:.0%} of the teacher's {teacher:.3f}" if teacher > 0 else "")
            for name, value, teacher in (
                ("mAP50", self.map50, self.teacher_map50),
                ("mAP50-95", self.map50_95, self.teacher_map50_95),
            )
        )


def amplifier_folder() -> Path:
    """Return the folder of the amplifiers that are stored between runs, in Ultralytics' configuration folder."""
    return Path(USER_CONFIG_DIR) / "ds2d2" / "amplifiers"


def stored_file(card: AmplifierCard) -> Path:
    """Return the file of the stored amplifier of an origin.

    Args:
        card (AmplifierCard): Origin.

    Returns:
        (Path): The file; it need not exist.
    """
    return amplifier_folder() / f"{card.key}.safetensors"


def stored_card(requested: AmplifierCard) -> AmplifierCard | None:
    """Return the card of the stored amplifier of an origin, which is usable if it has at least the requested epochs.

    Args:
        requested (AmplifierCard): Origin, with the requested epochs.

    Returns:
        (AmplifierCard | None): None if there is no file that can be read.
    """
    try:
        return load_amplifier(stored_file(requested))[1]
    except BadUseError:
        return None


def save_amplifier(path: Path, state: dict[str, Tensor], card: AmplifierCard) -> None:
    """Write an amplifier as safetensors with its card, atomically.

    Args:
        path (Path): File to write; its folder is created.
        state (dict[str, Tensor]): Weights of the head.
        card (AmplifierCard): Its origin.
    """
    tensors = {k: v.detach().cpu().contiguous() for k, v in state.items()}
    with replacing(path) as temporary:
        # save_file would leave a second temporary file behind when it is killed (safetensors 0.8)
        temporary.write_bytes(save(tensors, metadata={"format": FORMAT, "card": json.dumps(asdict(card))}))


def load_amplifier(path: Path) -> tuple[dict[str, Tensor], AmplifierCard]:
    """Read an amplifier's weights and card.

    Args:
        path (Path): File that `save_amplifier` wrote.

    Returns:
        state (dict[str, Tensor]): Weights of the head.
        card (AmplifierCard): Its origin.

    Raises:
        BadUseError: If the file is missing, unreadable or of another kind.
    """
    if not path.is_file():
        raise BadUseError(f"amplifier={path} does not exist")
    try:
        with safe_open(path, framework="pt") as f:
            metadata = f.metadata() or {}
            state = {k: f.get_tensor(k) for k in f.keys()}  # noqa: SIM118  a safe_open handle is no mapping
        if metadata.get("format") != FORMAT:
            raise BadUseError(f"amplifier={path} is no amplifier of this version (wanted format '{FORMAT}')")
        card = _card(metadata["card"])
    except (SafetensorError, KeyError, TypeError, ValueError, OverflowError, OSError) as e:
        if isinstance(e, BadUseError):
            raise
        raise BadUseError(f"amplifier={path} cannot be read: {first_line(e)}") from e
    return state, card


def _card(text: str) -> AmplifierCard:
    """Return a card from its JSON.

    Raises:
        KeyError: If a value is missing.
        ValueError: If a value has another type than the card's.
    """
    content: dict[str, Any] = json.loads(text)
    values: dict[str, Any] = {}
    for name, kind in get_type_hints(AmplifierCard).items():
        value = content[name]
        several = get_origin(kind) is tuple
        inner = get_args(kind)[0] if several else kind
        parts = value if several else [value]
        if not isinstance(parts, list) or any(isinstance(p, bool) or not isinstance(p, KINDS[inner]) for p in parts):
            raise ValueError(f"its card's {name} is {str(value)[:40]!r}")
        values[name] = tuple(parts) if several else inner(value)
    return AmplifierCard(**values)


def check_amplifier(
    card: AmplifierCard,
    teacher: Teacher,
    wavelet: str,
    path: Path,
    data: str | None = None,
    channels: tuple[int, ...] | None = None,
    shared: tuple[str, ...] | None = None,
) -> None:
    """Refuse an amplifier of another teacher, wavelet, set of classes or data set.

    Args:
        card (AmplifierCard): Its card.
        teacher (Teacher): The teacher of this run.
        wavelet (str): The wavelet of this run.
        path (Path): Its file, for messages.
        data (str | None): Hash of this run's training split. None leaves the data unchecked: a resumed run keeps the
            copy that it began with, even if the data have changed since.
        channels (tuple[int, ...] | None): The data's channels that the teacher takes; None leaves them unchecked.
        shared (tuple[str, ...] | None): The data's classes that this run distils; None leaves them unchecked.

    Raises:
        BadUseError: With all reasons.
    """
    wrong = []
    if card.teacher != teacher.sha256:
        wrong.append(f"it was trained from another teacher ({card.teacher[:12]}, this one is {teacher.sha256[:12]})")
    if card.wavelet != wavelet:
        wrong.append(f"its wavelet is {card.wavelet}, this run's is {wavelet}")
    if card.classes != teacher.names:
        wrong.append(f"its classes are {join_names(card.classes)}, the teacher's are {join_names(teacher.names)}")
    if channels is not None and card.channels != channels:
        wrong.append(f"it takes the data's channels {list(card.channels)}, the teacher {list(channels)}")
    if shared is not None and card.shared != shared:
        wrong.append(f"it has learnt the classes {join_names(card.shared)}, this run distils {join_names(shared)}")
    if data is not None and card.data != data:
        wrong.append("it is stale: its training data were others or have changed since")
    if wrong:
        raise BadUseError(f"amplifier={path} does not fit: {'; '.join(wrong)}; leave amplifier= out to train one")
