"""`ds2d2-yolo data prepare`: checks, the run over all images, the data YAML, the verdict."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from ds2d2_yolo.bridge.data.dota_tiles import datasets_dir, need_shapely, progress
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.prepare.boxes import class_key
from ds2d2_yolo.prepare.convert import Maker, stamp_of
from ds2d2_yolo.prepare.options import DOTA_ONLY, PrepareOptions
from ds2d2_yolo.prepare.output_folder import Store
from ds2d2_yolo.prepare.records import Item, Layout
from ds2d2_yolo.prepare.registry import Published, published
from ds2d2_yolo.prepare.result import Entry, Prepared, named


def prepare(dataset: str, **keys: Any) -> Prepared:
    """Turn a data set as published into YOLO layout, from which Ultralytics trains at once.

    DOTA is cut into tiles by Ultralytics' own functions; of the others the images are linked or copied. Boxes keep
    their published corners; those that stick out of their image or tile are cut as `boxes.fit` says. For every image,
    published boxes = boxes kept + boxes dropped with a reason, which is checked, and the labels on disk are counted
    again at the end. The same call goes on with one that was cut off, takes up sources that changed, and tries broken
    files again. Broken images and annotations do not stop it: they are named, and the rest is made.

    Args:
        dataset (str): 'dota', 'dior', 'dior-r' or 'hit-uav'.
        **keys (Any): The options of `PrepareOptions`; `source` is needed.

    Returns:
        (Prepared): Counts and places; `str()` of it is the summary table. In `out` are images/, labels/, data.yaml,
            prepared.json (what it was made from, and the totals), prepared.jsonl (what became of each image), and as
            lists images.csv, dropped.csv and broken.csv.

    Raises:
        BadUseError: If an option is wrong, `source` is not the folder of that data set, or `out` holds something else.
        DS2D2Error: If files were broken; everything else is made by then, and the summary printed.

    Examples:
        >>> from ds2d2_yolo.prepare import prepare
        >>> print(prepare("dota", source="DOTA", rates=[0.5, 1.0, 1.5]))  # doctest: +SKIP
    """
    options = PrepareOptions.of(keys, "data")
    chosen = published(str(dataset), options)
    _check_dota_keys(chosen, keys)
    root = _source(chosen, options)
    if chosen.tiled:
        need_shapely()
    try:
        layout = chosen.find(root, options)
    except OSError as e:
        raise BadUseError(f"source={root} cannot be read: {e}") from e
    classes, default = _classes(chosen, layout), datasets_dir() / chosen.description()["path"]
    out, packaged = _out(chosen, options, root, classes, default)
    task = "obb" if layout.oriented else "detect"
    kept = {f.name: getattr(options, f.name) for f in fields(options) if f.name in DOTA_ONLY and chosen.tiled}
    kept |= {"rates": options.scales, "version": float(options.version)} if chosen.tiled else {}
    splits = list(dict.fromkeys(item.split for item in layout.items))
    store = Store(out, {
        "dataset": dataset, "source": str(root), "folders": layout.found, "task": task, "splits": splits,
        "images": options.images, **kept, "classes": classes,
    })  # fmt: skip
    with store.opened(options.overwrite):
        _run(Maker(layout, store, options, classes, chosen.tiled), layout.items, dataset)
        order = [(item.split, item.name) for item in layout.items]
        entries = [store.entries[key] for key in order]
        data = chosen.yaml if packaged and out == default.resolve() else str(out / "data.yaml")
        made = Prepared(dataset, task, out, data, classes, layout.found, entries)
        totals = {split: made.totals(split) for split in splits}
        store.finish(order, _yaml(dataset, task, classes, splits), {"totals": totals, "dropped": made.reasons()})
    _refuse_broken(made)
    return made


def _check_dota_keys(chosen: Published, keys: dict[str, Any]) -> None:
    """Refuse keys that mean nothing for the data set."""
    if not chosen.tiled and (foreign := [k for k in DOTA_ONLY if k in keys]):
        raise BadUseError(
            f"{', '.join(f'{k}=' for k in foreign)} is for dota alone: its images are the ones cut into tiles"
        )


def _source(chosen: Published, options: PrepareOptions) -> Path:
    """Return the folder to read, checked to be one that can be read."""
    if not options.source:
        raise BadUseError(f"source= missing: ds2d2-yolo data prepare {chosen.command} source=FOLDER")
    root = Path(options.source).expanduser()
    try:
        if not root.is_dir():
            what = "is no folder: unpack it first" if root.exists() else "does not exist"
            raise BadUseError(f"source={root} {what}")
        below = [f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith(".")]
    except OSError as e:
        raise BadUseError(f"source={root} cannot be read: {e.strerror}") from e
    root = root.resolve()
    if not _finds(chosen, root, options):
        near = next((f for f in (root.parent, *below[:50]) if _finds(chosen, f.resolve(), options)), None)
        if near:
            raise BadUseError(f"source={options.source} is not the folder itself: say source={near}")
    return root


def _finds(chosen: Published, root: Path, options: PrepareOptions) -> bool:
    """Return whether a folder has the files of the data set."""
    try:
        return bool(chosen.find(root, options).items)
    except (BadUseError, OSError):
        return False


def _classes(chosen: Published, layout: Layout) -> tuple[str, ...]:
    """Return the class names: the packaged ones where the source has the same or none of its own."""
    packaged = chosen.classes()
    same = [class_key(c) for c in layout.classes] == [class_key(c) for c in packaged]
    return packaged if same or not layout.classes else layout.classes


def _out(
    chosen: Published, options: PrepareOptions, root: Path, classes: tuple[str, ...], default: Path
) -> tuple[Path, bool]:
    """Return the folder to make, and whether the packaged YAML describes what will be in it."""
    fits = classes == chosen.classes()
    if options.out is None and not fits:
        raise BadUseError(
            f"the source has classes of its own ({', '.join(classes[:10])}), not those of {chosen.yaml}: "
            "say out=FOLDER and train with data=FOLDER/data.yaml"
        )
    out = (Path(options.out).expanduser() if options.out else default).resolve()
    if out == root or out in root.parents or root in out.parents:
        raise BadUseError(f"out={out} and source={root} lie in each other: name another out")
    return out, fits


def _run(maker: Maker, items: list[Item], about: str) -> None:
    """Make what is not in the folder yet."""
    done = maker.store.entries
    stamps = {(item.split, item.name): stamp_of(item) for item in items}
    maker.store.forget([key for key, entry in done.items() if entry.stamp != stamps.get(key)])
    todo = [item for item in items if (item.split, item.name) not in done]
    try:
        for entry in progress(_made(maker, todo), len(todo), f"{about} ({len(items)} images, {len(done)} there)"):
            maker.store.add(entry)
    except OSError as e:
        raise DS2D2Error(f"{maker.store.out}: {e}; the same command goes on") from e


def _made(maker: Maker, todo: list[Item]) -> Iterator[Entry]:
    """Yield the entries of images, several at a time where that was asked for."""
    if maker.options.workers == 1:
        yield from map(maker.make, todo)
        return
    # threads: decoding and encoding, most of the work, run outside Python's lock, and a kill takes them along
    with ThreadPoolExecutor(maker.options.workers) as pool:
        waiting = iter(todo)
        running = [pool.submit(maker.make, item) for item in islice(waiting, 2 * maker.options.workers)]
        while running:
            yield running.pop(0).result()
            running += [pool.submit(maker.make, item) for item in islice(waiting, 1)]


def _yaml(dataset: str, task: str, classes: tuple[str, ...], splits: list[str]) -> str:
    """Return the data YAML; without 'path', Ultralytics looks beside the file, so the folder can be moved."""
    names = yaml.safe_dump({"names": dict(enumerate(classes))}, sort_keys=False, allow_unicode=True)
    boxes = "oriented" if task == "obb" else "horizontal"
    head = f"# {dataset}, {boxes} boxes, made by 'ds2d2-yolo data prepare'; prepared.json says from what and how\n"
    return head + "".join(f"{split}: images/{split}\n" for split in splits) + "\n" + names


def _refuse_broken(made: Prepared) -> None:
    """Print the summary and raise if files were broken."""
    if made.broken:
        print(made)
        first = named(made.broken)[0]
        raise DS2D2Error(
            f"{len(made.broken)} of {len(made.entries)} images are broken, named in {made.out / 'broken.csv'}, such as "
            f"{first}; the others are ready, and the same command tries these again"
        )
