"""Bad input of every kind: one line that says what, where and what to do, the right status, and no file left."""

from __future__ import annotations

import io
import os
import pickle
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from ds2d2_yolo.cli import main
from tests.helpers.data import picture

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit", "ignore:.*TorchScript")  # of a case's own file
SECONDS = 20  # a case takes well under one; loading Ultralytics' modules for the first time takes several
NAMES = "names: {0: red, 1: green}\n"
SPLITS = "train: images/train\nval: images/val\n"
LABEL = "0 0.2 0.2 0.4 0.2 0.4 0.4 0.2 0.4"
TINY = """nc: 2
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [8, 3, 2]]
head:
  - [[2, 3, 4], 1, HEAD]
"""
ONES = "A,seed,data\n1,2,3\n"


class Place:
    """Files for the cases, made once; `{name}` in a case is the path of the file of that name.

    Args:
        root (Path): Where they are made.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[str, str] = {"nowhere": str(root / "nowhere"), "root": str(root)}

    def add(self, key: str, name: str, content: bytes | str) -> Path:
        """Write a file."""
        file = self.root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content.encode() if isinstance(content, str) else content)
        self.files[key] = str(file)
        return file

    def data(self, key: str, *labels: str, yaml: str | None = None, image: bytes | None = None, suffix: str = "png"
             ) -> None:  # fmt: skip
        """Write a data set of one image a split, with these lines as its labels."""
        folder = self.root / key
        for split in ("train", "val"):
            self.add(f"{key}-{split}", f"{key}/images/{split}/0.{suffix}", picture() if image is None else image)
            self.add(f"{key}-label", f"{key}/labels/{split}/0.txt", "\n".join(labels))
        self.add(key, f"{key}/data.yaml", f"path: {folder.as_posix()}\n{SPLITS}{NAMES}" if yaml is None else yaml)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, checkpoint: Callable[..., Path], tiny_data: Callable[[str], Path]
          ) -> Place:  # fmt: skip
    """All files that the cases name."""
    made = Place(tmp_path_factory.mktemp("bad"))
    for key, head in (("obb", "OBB, [nc, 1]"), ("detect", "Detect, [nc]")):
        yaml = made.add(f"{key}-yaml", f"tiny-{key}.yaml", TINY.replace("HEAD", head))
        made.files[key] = str(checkpoint(str(yaml)))
        made.files[f"{key}-data"] = str(tiny_data(key))
    (made.root / "folder").mkdir()
    made.files["folder"] = str(made.root / "folder")
    add_models(made)
    add_yamls(made)
    add_data(made)
    made.add("text", "text.txt", "hello\n")
    made.add("lists-nowhere", "list.txt", "nothing.png\n")
    made.add("text-png", "text.png", "hello\n")
    made.add("empty-png", "empty.png", b"")
    made.add("cut-png", "cut.png", picture()[:60])
    made.add("csv-of-others", "others/results.csv", ONES)
    made.add("csv-empty", "empty/results.csv", "")
    made.add("csv-binary", "binary/results.csv", b"\xff\xfe\x00\x01")
    made.add("stranger", "stranger/notes.txt", "keep me")
    made.files["stranger"] = str(made.root / "stranger")
    return made


def add_models(made: Place) -> None:
    """Write what are no models, or the wrong ones."""
    import torch
    from safetensors.torch import save

    checkpoint_bytes = Path(made.files["obb"]).read_bytes()
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr("hello.txt", "hello")
    made.add("empty-pt", "empty.pt", b"")
    made.add("text-pt", "text.pt", "hello\n")
    made.add("cut-pt", "cut.pt", checkpoint_bytes[: len(checkpoint_bytes) // 2])
    made.add("zip-pt", "zip.pt", archive.getvalue())
    made.add("png-pt", "png.pt", picture())
    made.add("pickle-pt", "pickle.pt", pickle.dumps({"a": 1}))
    made.add("tensors", "weights.safetensors", save({"a": torch.zeros(2)}))
    made.add("cut-tensors", "cut.safetensors", save({"a": torch.zeros(200)})[:100])
    made.add("long-header", "long.safetensors", b"\xff" * 7 + b"\x7f" + b"{}")
    made.add("onnx", "model.onnx", "hello")
    for key, content in (("dict-pt", {"a": 1}), ("list-pt", [1, 2]), ("state-pt", {"w": torch.zeros(2)}),
                         ("module-pt", {"model": torch.nn.Linear(2, 2)}), ("none-pt", {"model": None})):  # fmt: skip
        buffer = io.BytesIO()
        torch.save(content, buffer)
        made.add(key, f"{key}.pt", buffer.getvalue())
    made.add("torchscript", "script.pt", _scripted())
    made.add(
        "layer-yaml", "layer.yaml", "nc: 2\nbackbone:\n  - [-1, 1, Nothing, [8]]\nhead:\n  - [[0], 1, Detect, [nc]]\n"
    )
    made.add("no-head-yaml", "headless.yaml", "nc: 2\nbackbone:\n  - [-1, 1, Conv, [8, 3, 2]]\n")


def _scripted() -> bytes:
    """Return a TorchScript archive."""
    import torch

    buffer = io.BytesIO()
    torch.jit.save(torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2)), buffer)
    return buffer.getvalue()


def add_yamls(made: Place) -> None:
    """Write data YAMLs and others that are wrong in one thing each."""
    root = Path(made.files["obb-data"]).parent.as_posix()
    good = f"path: {root}\n{SPLITS}{NAMES}"
    yamls = {
        "empty": "",
        "comment": "# nothing\n",
        "list": "- a\n- b\n",
        "word": "hello\n",
        "tabs": "path: x\n\ttrain: y\n",
        "broken": "train: [a, b\nval: c\n",
        "binary": b"\x89PNG\xff\xfe\x00\x01",
        "latin": "path: x # Fl\xe4che\n".encode("latin-1"),
        "no-train": f"path: {root}\nval: images/val\n{NAMES}",
        "no-val": f"path: {root}\ntrain: images/train\n{NAMES}",
        "no-names": f"path: {root}\n{SPLITS}",
        "number-names": good.replace(NAMES, "names: 3\n"),
        "word-names": good.replace(NAMES, "names: red\n"),
        "keyed-names": good.replace(NAMES, "names: {a: red, b: green}\n"),
        "gap-names": good.replace(NAMES, "names: {0: red, 5: green}\n"),
        "few-names": f"{good}nc: 3\n",
        "word-nc": f"path: {root}\n{SPLITS}nc: many\n",
        "number-train": good.replace("images/train", "7"),
        "mapping-train": good.replace("images/train", "{a: b}"),
        "wrong-path": good.replace(root, f"{root}/nowhere"),
        "wrong-train": good.replace("images/train", "images/nowhere"),
        "wrong-val": good.replace("images/val", "images/nowhere"),
        "channels": f"{good}channels: many\n",
        "setting": "exlo: 1\nbatch: 3\n",
        "bad-value": "exlo: -3\n",
        "arm": "mine: {exlo: 1, epochs: 3}\n",
        "good": good,
    }
    for key, text in yamls.items():
        made.add(f"yaml-{key}", f"yaml/{key}.yaml", text)
    made.add("yaml-folder", "yaml/folder.yaml/inside.txt", "hello")
    made.files["yaml-folder"] = str(made.root / "yaml" / "folder.yaml")


def add_data(made: Place) -> None:
    """Write data sets whose labels or images are wrong."""
    sound = LABEL.split()
    labels = {
        "four-columns": "0 0.2 0.2 0.4",
        "text": "a ship at the quay with two masts and no crew",
        "nan": " ".join([*sound[:-1], "nan"]),
        "negative": " ".join(["0", *(f"-{v}" for v in sound[1:])]),
        "over": " ".join([*sound[:-1], "12"]),
        "class": f"7{LABEL[1:]}",
        "negative-class": f"-1{LABEL[1:]}",
        "binary": "\0\1\2",
        "none": "",
    }
    for key, text in labels.items():
        made.data(f"labels-{key}", text)
    made.data("images-empty", LABEL, image=b"")
    made.data("images-text", LABEL, image=b"hello")
    made.data("images-cut", LABEL, image=picture()[:60])
    made.data("images-suffix", LABEL, suffix="pnk")


TRAIN = "train teacher={obb} student={obb-yaml} data={obb-data} project={runs} device=cpu imgsz=64 workers=0"
AMPLIFY = "amplify teacher={obb} data={obb-data} device=cpu imgsz=64 epochs=1 workers=0"
VAL = "val model={obb} data={obb-data} project={runs} device=cpu imgsz=64 workers=0"
PREDICT = "predict model={obb} source={obb-image} project={runs} device=cpu imgsz=64"
EXPORT = "export model={obb} imgsz=64"
BENCHMARK = "benchmark model={obb} data={obb-data} out={runs} imgsz=64"
EXPLAIN = "explain teacher={obb} student={obb} data={obb-data} project={runs} device=cpu imgsz=64"
COMPARE = "compare teacher={obb} student={obb-yaml} data={obb-data} project={runs} imgsz=64 device=cpu"
PREPARE = "data prepare dota source={folder} out={runs}"
BASES = {"train": TRAIN, "check": TRAIN.replace("train ", "check ", 1), "amplify": AMPLIFY, "val": VAL, "predict":
         PREDICT, "export": EXPORT, "benchmark": BENCHMARK, "explain": EXPLAIN, "compare": COMPARE,
         "demo": "demo project={runs}", "prepare": PREPARE}  # fmt: skip

# mode, what replaces or joins the arguments of its good command, status, what the line says
SETTINGS: list[tuple[str, str, int, str]] = [
    ("train", "exlo=-1", 2, "exlo=-1 must be a finite number of at least 0"),
    ("train", "exlo=nan", 2, "exlo='nan' must be a finite number"),
    ("train", "imhi=1e999", 2, "imhi=inf must be a finite number"),
    ("train", "gains=atuo", 2, "did you mean 'auto'?"),
    ("train", "levels=8", 2, "such as [8,16]"),
    ("train", "levels=[8,8]", 2, "names a level twice"),
    ("train", "levels=[8,", 2, "unmatched '[' or ']'"),
    ("train", "teacher_imgsz=many", 2, "teacher_imgsz='many' must be a whole number of at least 1"),
    ("train", "teacher_imgsz=100", 2, "teacher_imgsz=100 has to be imgsz=64 times 2, 4 or 8: give 128, or 256"),
    ("train", "teacher_imgsz=32", 2, "teacher_imgsz=32 is smaller than imgsz=64"),
    ("train", "teacher_imgsz=512", 2, "teacher strides 8, 16, 32 at 8 times the image size share no level"),
    ("train", "teacher_imgsz=128 multi_scale=0.5", 2, "does not go with teacher_imgsz=: leave one of them out"),
    ("train", "wavelet=har", 2, "'haar'"),
    ("train", "explicit=maybe", 2, "must be True or False"),
    ("train", "explicit=False exlo=1", 2, "contradicts"),
    ("train", "epoch=3", 2, "did you mean 'epochs'?"),
    ("train", "epochs=many", 2, "epochs"),
    ("train", "epochs=1 epochs=2", 2, "'epochs' is given twice"),
    ("train", "epochs", 2, "'epochs' is no key=value"),
    ("train", "mosaic=3", 2, "mosaic"),
    ("train", "imgsz=0", 2, "imgsz=0"),
    ("train", "batch=-3", 2, "batch=-3"),
    ("train", "batch=0", 2, "batch=0"),
    ("train", "optimizer=Adamm", 2, "Adamm"),
    ("train", "device=gpu7", 2, "device=gpu7"),
    ("train", "batch=many", 2, "batch"),
    ("train", "recipe={yaml-good}", 2, "'path'"),
    ("train", "model=x.pt", 2, "model= is student= here"),
    ("train", "task=detect", 2, "task= is the student's own task here"),
    ("train", "epochs=-1", 2, "epochs=-1"),
    ("train", "epochs=0", 2, "epochs=0"),
    ("train", "workers=-1", 2, "workers=-1"),
    ("train", "safe=maybe", 2, "safe='maybe' must be True or False"),
    ("check", "resume", 2, "resume="),
    ("check", "exlo=much", 2, "exlo='much'"),
    ("amplify", "project=x", 2, "project= has no meaning"),
    ("amplify", "wavelet=har", 2, "'haar'"),
    ("amplify", "exlo=1", 2, "'exlo'"),
    ("val", "conf=2", 2, "conf"),
    ("val", "size_edges=[32,16]", 2, "must rise"),
    ("val", "crowd_unit=m", 2, "one of size, px"),
    ("val", "square=0.5", 2, "square=0.5"),
    ("val", "split=nowhere", 2, "nowhere"),
    ("val", "task=detect", 2, "task=detect"),
    ("predict", "slice=8", 2, "slice=8"),
    ("predict", "overlap=0.2", 2, "slice="),
    ("predict", "slice=64 overlap=2", 2, "overlap=2"),
    ("predict", "slice=64 stretch=[98,2]", 2, "the lower first"),
    ("predict", "formats=shapefile", 2, "geojson, csv"),
    ("predict", "slize=64", 2, "did you mean 'slice'?"),
    ("predict", "conf=abc", 2, "conf"),
    ("export", "format=onix", 2, "did you mean 'onnx'?"),
    ("export", "check_conf=3", 2, "check_conf=3"),
    ("export", "opset=high", 2, "opset"),
    ("export", "epochs=3", 2, "'epochs'"),
    ("benchmark", "formats=pt,onix", 2, "did you mean 'onnx'?"),
    ("benchmark", "formats=pt,pt", 2, "twice"),
    ("benchmark", "runs=3 rounds=5", 2, "fewer than rounds=5"),
    ("benchmark", "out={text}", 2, "cannot be written"),
    ("explain", "teacher_imgsz=128", 2, "'teacher_imgsz'"),
    ("explain", "images=0", 2, "images=0 must be a whole number of at least 1"),
    ("explain", "images=nowhere.png", 2, "images=nowhere.png is no usable image of split=val"),
    ("explain", "split=test", 2, "'test:' images not found"),
    ("explain", "conf=2", 2, "conf"),
    ("explain", "levels=[128]", 2, "student and teacher share the strides"),
    ("explain", "student={obb-yaml}", 2, "untrained"),
    ("explain", "amplifier={nowhere}", 2, "does not exist"),
    ("explain", "wavelet=har", 2, "such as 'haar'"),
    ("compare", "seeds=0,0", 2, "0 twice"),
    ("compare", "seeds=[-1]", 2, "whole numbers"),
    ("compare", "arms=plain,ds2d3", 2, "unknown arm 'ds2d3'"),
    ("compare", "arms=plain,x:wavelt=db2", 2, "'wavelt'"),
    ("compare", "baseline=nobody", 2, "baseline=nobody"),
    ("compare", "level=1", 2, "under 1"),
    ("compare", "launcher=slrm", 2, "did you mean 'slurm'"),
    ("compare", "launcher=slurm", 2, "launcher=slurm needs slurm="),
    ("compare", "launcher=slurm slurm=partition=gpu", 2, "needs time="),
    ("compare", "batch=-1", 2, "batch=-1"),
    ("compare", "seed=3", 2, "seeds="),
    ("compare", "project={stranger} name=.", 2, "holds no comparison"),
    ("demo", "size=huge", 2, "small, full"),
    ("demo", "device=0,1", 2, "one device"),
    ("demo", "seed=-1", 2, "seed=-1"),
    ("demo", "data={nowhere}", 2, "data="),
    ("demo", "data={detect-data}", 2, "an obb student needs 9"),
    ("demo", "data={obb-data} project={root} name=stranger", 2, "holds no demo"),
    ("prepare", "gap=2000", 2, "must be under crop_size"),
    ("prepare", "splits=[trian]", 2, "'train'"),
    ("prepare", "version=2", 2, "1.0 or 1.5"),
    ("prepare", "iof=0", 2, "iof=0"),
    ("prepare", "source={nowhere}", 2, "does not exist"),
    ("prepare", "source={text}", 2, "is no folder: unpack it first"),
    ("prepare", "source={root}", 2, "lacks train and val"),
    ("prepare", "", 2, "lacks train and val"),
]  # fmt: skip

WORDS: list[tuple[str, int, str]] = [
    ("trian", 2, "did you mean 'train'?"),
    ("xyz", 2, "the modes are train"),
    ("tune", 2, "ds2d2-yolo compare"),
    ("help trian", 2, "did you mean 'train'?"),
    ("completion fish", 2, "bash, zsh"),
    ("completion", 2, "bash, zsh"),
    ("data perpare dota", 2, "ds2d2-yolo data prepare"),
    ("data prepare", 2, "ds2d2-yolo data prepare"),
    ("data prepare dotta source=x", 2, "did you mean 'dota'?"),
    ("train", 2, "teacher=, student=, data= missing"),
    ("val", 2, "model= missing"),
    ("predict", 2, "model=, source= missing"),
    ("export", 2, "model= missing"),
    ("benchmark", 2, "model= and data= are needed"),
    ("explain", 2, "teacher=, student=, data= missing"),
    ("compare", 2, "teacher=, student=, data= missing"),
    ("amplify", 2, "teacher=, data= missing"),
    ("compare results={nowhere}", 2, "cannot be read"),
    ("compare results={csv-of-others}", 2, "holds no result"),
    ("compare results={csv-empty}", 2, "holds no result"),
    ("compare results={csv-binary}", 2, "cannot be read"),
    ("compare results={csv-empty} epochs=3", 2, "leave out epochs="),
]  # fmt: skip

# models and other files, by the key that takes them
NO_CHECKPOINT = ("nowhere", "folder", "empty-pt", "text-pt", "cut-pt", "zip-pt", "png-pt", "pickle-pt", "dict-pt",
                 "list-pt", "state-pt", "module-pt", "none-pt", "tensors", "onnx", "torchscript", "text")  # fmt: skip
MODELS: list[tuple[str, str, int, str]] = [
    *(("train", f"teacher={{{key}}}", 2, "teacher=") for key in (*NO_CHECKPOINT, "yaml-good")),
    *(("train", f"student={{{key}}}", 2, "student=") for key in (*NO_CHECKPOINT, "yaml-good", "yaml-empty", "yaml-list",
      "yaml-tabs", "yaml-folder", "layer-yaml", "no-head-yaml")),
    ("train", "teacher={detect}", 2, "is a model for detect"),
    ("train", "student=rtdetr-l.yaml", 2, "RT-DETR"),
    *(("amplify", f"teacher={{{key}}}", 2, "teacher=") for key in ("nowhere", "text-pt", "dict-pt")),
    *(("val", f"model={{{key}}}", 2, "model=") for key in (*NO_CHECKPOINT, "yaml-good")),
    *(("predict", f"model={{{key}}}", 2, "model=") for key in (*NO_CHECKPOINT, "yaml-good")),
    *(("export", f"model={{{key}}}", 2, "model=") for key in (*NO_CHECKPOINT, "yaml-good")),
    *(("benchmark", f"model={{{key}}}", 2, "model=") for key in ("nowhere", "text-pt", "dict-pt", "onnx")),
    *(("compare", f"teacher={{{key}}}", 2, "teacher=") for key in ("nowhere", "text-pt", "dict-pt")),
    ("compare", "student={text-pt}", 2, "student="),
    *(("train", f"amplifier={{{key}}}", 2, "amplifier=") for key in ("nowhere", "folder", "text-pt", "tensors",
      "cut-tensors", "long-header", "empty-pt")),
    *(("train", f"resume={{{key}}}", 2, "{" + key + "}") for key in ("nowhere", "folder", "text-pt", "empty-pt",
      "cut-pt", "dict-pt", "list-pt", "obb", "onnx")),
    *((mode, f"pretrained={{{key}}}", 2, "pretrained=") for mode in ("train", "check", "compare") for key in ("nowhere",
      "text", "text-pt", "cut-pt", "dict-pt", "onnx", "yaml-good")),
    *((mode, f"freeze={value}", 2, "freeze=") for mode in ("train", "check", "compare") for value in ("abc", "1.5",
      "-3", "0,1", "[0,abc]", "[99]", "True")),
    *(("amplify", f"{key}=5", 2, f"{key}= has no meaning for an amplifier") for key in ("freeze", "pretrained")),
    *((mode, wrong, 2, wrong) for mode in ("train", "check", "amplify", "compare") for wrong in ("copy_paste_mode=flp",
      "cache=rm", "box=-1", "warmup_epochs=-1")),
    *((mode, "seed=5000000000", 2, "seed=5000000000") for mode in ("train", "check", "amplify")),
    *((mode, "classes=7", 2, "classes=7") for mode in ("train", "check", "amplify", "compare")),
]  # fmt: skip

NO_YAML = ("nowhere", "yaml-empty", "yaml-comment", "yaml-list", "yaml-word", "yaml-tabs", "yaml-broken", "yaml-binary",
           "yaml-folder", "text", "obb", "folder")  # fmt: skip
NO_DATA = (*NO_YAML, "yaml-no-train", "yaml-no-val", "yaml-no-names", "yaml-number-names", "yaml-word-names",
           "yaml-keyed-names", "yaml-gap-names", "yaml-few-names", "yaml-word-nc", "yaml-number-train",
           "yaml-mapping-train", "yaml-wrong-path", "yaml-wrong-val")  # fmt: skip
LABELS = ("four-columns", "text", "nan", "negative", "over", "class", "negative-class", "binary", "none")
IMAGES = ("empty", "text", "cut", "suffix")
DATA: list[tuple[str, str, int, str]] = [
    *((mode, f"data={{{key}}}", 2, "data=") for mode in ("train", "val") for key in NO_DATA),
    *((mode, "data={yaml-channels}", 2, "channels: 'many'") for mode in ("train", "val")),
    *(("train", f"data={{{key}}}", 2, "") for key in ("yaml-wrong-train",)),
    *((mode, f"data={{{key}}}", 2, "data=") for mode in ("check", "amplify", "benchmark", "compare") for key in
      ("nowhere", "yaml-list", "yaml-no-names")),
    *((mode, f"data={{labels-{key}}}", 2, "") for mode in ("train", "val") for key in LABELS),
    *((mode, f"data={{images-{key}}}", 2, "") for mode in ("train", "val") for key in IMAGES),
    ("train", "data={detect-data}", 2, "an obb student needs 9"),
    ("val", "data={detect-data}", 2, "an obb model needs 9"),
    *(("train", f"recipe={{{key}}}", 2, "recipe=") for key in (*NO_YAML, "yaml-setting", "yaml-latin")),
    ("train", "recipe={yaml-bad-value}", 2, "exlo=-3"),
    ("train", "recipe=retina-dota", 2, "did you mean 'retinanet-dota'?"),
    *(("train", f"cfg={{{key}}}", 2, "cfg=") for key in NO_YAML),
    *(("compare", f"arms={{{key}}}", 2, "arms=") for key in ("yaml-list", "yaml-tabs", "yaml-word", "yaml-folder")),
    ("compare", "arms={yaml-arm}", 2, "'epochs'"),
    *(("predict", f"source={{{key}}}", 2, "source=") for key in ("nowhere", "folder", "lists-nowhere")),
    *(("predict", f"source={{{key}}} slice=64", 2, message) for key, message in (("nowhere", "source="),
      ("text-png", "text.png"), ("empty-png", "empty.png"))),
    *(("predict", f"source={{{key}}}", 2, "source=") for key in ("text-png", "empty-png", "cut-png")),
    *(("export", f"check_images={{{key}}}", 2, "check_images=") for key in ("nowhere", "folder")),
]  # fmt: skip


def commands(place: Place, folder: Path) -> list[tuple[list[str], int, str]]:
    """Return the arguments of every case with its status and what its line says; `folder` is where runs would lie."""
    place.files["runs"] = str(folder / "runs")
    place.files["obb-image"] = str(Path(place.files["obb-data"]).parent / "images" / "val" / "0.png")
    cases = [([fill(w, place) for w in text.split()], status, message) for text, status, message in WORDS]
    for mode, text, status, message in (*SETTINGS, *MODELS, *DATA):
        changes = [fill(w, place) for w in text.split()]
        keys = {w.partition("=")[0] for w in changes if "=" in w}
        base = [fill(w, place) for w in BASES[mode].split() if w.partition("=")[0] not in keys or "=" not in w]
        cases.append(([*base, *changes], status, fill(message, place)))
    return cases


def fill(text: str, place: Place) -> str:
    """Put the paths of files into a text."""
    for key, path in place.files.items():
        text = text.replace("{" + key + "}", path)
    return text


CASES = [*WORDS, *SETTINGS, *MODELS, *DATA]


@pytest.mark.parametrize("number", range(len(CASES)), ids=lambda n: " ".join(map(str, CASES[n][:-2])))
def test_bad_input_is_one_line(number: int, place: Place, capsys: pytest.CaptureFixture[str],
                               monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    arguments, expected_status, message = commands(place, tmp_path)[number]
    began = time.monotonic()
    status = main(arguments)
    seconds = time.monotonic() - began
    err = capsys.readouterr().err
    lines = [line for line in err.splitlines() if line.startswith("ds2d2-yolo: ")]
    assert len(lines) == 1, (arguments, err)
    assert message in lines[0], lines
    assert "verbose=True shows more" not in lines[0], lines
    assert status == expected_status, lines
    assert "Traceback" not in err
    assert seconds < SECONDS
    assert not [f for f in tmp_path.rglob("*") if f.name != "runs"], "a mistake leaves no run"


@pytest.mark.parametrize(
    "number",
    [
        0,
        pytest.param(len(WORDS) + 1, marks=pytest.mark.slow),
        pytest.param(len(WORDS) + len(SETTINGS) + 3, marks=pytest.mark.slow),
    ],
)
def test_so_it_is_in_a_process_of_its_own(number: int, place: Place, tmp_path: Path) -> None:
    arguments, expected_status, message = commands(place, tmp_path)[number]
    command = [sys.executable, "-m", "ds2d2_yolo", *arguments]
    repository = Path(__file__).resolve().parents[1]
    env = {**os.environ, "PYTHONPATH": str(repository)}
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=env, check=False, timeout=120)
    lines = [line for line in done.stderr.splitlines() if line.startswith("ds2d2-yolo: ")]
    assert done.returncode == expected_status
    assert len(lines) == 1
    assert message in lines[0]
    assert "Traceback" not in done.stderr
    assert not list(tmp_path.iterdir())
