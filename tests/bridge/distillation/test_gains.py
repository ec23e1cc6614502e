"""The gains: what is chosen from measured gradients, when, and how they go over the epochs."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from ds2d2_yolo.bridge.distillation.gains import (
    CALIBRATION_BATCHES,
    MAX_GAIN,
    MONITOR_BATCHES,
    Gains,
    gain_factor,
)
from ds2d2_yolo.bridge.distillation.gradients.levels import TASK
from ds2d2_yolo.config.settings import TERMS, Settings
from tests.helpers.terms import ACTIVE

EPOCHS, BATCHES = 10, 40
NORMS = {TASK: 2.0, "exlo": 0.5, "exhi": 0.1, "imfu": 0.25, "imhi": 4.0}


def settings(**keys: Any) -> Settings:
    return Settings(teacher="t.pt", **keys)


def measure(gains: Gains, *norms: dict[str, float], one2many_weight: float = 1.0) -> int:
    """Feed batches until none is due; the last norms are repeated."""
    count = 0
    while gains.calibrating:
        gains.calibrate(norms[min(count, len(norms) - 1)], one2many_weight, ())
        count += 1
    return count


def started(epoch: int = 3, warm: bool = True, batches: int = BATCHES, **keys: Any) -> Gains:
    gains = Gains(settings(**keys))
    gains.start_epoch(epoch, EPOCHS, batches, warm)
    return gains


def test_a_chosen_gain_sends_its_share() -> None:
    gains = started(exlo_share=0.2, exhi_share=0.05, imfu_share=0.5, imhi_share=0.1)
    assert gains.current(1) == dict.fromkeys(ACTIVE, 0.0)
    measure(gains, NORMS)
    chosen = gains.current(1)
    assert chosen == pytest.approx({"exlo": 0.8, "exhi": 1.0, "imfu": 4.0, "imhi": 0.05})
    assert gains.shares() == pytest.approx({"exlo": 0.2, "exhi": 0.05, "imfu": 0.5, "imhi": 0.1})


def test_one_outlier_among_the_batches_changes_nothing() -> None:
    plain, hit = started(), started()
    measure(plain, NORMS)
    measure(hit, NORMS, {**NORMS, "exlo": 50 * NORMS["exlo"]}, NORMS)
    assert hit.current(1) == plain.current(1)


def test_gains_settle_in_the_first_epoch_after_the_warmup() -> None:
    gains = started(epoch=0, warm=False)
    assert measure(gains, NORMS) == CALIBRATION_BATCHES
    first = gains.current(1)
    assert not gains.frozen
    gains.start_epoch(1, EPOCHS, BATCHES, warm=False)
    doubled = {**NORMS, TASK: 4.0}
    gains.calibrate(doubled, 1, ())
    assert gains.current(1) == first, "a measurement that is not complete leaves the gains alone"
    measure(gains, doubled)
    assert gains.current(1) == pytest.approx({t: 2 * g for t, g in first.items()})
    gains.start_epoch(2, EPOCHS, BATCHES, warm=True)
    measure(gains, NORMS)
    assert gains.frozen
    assert gains.current(1) == pytest.approx(first)
    gains.start_epoch(3, EPOCHS, BATCHES, warm=True)
    assert measure(gains, doubled) == MONITOR_BATCHES
    assert gains.current(1) == pytest.approx(first), "later measurements are for the log"
    assert gains.shares()["imfu"] == pytest.approx(gains.settings.imfu_share / 2)


def test_the_first_batch_already_gets_gains() -> None:
    gains = started(epoch=0, warm=False)
    gains.calibrate(NORMS, 1, ())
    assert all(g > 0 for g in gains.current(1).values())


def test_short_epochs_settle_too() -> None:
    gains = started(batches=2)
    assert measure(gains, NORMS) == 2
    assert gains.frozen


def test_given_gains_stay_and_are_watched() -> None:
    gains = started(exlo=0.3, imhi=0)
    assert measure(gains, NORMS) == CALIBRATION_BATCHES
    chosen = gains.current(1)
    assert chosen["exlo"] == 0.3
    assert "imhi" not in chosen
    assert gains.shares()["exlo"] == pytest.approx(0.3 * 0.25)
    fixed = started(gains=1)
    assert fixed.frozen
    assert fixed.current(1) == dict.fromkeys(ACTIVE, 1.0)
    assert measure(fixed, NORMS) == MONITOR_BATCHES


def test_gains_follow_the_fading_of_one_to_many() -> None:
    """The task's gradient fades with the branch; measured at any point, the share is the same at every other."""
    early, late = started(), started()
    measure(early, NORMS, one2many_weight=1.0)
    faded = {**NORMS, TASK: NORMS[TASK] * 0.25}
    measure(late, faded, one2many_weight=0.25)
    assert late.current(0.25) == pytest.approx(early.current(0.25))
    assert early.current(0.25) == pytest.approx({t: g / 4 for t, g in early.current(1).items()})
    assert late.shares() == pytest.approx(early.shares())


@pytest.mark.parametrize("bad", [0.0, math.nan, math.inf])
def test_batches_without_a_gradient_are_left_out(bad: float) -> None:
    gains, plain = started(), started()
    measure(gains, {**NORMS, "exlo": bad}, {**NORMS, TASK: bad}, NORMS)
    measure(plain, NORMS)
    assert gains.current(1) == plain.current(1)
    never = started()
    measure(never, {**NORMS, "exlo": bad})
    assert never.current(1)["exlo"] == 0
    assert math.isnan(never.columns()["share/exlo"])


def test_a_gradient_of_next_to_nothing_is_not_blown_up() -> None:
    gains = started()
    measure(gains, {**NORMS, "exlo": 1e-30})
    assert gains.current(1)["exlo"] == MAX_GAIN


def test_state_survives_and_another_batch_size_measures_again() -> None:
    gains = started()
    measure(gains, NORMS)
    resumed = Gains(gains.settings, json.loads(json.dumps(gains.state())))
    resumed.start_epoch(4, EPOCHS, BATCHES, warm=True)
    assert resumed.frozen
    assert resumed.current(1) == gains.current(1)
    resumed.recalibrate()
    resumed.start_epoch(4, EPOCHS, BATCHES, warm=True)
    assert measure(resumed, {**NORMS, TASK: 4.0}) == CALIBRATION_BATCHES
    assert resumed.current(1) == pytest.approx({t: 2 * g for t, g in gains.current(1).items()})


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({}, [1, 1, 1, 1, 1]),
        ({"gain_warmup": 2}, [1 / 3, 2 / 3, 1, 1, 1]),
        ({"gain_schedule": "linear"}, [1, 0.75, 0.5, 0.25, 0]),
        ({"gain_schedule": "linear", "gain_final": 0.2}, [1, 0.8, 0.6, 0.4, 0.2]),
        ({"gain_schedule": "cosine"}, [1, 0.8536, 0.5, 0.1464, 0]),
        ({"gain_epochs": 3}, [1, 1, 1, 0, 0]),
        ({"gain_epochs": 3, "gain_schedule": "linear", "gain_final": 0.5}, [1, 0.75, 0.5, 0, 0]),
        ({"gain_epochs": 9, "gain_schedule": "linear"}, [1, 0.75, 0.5, 0.25, 0]),
        ({"gain_epochs": 1, "gain_schedule": "cosine"}, [1, 0, 0, 0, 0]),
    ],
)
def test_schedule(keys: dict[str, Any], expected: list[float]) -> None:
    factors = [gain_factor(settings(**keys), epoch, 5) for epoch in range(5)]
    assert factors == pytest.approx(expected, abs=1e-4)


def test_nothing_settles_unmeasured() -> None:
    """An epoch of NaN, which is repeated, and a term without gradient: both are measured again, and named."""
    gains = started()
    measure(gains, dict.fromkeys(NORMS, math.nan))
    assert not gains.frozen
    assert set(gains.warnings()) == set(ACTIVE)
    gains.start_epoch(3, EPOCHS, BATCHES, warm=True)
    measure(gains, {**NORMS, "imhi": 0.0})
    assert not gains.frozen
    assert "imhi has vanished" in gains.warnings()["imhi"]
    gains.start_epoch(4, EPOCHS, BATCHES, warm=True)
    measure(gains, NORMS)
    assert gains.frozen
    assert gains.current(1)["imhi"] > 0


def test_one_outlier_dominates_nothing() -> None:
    gains = started()
    measure(gains, NORMS)
    gains.start_epoch(4, EPOCHS, BATCHES, warm=True)
    measure(gains, {**NORMS, "exlo": 50 * NORMS["exlo"]}, NORMS)
    assert gains.warnings() == {}


def test_an_epoch_without_distillation_measures_nothing() -> None:
    gains = started(epoch=3, gain_epochs=3)
    assert gains.factor == 0
    assert not gains.calibrating


def test_remarks_name_what_dominates_or_vanishes() -> None:
    gains = started()
    measure(gains, NORMS)
    assert gains.warnings() == {}
    gains.start_epoch(4, EPOCHS, BATCHES, warm=True)
    measure(gains, {**NORMS, "exlo": NORMS["exlo"] * 1000, "imhi": NORMS["imhi"] / 1000})
    warnings = gains.warnings()
    assert set(warnings) == {"exlo", "imhi"}
    assert "exlo dominates" in warnings["exlo"]
    assert "imhi has vanished" in warnings["imhi"]


@pytest.mark.parametrize("warm", [True, False])
def test_a_batch_that_could_not_be_measured_changes_nothing(warm: bool) -> None:
    gains = started(warm=warm)
    assert not gains.calibrated
    measure(gains, NORMS)
    assert gains.calibrated
    before, settled = gains.current(1.0), gains.frozen
    gains.start_epoch(4, EPOCHS, BATCHES, warm=True)
    assert measure(gains, {}) == 1, "tried once in an epoch"
    assert gains.current(1.0) == before
    assert gains.frozen == settled
    assert list(gains.warnings()) == ["unmeasured"]
    assert all(math.isnan(gains.columns()[f"share/{t}"]) for t in ACTIVE)
    gains.recalibrate()
    assert not gains.calibrated, "another batch size has to be measured"


def test_row_has_every_column_whatever_is_on() -> None:
    expected = {"grad/task", *(f"{kind}/{t}" for kind in ("gain", "share") for t in TERMS)}
    expected |= {"left_out/images", "left_out/batches"}
    for gains in (started(), started(imhi=0, implicit=False), started(gain_epochs=1)):
        measure(gains, NORMS)
        assert set(gains.columns()) == expected


LEVELS = {"task@8": 1.6, "task@32": 1.2, "exlo@8": 0.3, "exlo@32": 0.4, "imfu@8": 0.25, "imfu@32": math.nan}


def test_shares_of_a_level_take_both_gradients_on_it() -> None:
    gains = started(exlo=2.0, exhi=0, imfu=4.0, imhi=0)
    measure(gains, {**NORMS, **LEVELS})
    columns = gains.columns([8.0, 32.0])
    assert [columns["grad/task@8"], columns["grad/task@32"]] == [1.6, 1.2]
    assert columns["share/exlo@8"] == pytest.approx(2 * 0.3 / 1.6)
    assert columns["share/exlo@32"] == pytest.approx(2 * 0.4 / 1.2)
    assert columns["share/imfu@8"] == pytest.approx(4 * 0.25 / 1.6)
    assert math.isnan(columns["share/imfu@32"]), "no gradient reached it"
    assert [columns["share/exhi@8"], columns["share/imhi@32"]] == [0, 0]


def test_columns_of_levels_are_the_same_in_every_epoch() -> None:
    gains = started(gain_epochs=4)
    measure(gains, {**NORMS, **LEVELS})
    first = gains.columns([8.0, 32.0])
    gains.start_epoch(4, EPOCHS, BATCHES, warm=True)
    later = gains.columns([8.0, 32.0])
    assert list(later) == list(first)
    assert math.isnan(later["share/exlo@8"])
    assert len(gains.measured) == CALIBRATION_BATCHES, "those of the last epoch with a measurement stay"


def test_levels_do_not_change_the_gains() -> None:
    plain, with_levels = started(), started()
    measure(plain, NORMS)
    measure(with_levels, {**NORMS, **LEVELS})
    assert with_levels.current(1) == plain.current(1)
    assert with_levels.state() == plain.state()


def test_counts_what_was_left_out_epoch_by_epoch() -> None:
    gains, yes, no = started(), torch.tensor(True), torch.tensor(False)
    assert gains.columns()["left_out/images"] == gains.columns()["left_out/batches"] == 0
    gains.count_left_out(torch.tensor([True, False, False]), {"exlo": no, "exhi": no, "imfu": no, "imhi": no})
    gains.count_left_out(torch.tensor([True, True, False]), {"exlo": yes, "exhi": yes, "imfu": no, "imhi": no})
    assert (gains.columns()["left_out/images"], gains.columns()["left_out/batches"]) == (3, 1)
    warnings = gains.warnings()
    assert "3 images had no finite answer" in warnings["images 3"]
    assert "exlo in 1, exhi in 1" in warnings["batches 3"]
    gains.start_epoch(1, 10, 8, warm=True)
    assert gains.columns()["left_out/images"] == 0
    assert gains.warnings() == {}


STRIDES = [8.0, 32.0]
BY_LEVEL = {TASK: 2.0, "task@8": 1.6, "task@32": 1.2, "exlo": 0.5, "exlo@8": 0.3, "exlo@32": 0.4, "imfu": 0.25}
WEIGHTS = [2 * 16 / 25, 2 * 9 / 25]  # 1.6 / 0.3 and 1.2 / 0.4, of mean 1


def balanced(**keys: Any) -> Gains:
    return started(**{"level_balance": "measured", "exhi": 0, "imhi": 0, **keys})


def measure_levels(gains: Gains, norms: dict[str, float]) -> int:
    """Feed the same batch until none is due."""
    count = 0
    while gains.calibrating:
        gains.calibrate(norms, 1, STRIDES)
        count += 1
    return count


def test_a_gain_is_that_of_the_weighted_term() -> None:
    gains = balanced(exlo_share=0.2)
    measure_levels(gains, BY_LEVEL)
    assert gains.frozen
    assert gains.level_weights == {"exlo": pytest.approx(WEIGHTS)}
    columns = gains.columns(STRIDES)
    weighted = [WEIGHTS[0] * 0.3, WEIGHTS[1] * 0.4]
    assert gains.current(1)["exlo"] == pytest.approx(0.2 * 2 / math.hypot(*weighted))
    assert [columns["share/exlo"], columns["share/exlo@8"], columns["share/exlo@32"]] == pytest.approx([0.2] * 3)
    assert [columns["weight/exlo@8"], columns["weight/exlo@32"]] == pytest.approx(WEIGHTS)
    plain = started(exhi=0, imhi=0)
    measure_levels(plain, BY_LEVEL)
    assert gains.current(1)["imfu"] == plain.current(1)["imfu"]
    assert set(columns) - set(plain.columns(STRIDES)) == {"weight/exlo@8", "weight/exlo@32"}
    assert plain.level_weights == {}


@pytest.mark.parametrize("keys", [{}, {"gains": 1}], ids=["automatic", "given"])
def test_weights_are_measured_and_frozen_with_the_gains(keys: dict[str, Any]) -> None:
    gains = balanced(epoch=0, warm=False, **keys)
    assert not gains.calibrated
    gains.calibrate(BY_LEVEL, 1, STRIDES)
    first = dict(gains.level_weights)
    assert first == {"exlo": pytest.approx(WEIGHTS)}, "the first batch already gets weights"
    assert 1 + measure_levels(gains, BY_LEVEL) == CALIBRATION_BATCHES
    assert not gains.frozen, "the warm-up goes on"
    other = {**BY_LEVEL, "task@8": 0.4}
    for epoch, batches in ((1, CALIBRATION_BATCHES), (2, MONITOR_BATCHES)):
        gains = Gains(gains.settings, json.loads(json.dumps(gains.state())))  # a resumed run
        before = dict(gains.level_weights)
        gains.start_epoch(epoch, EPOCHS, BATCHES, warm=True)
        assert gains.new_weights == {}
        assert gains.calibrated
        gains.calibrate(other, 1, STRIDES)
        assert gains.level_weights == before, "the earlier weights hold until the measurement is complete"
        assert 1 + measure_levels(gains, other) == batches
        assert gains.frozen
        assert bool(gains.new_weights) == (batches == CALIBRATION_BATCHES)
    assert gains.level_weights["exlo"][0] < first["exlo"][0]
    gains.recalibrate()
    assert not gains.calibrated, "another batch size has to be measured"


def test_a_term_without_weights_is_measured_again() -> None:
    gains = balanced(gains=1)
    measure_levels(gains, {**BY_LEVEL, "exlo": math.nan, "exlo@8": 0.0, "exlo@32": math.nan})
    assert not gains.frozen
    assert gains.level_weights == {}
    assert gains.columns(STRIDES)["weight/exlo@8"] == 0
    assert "exlo has vanished" in gains.warnings()["exlo"]
    gains.start_epoch(4, EPOCHS, BATCHES, warm=True)
    measure_levels(gains, BY_LEVEL)
    assert gains.frozen


def test_without_explicit_terms_nothing_is_balanced() -> None:
    gains = balanced(explicit=False, exhi=None, gains=1)
    assert gains.frozen
    assert measure_levels(gains, BY_LEVEL) == MONITOR_BATCHES
    assert gains.level_weights == {}


def test_a_state_of_an_earlier_revision_has_no_weights() -> None:
    gains = Gains(settings(), {"automatic": {"exlo": 2.0}, "frozen": True})
    assert gains.frozen
    assert gains.state() == {"automatic": {"exlo": 2.0}, "level_weights": {}, "frozen": True}
