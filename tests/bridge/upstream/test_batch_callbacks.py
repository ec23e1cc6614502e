"""The batches of a training are counted, with and without a teacher, and after a resumption."""

from __future__ import annotations

from types import SimpleNamespace

from ds2d2_yolo.bridge.upstream.batch_callbacks import add_callbacks, batch_callbacks


def test_counts_the_batches_of_the_remaining_epochs() -> None:
    totals: list[int] = []
    batches: list[int] = []
    callbacks = batch_callbacks(totals.append, lambda: batches.append(1))
    trainer = SimpleNamespace(train_loader=range(5), epochs=4, start_epoch=1)
    callbacks["on_train_start"](trainer)
    for _ in range(15):
        callbacks["on_train_batch_end"](trainer)
    assert totals == [15]
    assert len(batches) == 15


def test_a_model_without_callbacks_stays_as_it_is() -> None:
    add_callbacks(object(), None)
