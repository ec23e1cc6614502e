"""Made-up settings, labels, XML, headers, tables and state files: an error of the project's own at worst, and soon."""

from __future__ import annotations

import json
import signal
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from ultralytics.cfg import get_cfg

from ds2d2_yolo.bridge.data.dataset import load_data
from ds2d2_yolo.bridge.data.label_checks import check_labels
from ds2d2_yolo.bridge.data.security import refuse_code_in_data
from ds2d2_yolo.bridge.models.amplifier import FORMAT
from ds2d2_yolo.bridge.models.amplifier_store import AmplifierCard, check_amplifier, load_amplifier
from ds2d2_yolo.bridge.models.teacher import Teacher
from ds2d2_yolo.bridge.training.hooks.exact_resume import FORMAT as SIDE_FORMAT
from ds2d2_yolo.bridge.training.hooks.exact_resume import ResumeState
from ds2d2_yolo.cli.modes import MODES, load
from ds2d2_yolo.cli.parsing import parse
from ds2d2_yolo.compare.arms import read_arms
from ds2d2_yolo.compare.results import COLUMNS, RunResult, read_results, write_results
from ds2d2_yolo.compare.state import CompareState
from ds2d2_yolo.compare.summaries.summary import summarise
from ds2d2_yolo.config.recipes import load_recipe
from ds2d2_yolo.config.settings import Settings
from ds2d2_yolo.demo.state import DemoState
from ds2d2_yolo.errors import BadUseError, DS2D2Error
from ds2d2_yolo.prepare.formats.dota import read_dota
from ds2d2_yolo.prepare.formats.voc import QUAD, ROTATED, UPRIGHT, voc_reader
from ds2d2_yolo.prepare.output_folder import OutputFolder
from ds2d2_yolo.prepare.records import BrokenFileError
from tests.helpers.data import picture

SECONDS = 10  # of one example
QUICK, LONG = 40, 3000  # examples of each target

ODD = st.sampled_from(
    ["", " ", "nan", "inf", "-inf", "1e999", "-0", "0x1f", "1_000", "None", "True", "[]", "[1,2]", "{}", "()", "(1,)",
     "[[1]]", "{'a':1}", "b'x'", "1j", "...", "math.pi", "\0", "\u2028", "é", "8,16", "auto", "'", '"', "]", "[", "="]
)  # fmt: skip
WORDS = st.one_of(ODD, st.text(max_size=12), st.integers().map(str), st.floats().map(str))
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | st.text(max_size=6),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)
NUMBERS = st.one_of(st.floats(-2, 2).map(str), st.integers(-3, 9).map(str), ODD)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


class Hangs(BaseException):
    """Passes what takes any exception for bad input."""


@contextmanager
def in_time() -> Iterator[None]:
    """Raise where an example hangs."""
    if not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(*_: object) -> None:
        raise Hangs

    before = signal.signal(signal.SIGALRM, ring)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


# Settings ------------------------------------------------------------------------------------------------------------

KINDS = {name: load(mode.options) for name, mode in MODES.items() if mode.options}
PAIRS = st.sampled_from(sorted(KINDS)).flatmap(
    lambda mode: st.tuples(
        st.just(mode), st.dictionaries(st.sampled_from(KINDS[mode].keys()), WORDS, min_size=1, max_size=4)
    )
)


PLAIN_WORDS = st.text(max_size=8) | ODD | st.just("exlo=1")


def try_settings(folder: Path, case: tuple[str, dict[str, str]]) -> None:
    mode, pairs = case
    KINDS[mode].of(parse([f"{key}={value}" for key, value in pairs.items()]), mode)


def try_words(folder: Path, words: list[str]) -> None:
    Settings.of(parse(words), "train")


# Data ----------------------------------------------------------------------------------------------------------------

LINES = st.lists(st.lists(NUMBERS, max_size=10).map(" ".join), max_size=4).map("\n".join)
LABELS = st.one_of(st.binary(max_size=60), LINES.map(str.encode))
GOOD = {"path": ".", "train": "images/train", "val": "images/train", "names": ["a", "b"]}
YAMLS = st.one_of(
    st.binary(max_size=60),
    st.text(max_size=60).map(str.encode),
    st.dictionaries(st.sampled_from([*GOOD, "nc", "channels", "download", "test"]), JSON, max_size=3).map(
        lambda odd: yaml.safe_dump({**GOOD, **odd}, allow_unicode=True).encode("utf-8", "replace")
    ),
)


def data_set(folder: Path) -> Path:
    """Make a data set of one image, and return its folder."""
    root = folder / "data"
    if not root.exists():
        for kind in ("images", "labels"):
            (root / kind / "train").mkdir(parents=True)
        (root / "images" / "train" / "0.png").write_bytes(picture())
    return root


def try_labels(folder: Path, content: bytes) -> None:
    root = data_set(folder)
    (root / "labels" / "train" / "0.txt").write_bytes(content)
    place = str(root / "images" / "train")
    for task in ("detect", "obb"):
        with suppress(BadUseError):
            check_labels({"train": place, "val": place, "names": {0: "a", 1: "b"}, "nc": 2, "channels": 3}, task)


def try_data_yaml(folder: Path, content: bytes) -> None:
    file = data_set(folder) / "data.yaml"
    file.write_bytes(content)
    with suppress(BadUseError):
        refuse_code_in_data(str(file))
    if b"download" not in content:  # it would be run
        check_labels(load_data(get_cfg(overrides={"data": str(file)})), "detect")


def try_recipe(folder: Path, content: bytes) -> None:
    (folder / "recipe.yaml").write_bytes(content)
    Settings(**load_recipe(str(folder / "recipe.yaml")))


def try_arms(folder: Path, content: bytes) -> None:
    (folder / "arms.yaml").write_bytes(content)
    read_arms(str(folder / "arms.yaml"))


SETTING = st.dictionaries(st.sampled_from([*Settings.keys(), "dis", "x"]), JSON, max_size=4)
RECIPES = st.one_of(YAMLS, SETTING.map(lambda odd: yaml.safe_dump(odd, allow_unicode=True).encode("utf-8", "replace")))
ARMS = st.one_of(
    YAMLS,
    st.dictionaries(st.text(max_size=5) | st.sampled_from(["plain", "mine"]), SETTING | JSON, max_size=3).map(
        lambda odd: yaml.safe_dump(odd, allow_unicode=True).encode("utf-8", "replace")
    ),
)

# Published annotations -----------------------------------------------------------------------------------------------

TAGS = ["annotation", "object", "name", "bndbox", "robndbox", "size", "width", "height", "difficult", *UPRIGHT, *QUAD,
        *ROTATED]  # fmt: skip
ELEMENTS = st.recursive(
    NUMBERS | st.sampled_from(["ship", "&a;", "&lt;", "<", "<![CDATA[x]]>", "<!-- -->", "<?x?>"]),
    lambda inner: st.tuples(st.sampled_from(TAGS), st.lists(inner, max_size=5)).map(
        lambda t: f"<{t[0]}>{''.join(t[1])}</{t[0]}>"
    ),
    max_leaves=12,
)
HEADS = st.sampled_from(["", '<?xml version="1.0"?>', '<?xml version="1.0" encoding="utf-7"?>', "\ufeff",
                         '<!DOCTYPE a [<!ENTITY a "aa">]>', '<!DOCTYPE a SYSTEM "file:///nowhere">'])  # fmt: skip
XML = st.one_of(
    st.binary(max_size=80),
    st.tuples(HEADS, st.lists(ELEMENTS, max_size=4)).map(
        lambda t: f"{t[0]}<annotation>{''.join(t[1])}</annotation>".encode("utf-8", "replace")
    ),
)


def try_xml(folder: Path, content: bytes) -> None:
    file = folder / "a.xml"
    file.write_bytes(content)
    for oriented in (False, True):
        with suppress(BrokenFileError):
            voc_reader(oriented)(file, 80, 60)


def try_dota(folder: Path, content: bytes) -> None:
    file = folder / "a.txt"
    file.write_bytes(content)
    with suppress(BrokenFileError):
        read_dota(file, 80, 60)


DOTA = st.one_of(
    st.binary(max_size=80),
    st.lists(st.lists(NUMBERS | st.just("ship"), max_size=12).map(" ".join), max_size=4).map(
        lambda lines: "\n".join(lines).encode("utf-8", "replace")
    ),
)

# Safetensors ---------------------------------------------------------------------------------------------------------

CARD = AmplifierCard("t" * 64, "d" * 64, "haar", ("a", "b"), ("a",), (0, 1, 2), 64, 1.0, 1)
TEACHER = Teacher("t.pt", None, "t" * 64, ("a", "b"), False, (8.0, 16.0))
FIELDS = st.dictionaries(st.sampled_from([*vars(CARD), "x"]), JSON, max_size=4)


def tensors(metadata: dict[str, str]) -> bytes:
    """Return a small file with this metadata."""
    return bytes(save({"model.a": torch.arange(4.0), "ema.a": torch.zeros(2, dtype=torch.half)}, metadata))


def mutated(content: bytes, changes: list[tuple[int, int]], length: int | None, end: int) -> bytes:
    """Return a file with bytes changed, another header length and a cut end."""
    made = bytearray(content)
    for place, value in changes:
        made[place % len(made)] = value
    if length is not None:
        made[:8] = struct.pack("<Q", length)
    return bytes(made[: len(made) - end])


def headed(header: Any) -> bytes:
    """Return a file with any JSON as its header."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + bytes(24)


def files(metadata: st.SearchStrategy[dict[str, str]]) -> st.SearchStrategy[bytes]:
    """Return files that are sound but for their metadata, mutated ones, and ones with any header."""
    changes = st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=4)
    lengths = st.none() | st.integers(0, 400) | st.sampled_from([2**31, 2**63, 2**64 - 1])
    entry = st.fixed_dictionaries({}, optional={"dtype": st.sampled_from(["F32", "F16", "X"]) | JSON, "shape": JSON |
        st.lists(st.integers(-1, 2**62), max_size=3), "data_offsets": JSON | st.lists(st.integers(-1, 30), max_size=3)}
    )  # fmt: skip
    headers = st.dictionaries(st.sampled_from(["__metadata__", "a", "model.a"]), entry | JSON, max_size=3) | JSON
    sound_files = metadata.map(tensors)
    return st.one_of(
        st.binary(max_size=40), headers.map(headed), sound_files,
        st.builds(mutated, sound_files, changes, lengths, st.integers(0, 60)),
    )  # fmt: skip


def json_text(facts: Any) -> str:
    """Return facts as JSON, numbers that it does not know included."""
    return json.dumps(facts)


AMPLIFIERS = files(
    st.fixed_dictionaries({"format": st.just(FORMAT)}, optional={"card": st.one_of(
        FIELDS.map(lambda odd: json_text({**vars(CARD), **odd})), JSON.map(json_text), st.text(max_size=9))})
)  # fmt: skip
SIDES = files(
    st.fixed_dictionaries(
        {"format": st.just(SIDE_FORMAT)}, optional={"facts": JSON.map(json_text) | st.text(max_size=9)}
    )
)


def try_amplifier(folder: Path, content: bytes) -> None:
    file = folder / "a.safetensors"
    file.write_bytes(content)
    _, card = load_amplifier(file)
    _ = card.key, card.reached
    check_amplifier(card, TEACHER, "haar", file, "d" * 64, (0, 1, 2), ("a",))


def try_side_file(folder: Path, content: bytes) -> None:
    file = folder / "resume-1.safetensors"
    file.write_bytes(content)
    state = ResumeState.read(file)
    assert state is None or isinstance(state.part("model"), dict)


# Tables and state files ----------------------------------------------------------------------------------------------

ROW = RunResult("plain", 0, "d", "t", "s", 640, 1, "last", "all", "all", 0.5, 0.3, 1, 1)


def table(folder: Path) -> bytes:
    """Return sound results of two arms."""
    file = folder / "sound.csv"
    if not file.exists():
        write_results(file, [ROW, RunResult(**{**vars(ROW), "arm": "ds2d2"})])
    return file.read_bytes()


CELLS = st.lists(st.tuples(st.integers(0, 2), st.integers(0, len(COLUMNS) - 1), WORDS), max_size=4)
TABLES = st.one_of(st.binary(max_size=60), st.text(max_size=60).map(str.encode), CELLS)


def try_results(folder: Path, content: Any) -> None:
    file = folder / "results.csv"
    if isinstance(content, list):
        rows = [line.split(",") for line in table(folder).decode().splitlines()]
        for row, column, word in content:
            rows[row][column % len(rows[row])] = word
        content = "\n".join(",".join(row) for row in rows).encode("utf-8", "replace")
    file.write_bytes(content)
    summarise(read_results(file), "plain", 0.95)


STATES = st.one_of(
    st.binary(max_size=40),
    JSON.map(lambda x: json_text(x).encode()),
    st.dictionaries(
        st.sampled_from(["fingerprint", "steps", "arms", "identity", "state", "dataset", "totals"]), JSON, max_size=4
    ).map(lambda x: json_text(x).encode()),
)


def try_demo_state(folder: Path, content: bytes) -> None:
    place = folder / "demo"
    place.mkdir(exist_ok=True)
    (place / "state.json").write_bytes(content)
    state = DemoState(place, {"a": 1})
    _ = state.done("teacher"), state.started("teacher")


def try_compare_state(folder: Path, content: bytes) -> None:
    place = folder / "compare"
    place.mkdir(exist_ok=True)
    (place / "compare.json").write_bytes(content)
    CompareState(place, {"a": 1}, {"plain": {"kind": "plain", "settings": {}}})


def try_prepared(folder: Path, content: bytes) -> None:
    place = folder / "prepared"
    place.mkdir(exist_ok=True)
    (place / "prepared.json").write_bytes(content)
    with OutputFolder(place, {"dataset": "dota"}).opened(False):
        pass


def try_journal(folder: Path, content: bytes) -> None:
    place = folder / "journal"
    place.mkdir(exist_ok=True)
    (place / "prepared.json").write_text(json.dumps({"identity": {"dataset": "dota"}, "state": "unfinished"}))
    (place / "prepared.jsonl").write_bytes(content + b"\n")
    with OutputFolder(place, {"dataset": "dota"}).opened(False):
        pass


JOURNALS = st.one_of(
    STATES,
    st.dictionaries(st.sampled_from(["split", "name", "stamp", "boxes", "kept", "dropped", "copies", "images", "files",
                                     "broken"]), JSON).map(lambda x: json_text(x).encode()),
)  # fmt: skip

TARGETS: dict[str, tuple[Callable[[Path, Any], None], st.SearchStrategy[Any]]] = {
    "settings": (try_settings, PAIRS),
    "words": (try_words, st.lists(PLAIN_WORDS, max_size=5)),
    "labels": (try_labels, LABELS),
    "data YAML": (try_data_yaml, YAMLS),
    "recipe": (try_recipe, RECIPES),
    "arms": (try_arms, ARMS),
    "XML": (try_xml, XML),
    "labelTxt": (try_dota, DOTA),
    "amplifier": (try_amplifier, AMPLIFIERS),
    "side file": (try_side_file, SIDES),
    "results.csv": (try_results, TABLES),
    "state.json": (try_demo_state, STATES),
    "compare.json": (try_compare_state, STATES),
    "prepared.json": (try_prepared, STATES),
    "prepared.jsonl": (try_journal, JOURNALS),
}


def fuzz(target: str, folder: Path, examples: int) -> int:
    """Try examples on a target, the same ones each time, and return how many there were."""
    function, strategy = TARGETS[target]
    tried = 0

    def one(case: Any) -> None:
        nonlocal tried
        tried += 1
        with in_time(), suppress(DS2D2Error):
            function(folder, case)

    made = settings(
        max_examples=examples, deadline=None, derandomize=True, database=None,
        suppress_health_check=list(HealthCheck),
    )(given(strategy)(one))  # fmt: skip
    made()
    return tried


@pytest.mark.parametrize("target", TARGETS)
def test_quick(target: str, folder: Path) -> None:
    assert fuzz(target, folder, QUICK)


@pytest.mark.slow
@pytest.mark.parametrize("target", TARGETS)
def test_long(target: str, folder: Path) -> None:
    print(f"{target}: {fuzz(target, folder, LONG)} examples")
