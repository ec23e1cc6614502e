"""The file that says what a run was made of, and that the same again gives the same weights."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.utils.patches import torch_load

import ds2d2_yolo
from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.training.setup import provenance
from ds2d2_yolo.bridge.training.setup.provenance import RUN_FILE, append_provenance
from ds2d2_yolo.bridge.training.setup.run_setup import begin_run
from tests.helpers.runs import student_of
from tests.helpers.trainers import PAIRS


def weights(file: Path) -> dict[str, Any]:
    return dict(torch_load(file, map_location="cpu")["model"].state_dict())


def test_same_seed_same_weights_and_the_run_says_what_it_was_made_of(
    tiny_trainer: Callable[..., DS2D2Trainer], tmp_path: Path, tiny_data: Callable[[str], Path]
) -> None:
    runs = []
    for name in ("one", "other"):
        trainer = tiny_trainer("obb", name=name, epochs=2, imhi=0, mosaic=1.0)
        trainer.train()
        torch.rand(3)  # what came before in a process does not count
        runs.append(trainer)
    one, other = (weights(t.last) for t in runs)
    assert all(torch.equal(one[k], other[k]) for k in one)
    (first_entry,), (second_entry,) = (json.loads((t.save_dir / RUN_FILE).read_text(encoding="utf-8")) for t in runs)
    assert first_entry["hashes"] == second_entry["hashes"]
    assert first_entry["code"] == second_entry["code"]
    assert {len(first_entry["hashes"][k]) for k in ("teacher", "train", "val")} == {64}
    assert first_entry["hashes"]["amplifier"] is None
    assert first_entry["versions"]["torch"] == str(torch.__version__)
    assert first_entry["settings"]["imhi"] == 0
    assert (first_entry["ultralytics"]["seed"], first_entry["ultralytics"]["epochs"]) == (3, 2)

    label = next((tiny_data("obb").parent / "labels" / "val").glob("*.txt"))
    before = label.read_text(encoding="utf-8")
    label.write_text(before + "\n", encoding="utf-8")
    try:
        trainer = tiny_trainer("obb", name="third", imhi=0)
        begin_run(trainer.run, student_of(trainer), trainer.save_dir)
    finally:
        label.write_text(before, encoding="utf-8")
    (changed_entry,) = json.loads((trainer.save_dir / RUN_FILE).read_text(encoding="utf-8"))
    assert changed_entry["hashes"]["val"] != first_entry["hashes"]["val"]
    assert changed_entry["hashes"]["train"] == first_entry["hashes"]["train"]


def test_the_hash_of_the_code_is_that_of_the_whole_package() -> None:
    assert Path(str(ds2d2_yolo.__file__)).parent == provenance.PACKAGE


@pytest.mark.parametrize("earlier", ["[{}]", "half a fi"])
def test_a_run_that_goes_on_is_one_more_entry(tmp_path: Path, earlier: str) -> None:
    (tmp_path / RUN_FILE).write_text(earlier, encoding="utf-8")
    assert len(json.loads(append_provenance(tmp_path, {"began": "now"}, resumed=True))) == (
        2 if earlier == "[{}]" else 1
    )
    assert len(json.loads(append_provenance(tmp_path, {"began": "now"}, resumed=False))) == 1


@pytest.mark.parametrize("pretrained", [True, False])
def test_the_student_has_a_hash_where_it_starts_from_a_checkpoint(
    tiny_trainer: Callable[..., DS2D2Trainer], checkpoint: Callable[..., Path], pretrained: bool
) -> None:
    model = checkpoint(PAIRS["detect"][1])
    trainer = tiny_trainer("detect", imhi=0, model=str(model), pretrained=pretrained)
    student_hash = provenance.provenance_of(trainer.run, None)["hashes"]["student"]
    assert student_hash == (hashlib.sha256(model.read_bytes()).hexdigest() if pretrained else None)
