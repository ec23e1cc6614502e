"""Students that train with INT8 fake quantisation."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics import YOLO
from ultralytics.utils.patches import torch_load

from ds2d2_yolo import DS2D2Trainer
from ds2d2_yolo.bridge.models.adapters import ATTRIBUTE, get_adapters
from ds2d2_yolo.bridge.upstream.modelopt import require_modelopt
from tests.helpers.quantised import needs_modelopt, quantisers
from tests.helpers.settings import OFF, TINY
from tests.helpers.trace import Trace, same
from tests.helpers.trainers import PAIRS

pytestmark = needs_modelopt
Trainer = Callable[..., DS2D2Trainer]


@pytest.mark.parametrize("task", ["obb", "detect"])
def test_all_gains_zero_is_ultralytics_own_quantised_run(
    task: str, tiny_trainer: Trainer, tiny_data: Callable[[str], Path], tmp_path: Path
) -> None:
    require_modelopt("this test")  # its import draws a random number, which a first run would do after its seed
    student, traces = PAIRS[task][1], (Trace(), Trace())
    plain = YOLO(student)
    traces[0].follow(plain)
    plain.train(data=str(tiny_data(task)), **{**TINY, "epochs": 2, "quantize": 8}, project=str(tmp_path), name="plain")
    trainer = tiny_trainer(task, model=student, epochs=2, quantize=8, **OFF)  # it seeds the random numbers
    traces[1].follow(trainer)
    trainer.train()
    assert len(traces[0].losses) == 4
    assert traces[0].losses == traces[1].losses
    assert any("amax" in name for name in traces[0].weights)
    assert same(traces[0].weights, traces[1].weights)


@pytest.mark.parametrize("task", ["obb", "detect"])
def test_the_student_is_quantised_and_nothing_else(task: str, tiny_trainer: Trainer, tmp_path: Path) -> None:
    trainer, seen = tiny_trainer(task, epochs=2, quantize=8), {}

    def look(t: Any) -> None:
        distiller = t.distiller
        frozen = [distiller.teacher.model, distiller.amplifier.head, distiller.adapters]
        seen.update(
            student=quantisers(t.model), frozen=[q for m in frozen for q in quantisers(m)],
            shared=[a is b for a, b in zip(get_adapters(t.model).parameters(), distiller.adapters.parameters(), strict=True)],
            grads=[float(p.grad.abs().sum()) if p.grad is not None else None for p in distiller.adapters.parameters()],
            file=torch_load(t.last, map_location="cpu"), loaded=YOLO(str(t.last)),
            ema={k: v.clone() for k, v in t.ema.ema.state_dict().items()},
        )  # fmt: skip

    trainer.add_callback("on_model_save", look)
    trainer.train()
    assert seen["student"] and not any(ATTRIBUTE in name for name in seen["student"])
    assert not seen["frozen"]
    assert all(seen["shared"])
    print(seen["grads"])
    file = seen["file"]
    assert not any("ds2d2" in str(k) for k in file["modelopt"]["ranges"])
    assert "ds2d2" not in str(file["modelopt"])
    assert get_adapters(file["ema"]) is not None
    assert quantisers(seen["loaded"].model) == seen["student"]
