"""The words that arguments and options take: as types, and as tuples in the order of the help.

Only `typing` is imported, so the command line can list them and still start fast.
"""

from typing import Literal, get_args

Runtime = Literal["auto", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"]
Device = Literal["auto", "cpu", "cuda"]
FilePrecision = Literal["fp32", "fp16", "bf16", "int8"]
Precision = Literal["auto", FilePrecision]
Metric = Literal["cosine", "l2"]
Scale = Literal["exact", "scaled"]
Colour = Literal["srgb", "ignored"]

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
DEVICES: tuple[Device, ...] = get_args(Device)
FILE_PRECISIONS: tuple[FilePrecision, ...] = get_args(FilePrecision)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
METRICS: tuple[Metric, ...] = get_args(Metric)
SCALES: tuple[Scale, ...] = get_args(Scale)
COLOURS: tuple[Colour, ...] = get_args(Colour)
