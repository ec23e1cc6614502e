"""The high-frequency amplifier: what is trained, what is kept, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from ultralytics.nn.tasks import load_checkpoint

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.models.amplifier import Amplifier, high_features, one_to_many
from ds2d2_yolo.bridge.models.amplifier_store import (
    AmplifierCard,
    amplifier_folder,
    check_amplifier,
    load_amplifier,
    save_amplifier,
    stored_file,
)
from ds2d2_yolo.bridge.models.heads import dense_head, raw_predictions, take_levels
from ds2d2_yolo.bridge.models.teacher import load_teacher
from ds2d2_yolo.bridge.training.amplifier_trainer import AmplifierOBBTrainer
from ds2d2_yolo.bridge.training.obtain_amplifier import card_for
from ds2d2_yolo.core.wavelet import high_frequency
from ds2d2_yolo.errors import BadUseError

REPOSITORY = Path(__file__).resolve().parents[3]
CARD = AmplifierCard(
    teacher="t" * 64, data="d" * 64, wavelet="haar", classes=("red", "green"), shared=("green",), channels=(2, 1, 0),
    imgsz=96, fraction=1.0, epochs=2, map50=0.3, map50_95=0.1, teacher_map50=0.4, teacher_map50_95=0.2,
    ultralytics="8", torch="2", ds2d2="1",
)  # fmt: skip


def test_file_round_trip(tmp_path: Path) -> None:
    state = {"a": torch.rand(3, 2), "b": torch.arange(4)}
    save_amplifier(tmp_path / "folder" / "a.safetensors", state, CARD)
    loaded_state, card = load_amplifier(tmp_path / "folder" / "a.safetensors")
    assert card == CARD
    assert all(torch.equal(loaded_state[k], state[k]) for k in state)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["a.safetensors"]


def test_key_follows_the_origin_and_nothing_else() -> None:
    assert replace(CARD, epochs=3, map50=0.5, teacher_map50=1.0, ultralytics="9", torch="3", ds2d2="2").key == CARD.key
    changes = [
        {"teacher": "x"}, {"data": "x"}, {"wavelet": "db2"}, {"classes": ("red",)}, {"shared": ("red",)},
        {"channels": (0, 1, 2)}, {"imgsz": 64}, {"fraction": 0.5},
    ]  # fmt: skip
    assert len({replace(CARD, **change).key for change in [{}, *changes]}) == len(changes) + 1


def test_card_says_what_was_reached() -> None:
    assert CARD.reached == "mAP50 0.300, 75% of the teacher's 0.400; mAP50-95 0.100, 50% of the teacher's 0.200"
    assert replace(CARD, teacher_map50=0.0, teacher_map50_95=-1.0).reached == "mAP50 0.300; mAP50-95 0.100"


@pytest.mark.parametrize("content", [b"", b"\x10\x00\x00\x00\x00\x00\x00\x00{}", b"x" * 100])
def test_unreadable_files_are_refused(content: bytes, tmp_path: Path) -> None:
    file = tmp_path / "bad.safetensors"
    file.write_bytes(content)
    with pytest.raises(BadUseError, match=r"bad\.safetensors"):
        load_amplifier(file)


def test_other_versions_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "old.safetensors"
    save_file({"a": torch.rand(1)}, file, metadata={"format": "ds2d2-amplifier-1", "card": "{}"})
    with pytest.raises(BadUseError, match=r"old\.safetensors is no amplifier of this version"):
        load_amplifier(file)


def test_a_wrong_amplifier_is_refused_with_every_reason(checkpoint: Callable[..., Path], tmp_path: Path) -> None:
    teacher = load_teacher(str(checkpoint("yolov8s-obb.yaml")), "obb")
    fitting = replace(CARD, teacher=teacher.sha256)
    check_amplifier(fitting, teacher, "haar", tmp_path, data=CARD.data, channels=CARD.channels)
    check_amplifier(fitting, teacher, "haar", tmp_path)
    reasons = (
        r"another teacher .* wavelet is haar, this run's is db2; its classes are a, the teacher's are red, green; it "
        r"takes the data's channels \[2, 1, 0\], the teacher \[0, 1, 2\]; it is stale: its training data were others"
    )
    with pytest.raises(BadUseError, match=reasons):
        check_amplifier(replace(CARD, classes=("a",)), teacher, "db2", tmp_path, data="other", channels=(0, 1, 2))


@pytest.mark.parametrize("yaml", ["yolov8s-obb.yaml", "yolo26s.yaml"])
def test_answers_to_the_high_frequency_part(yaml: str, checkpoint: Callable[..., Path]) -> None:
    teacher = load_teacher(str(checkpoint(yaml)), "obb" if "obb" in yaml else "detect")
    head = one_to_many(dense_head(teacher.model, "teacher"))
    amplifier = Amplifier(teacher, head.state_dict(), [0, 1, 2], "db2")
    features = [torch.rand(1, c, n, n) for c, n in zip((128, 256, 512), (12, 6, 3), strict=True)]
    with torch.no_grad():
        predictions = amplifier(features)
        expected = raw_predictions(take_levels(head, [0, 1, 2]), [high_frequency(x, "db2") for x in features])
    torch.testing.assert_close(predictions["scores"], expected["scores"], rtol=1e-4, atol=1e-4)
    assert not any(p.requires_grad for p in amplifier.head.parameters())


def test_high_features_are_exact_under_autocast() -> None:
    features = [torch.randn(1, 4, 8, 8) * 100]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        high = high_features(features, "db2")
    assert torch.equal(high[0], high_frequency(features[0], "db2"))


def test_training_changes_the_head_alone(tiny_trainer: Callable[..., DS2D2Trainer], tmp_path: Path) -> None:
    """Trunk and its BatchNorm statistics stay to the bit; the head and its statistics move."""
    student = tiny_trainer("obb")
    teacher = student.run.teacher
    before = {k: v.clone() for k, v in teacher.model.state_dict().items()}
    shared = {k: getattr(student.args, k) for k in ("data", "imgsz", "batch", "device", "optimizer", "lr0", "nbs")}
    layers = len(teacher.model.model) - 1
    settings = {**shared, "model": teacher.path, "epochs": 1, "freeze": layers, "plots": False}
    trainer = AmplifierOBBTrainer(teacher, "haar", {**settings, "save_dir": str(tmp_path / "run")})
    trainer.train()
    assert all(torch.equal(v, before[k]) for k, v in teacher.model.state_dict().items()), "the teacher itself is copied"
    after = load_checkpoint(trainer.last)[0].state_dict()
    moved = {k for k, v in after.items() if not torch.equal(v.half(), before[k].half())}
    head = f"model.{layers}."
    assert moved
    assert all(k.startswith(head) for k in moved)
    assert any("running_mean" in k for k in moved)
    assert any(".cv3." in k and "weight" in k for k in moved)


def test_is_trained_once_and_found_again(
    tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = tiny_trainer("obb", amplifier_epochs=1, seed=11)
    card = card_for(first.run.teacher, first.data, first.args, "haar", 1)
    amplifier_file = stored_file(card)
    amplifier_file.unlink(missing_ok=True)
    first.train()
    assert amplifier_file.is_file()
    assert not list(amplifier_folder().glob(f"{card.key}-*"))
    assert (first.save_dir / "amplifier.safetensors").read_bytes() == amplifier_file.read_bytes()
    monkeypatch.setattr(AmplifierOBBTrainer, "train", lambda self: pytest.fail("trained again"))
    tiny_trainer("obb", amplifier_epochs=1, seed=12, name="second").train()


def test_a_training_that_was_cut_off_goes_on(
    tiny_trainer: Callable[..., DS2D2Trainer], monkeypatch: pytest.MonkeyPatch
) -> None:
    class Cut(Exception):
        """Stands for a kill right after an epoch was saved."""

    starts: list[int] = []
    original = AmplifierOBBTrainer.save_model

    def cut(self: AmplifierOBBTrainer) -> bool:
        starts.append(self.start_epoch)
        saved = original(self)
        if self.epoch == 0:
            raise Cut
        return saved

    monkeypatch.setattr(AmplifierOBBTrainer, "save_model", cut)
    student = tiny_trainer("obb", wavelet="db2", amplifier_epochs=3)  # a wavelet of its own: no other test keeps it
    with pytest.raises(Cut):
        student.train()
    tiny_trainer("obb", wavelet="db2", amplifier_epochs=3, name="again").train()
    assert starts == [0, 1, 1]


@pytest.mark.slow
def test_whole_run_where_only_named_types_may_be_loaded(
    tiny_data: Callable[[str], Path], checkpoint: Callable[..., Path], tmp_path: Path
) -> None:
    """The command under restricted loading: teacher, the amplifier's own checkpoints, the student's."""
    line = [
        sys.executable, "-m", "ds2d2_yolo", "train", f"teacher={checkpoint('yolov8s-obb.yaml', seed=5)}",
        "student=yolov8n-obb.yaml", f"data={tiny_data('obb')}", "imgsz=96", "epochs=1", "batch=4", "device=cpu",
        "plots=False", f"project={tmp_path}", "name=safe",
    ]  # fmt: skip
    env = {**os.environ, "ULTRALYTICS_SAFE_LOAD": "1", "PYTHONPATH": str(REPOSITORY)}
    done = subprocess.run(line, capture_output=True, text=True, env=env, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr[-1000:]
    assert (tmp_path / "safe" / "amplifier.safetensors").is_file()
    assert (tmp_path / "safe" / "weights" / "best.pt").is_file()
