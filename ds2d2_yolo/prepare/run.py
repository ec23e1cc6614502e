"""`ds2d2-yolo data prepare`: checks, conversion of all images, data YAML, summary."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields
from itertools import islice
from pathlib import Path
from typing import Any

import yaml

from ds2d2_yolo.bridge.data.dota_tiles import datasets_dir, need_shapely
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.prepare.boxes import class_key
from ds2d2_yolo.prepare.convert import Converter, stamp_of
from ds2d2_yolo.prepare.options import DOTA_ONLY, PrepareOptions
from ds2d2_yolo.prepare.output_folder import OutputFolder
from ds2d2_yolo.prepare.records import Item, Layout
from ds2d2_yolo.prepare.registry import Published, published
from ds2d2_yolo.prepare.result import Entry, Prepared, named
from ds2d2_yolo.utils.progress import tracked


def prepare(dataset: str, **keys: Any) -> Prepared:
    """Convert a published data set into the YOLO layout, from which Ultralytics trains directly.

    Ultralytics' functions cut DOTA into tiles; images of other data sets are linked or copied. Images of other than 8
    bits are stretched to 8 bits. Boxes inside their image or tile have their published corners; `boxes.fit` cuts the
    others. The number of published boxes must equal the written and the dropped ones of each image, and the label lines
    on disk are counted at the end. The same call continues an interrupted one, converts changed sources again and
    retries broken files. Broken images and annotations do not stop it: they are reported, and all others are converted.

    Args:
        dataset (str): 'dota', 'dior', 'dior-r' or 'hit-uav'.
        **keys (Any): The options of `PrepareOptions`; `source` is required.

    Returns:
        (Prepared): Counts and paths; its text is the summary table. `out` holds images/, labels/, data.yaml,
            prepared.json (source, options and totals), prepared.jsonl (the outcome of each image), and the lists
            images.csv, dropped.csv and broken.csv.

    Raises:
        BadUseError: If an option is invalid, `source` is not a folder of that data set, or `out` has other content.
        DS2D2Error: If files are broken; by then all others are converted and the summary is printed.

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
    tiling = {f.name: getattr(options, f.name) for f in fields(options) if f.name in DOTA_ONLY and chosen.tiled}
    tiling |= {"rates": options.scales, "version": float(options.version)} if chosen.tiled else {}
    splits = list(dict.fromkeys(item.split for item in layout.items))
    output = OutputFolder(out, {
        "dataset": dataset, "source": str(root), "folders": layout.annotation_folders, "task": task, "splits": splits,
        "images": options.images, **tiling, "classes": classes,
    })  # fmt: skip
    with output.opened(options.overwrite):
        _run(Converter(layout, output, options, classes, chosen.tiled), layout.items, f"images of {dataset}")
        order = [(item.split, item.name) for item in layout.items]
        entries = [output.entries[key] for key in order]
        data = chosen.yaml if packaged and out == default.resolve() else str(out / "data.yaml")
        made = Prepared(dataset, task, out, data, classes, layout.annotation_folders, entries)
        totals = {split: made.totals(split) for split in splits}
        output.finish(order, _yaml(dataset, task, classes, splits), {"totals": totals, "dropped": made.reasons()})
    _refuse_broken(made)
    return made


def _check_dota_keys(chosen: Published, keys: dict[str, Any]) -> None:
    """Refuse DOTA keys for other data sets."""
    if not chosen.tiled and (foreign := [k for k in DOTA_ONLY if k in keys]):
        raise BadUseError(
            f"{', '.join(f'{k}=' for k in foreign)} is for dota alone: its images are the ones cut into tiles"
        )


def _source(chosen: Published, options: PrepareOptions) -> Path:
    """Return the source folder, or refuse one that is missing or unreadable."""
    if not options.source:
        raise BadUseError(f"source= missing: ds2d2-yolo data prepare {chosen.command} source=FOLDER")
    root = Path(options.source).expanduser()
    try:
        if not root.is_dir():
            problem = "is no folder: unpack it first" if root.exists() else "does not exist"
            raise BadUseError(f"source={root} {problem}")
        below = [f for f in sorted(root.iterdir()) if f.is_dir() and not f.name.startswith(".")]
    except OSError as e:
        raise BadUseError(f"source={root} cannot be read: {e.strerror}") from e
    root = root.resolve()
    if not _finds(chosen, root, options):
        nearby = next((f for f in (root.parent, *below[:50]) if _finds(chosen, f.resolve(), options)), None)
        if nearby:
            raise BadUseError(f"source={options.source} is not the folder itself: say source={nearby}")
    return root


def _finds(chosen: Published, root: Path, options: PrepareOptions) -> bool:
    """Return whether a folder holds the files of the data set."""
    try:
        return bool(chosen.find(root, options).items)
    except (BadUseError, OSError):
        return False


def _classes(chosen: Published, layout: Layout) -> tuple[str, ...]:
    """Return the class names: those of the source if it defines others than the packaged YAML."""
    packaged = chosen.classes()
    same = [class_key(c) for c in layout.classes] == [class_key(c) for c in packaged]
    return packaged if same or not layout.classes else layout.classes


def _out(
    chosen: Published, options: PrepareOptions, root: Path, classes: tuple[str, ...], default: Path
) -> tuple[Path, bool]:
    """Return the output folder, and whether the packaged YAML has the same classes."""
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


def _run(converter: Converter, items: list[Item], title: str) -> None:
    """Convert the images that are not in the folder yet."""
    done = converter.output.entries
    by_key = {(item.split, item.name): item for item in items}
    converter.output.forget([key for key in done if _is_outdated(converter, done[key], by_key.get(key))])
    todo = [item for item in items if (item.split, item.name) not in done]
    try:
        with tracked(title, len(items), sys.stderr, shown=converter.options.verbose) as task:
            task.skip(len(items) - len(todo))
            for entry in _converted(converter, todo):
                converter.output.add(entry)
                task.advance()
    except OSError as e:
        raise DS2D2Error(f"{converter.output.out}: {e}; the same command goes on") from e


def _is_outdated(converter: Converter, entry: Entry, item: Item | None) -> bool:
    """Return whether an image must be converted again: its source changed, or an earlier version cut off its bits."""
    if item is None or item.image is None or entry.stamp != stamp_of(item):
        return True
    return not entry.stretched and converter.stretched_format(item.image) is not None


def _converted(converter: Converter, todo: list[Item]) -> Iterator[Entry]:
    """Yield the entries of converted images, with `workers` images at a time."""
    if converter.options.workers == 1:
        yield from map(converter.convert, todo)
        return
    # threads: decoding and encoding, most of the work, run outside Python's lock, and a kill ends them too
    with ThreadPoolExecutor(converter.options.workers) as pool:
        waiting = iter(todo)
        running = [pool.submit(converter.convert, item) for item in islice(waiting, 2 * converter.options.workers)]
        while running:
            yield running.pop(0).result()
            running += [pool.submit(converter.convert, item) for item in islice(waiting, 1)]


def _yaml(dataset: str, task: str, classes: tuple[str, ...], splits: list[str]) -> str:
    """Return the data YAML; without 'path' the folder can be moved, since Ultralytics looks beside the file."""
    names = yaml.safe_dump({"names": dict(enumerate(classes))}, sort_keys=False, allow_unicode=True)
    boxes = "oriented" if task == "obb" else "horizontal"
    head = f"# {dataset}, {boxes} boxes, made by 'ds2d2-yolo data prepare'; prepared.json says from what and how\n"
    return head + "".join(f"{split}: images/{split}\n" for split in splits) + "\n" + names


def _refuse_broken(made: Prepared) -> None:
    """Print the summary and raise an error if files are broken."""
    if made.broken:
        print(made)
        first = named(made.broken)[0]
        raise DS2D2Error(
            f"{len(made.broken)} of {len(made.entries)} images are broken, named in {made.out / 'broken.csv'}, such as "
            f"{first}; the others are ready, and the same command tries these again"
        )
