"""Write docs/settings.md: the keys of every mode and the recipes, from the code that checks them.

    python tools/settings_page.py

The page is part of the repository, so that it can be read there; a test fails when it is out of date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import MISSING, Field
from itertools import groupby
from pathlib import Path
from typing import Any

from ds2d2_yolo.cli.modes import MODES, REQUIRED, Mode, load
from ds2d2_yolo.config.recipes import recipe_names
from ds2d2_yolo.config.resources import resource_dir

PAGE = Path(__file__).resolve().parents[1] / "docs" / "settings.md"
HEAD = """<!-- made by tools/settings_page.py: do not edit -->

# Settings

Every mode takes `key=value`. This page is made from the code that checks the keys; `ds2d2-yolo help MODE` prints the
same keys. A mistake in a key or a value ends the command with one line before anything is loaded.

An empty default means that the key is not set. Settings under *Experimental* may change or disappear.
"""
ULTRALYTICS = "Ultralytics' keys pass through: [its page](https://docs.ultralytics.com/modes/{page})."
COLUMNS = "| key | meaning | values | default |\n| --- | --- | --- | --- |"


def render() -> str:
    """Return the page.

    Returns:
        (str): Markdown.
    """
    described: dict[tuple[str, ...], str] = {}
    sections = [section for name, mode in MODES.items() for section in _mode(name, mode, described)]
    return "\n".join([HEAD, *sections, *_recipes()])


def _mode(name: str, mode: Mode, described: dict[tuple[str, ...], str]) -> Iterator[str]:
    """Yield the parts of a mode. A mode with the keys of an earlier one names that one."""
    shown = [f for f in mode.option_fields() if f.metadata["help"]]
    if not shown:
        return
    yield f"## {name}\n\n{mode.about[0].upper()}{mode.about[1:]}.\n\n    {mode.example}\n"
    keys = tuple(f.name for f in shown)
    origin = next((other for known, other in described.items() if set(keys) <= set(known)), None)
    described.setdefault(keys, name)
    if origin:
        same = keys in described and described[keys] == origin
        which = "The keys are those" if same else f"The keys are {', '.join(f'`{k}`' for k in keys)}"
        yield f"{which} of [{origin}](#{origin}).\n"
    else:
        yield _table(_main_rows(shown, mode))
        if experimental := [_row(f) for f in shown if f.metadata["experimental"]]:
            yield f"### Experimental\n\n{_table(experimental)}"
    if mode.notes:
        yield _notes(load(mode.notes))
    if mode.page:
        yield ULTRALYTICS.format(page=mode.page) + "\n"


def _main_rows(shown: list[Field[Any]], mode: Mode) -> list[str]:
    """Return the rows of the keys that are not experimental, with the required Ultralytics keys after the first."""
    rows = [_row(f) for f in shown if not f.metadata["experimental"]]
    return rows[:1] + [_cells(f"`{k}`", *reversed(REQUIRED[k]), "") for k in mode.required] + rows[1:]


def _row(declared: Field[Any]) -> str:
    """Return the row of a key."""
    value = declared.default
    default = "" if value is None or value is MISSING else f"`{_text(value)}`"
    return _cells(f"`{declared.name}`", declared.metadata["help"], declared.metadata["check"].takes, default)


def _text(value: Any) -> str:
    """Return a default as it is typed on the command line."""
    return str(list(value) if isinstance(value, tuple) else value).replace(" ", "").replace("'", "")


def _cells(*cells: str) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _table(rows: Iterable[str]) -> str:
    """Return a table of rows."""
    return "\n".join([COLUMNS, *rows, ""])


def _notes(text: str) -> str:
    """Return the notes of a mode: paragraphs as they are, tables of plain text as code."""
    parts = []
    for indented, lines in groupby(text.splitlines(), lambda line: line.startswith("  ")):
        part = "\n".join(lines)
        parts.append(f"\n```text\n{part}\n```\n" if indented else part)
    return "\n".join([*parts, ""])


def _recipes() -> Iterator[str]:
    """Yield the parts about the recipes."""
    yield (
        "## Recipes\n\nA recipe is a YAML of settings. `recipe=NAME` takes a packaged one, `recipe=PATH` another file; "
        "the keys of the\ncommand override it. `ds2d2-yolo cfg > my-recipe.yaml` writes all keys with their defaults.\n"
    )
    for name in recipe_names():
        text = (resource_dir("cfg") / "recipes" / f"{name}.yaml").read_text(encoding="utf-8")
        lines = text.splitlines()
        comment = " ".join(line[1:].strip() for line in lines if line.startswith("#"))
        comment = comment.replace("docs/evidence.md", "[evidence](evidence.md)")
        settings = "\n".join(line for line in lines if not line.startswith("#"))
        yield f"### {name}\n\n{comment}\n\n```yaml\n{settings}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
