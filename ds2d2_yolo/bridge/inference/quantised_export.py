"""Export of students that were trained with `quantize=8`: their ranges go into the file as pairs of Q and DQ nodes.

Ultralytics (8.4.190) exports them to ONNX and TensorRT. OpenVINO reads the Q/DQ nodes of the ONNX file.
"""

from __future__ import annotations

from pathlib import Path

from ultralytics.utils import YAML

from ds2d2_yolo.errors import BadUseError

FORMATS = ("onnx", "openvino", "engine")


def refuse_format(format: str, who: str) -> None:
    """Refuse a format that would lose the trained ranges.

    Args:
        format (str): Format of the export.
        who (str): The checkpoint as messages name it.

    Raises:
        BadUseError: With the formats that keep them.
    """
    if format not in FORMATS:
        hint = f"its ranges can be kept in format={', '.join(FORMATS)}"
        raise BadUseError(f"{who} was trained with quantize=8, {hint}: for {format} export a float checkpoint")


def write_openvino(onnx_file: Path) -> Path:
    """Convert an ONNX file with Q/DQ nodes to OpenVINO, which makes FakeQuantize operations and INT8 weights of them.

    Args:
        onnx_file (Path): The file that Ultralytics wrote.

    Returns:
        (Path): The folder beside it, named as Ultralytics names it, with Ultralytics' metadata.yaml.
    """
    import onnx
    import openvino

    folder = onnx_file.with_name(f"{onnx_file.stem}_int8_openvino_model")
    folder.mkdir()
    openvino.save_model(openvino.convert_model(onnx_file), folder / f"{onnx_file.stem}.xml", compress_to_fp16=False)
    properties = onnx.load(onnx_file, load_external_data=False).metadata_props
    YAML.save(folder / "metadata.yaml", {entry.key: entry.value for entry in properties})
    return folder
