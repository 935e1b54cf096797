"""Writes Caffe's files: networks as its users describe them, in text and in protobuf's wire format.

A message is a list of (field, value): another message, a text, an enumerator, a number, an array.
The numbers of fields are those of BVLC/caffe's caffe.proto.
"""

import struct
from typing import Any, TypeAlias

Fields: TypeAlias = list[tuple[str, Any]]

TABLES: dict[str, dict[str, tuple[int, str]]] = {
    "net": {
        "name": (1, "text"),
        "layers": (2, "old_layer"),
        "input": (3, "text"),
        "input_dim": (4, "int"),
        "force_backward": (5, "int"),
        "input_shape": (8, "shape"),
        "layer": (100, "layer"),
    },
    "layer": {
        "name": (1, "text"),
        "type": (2, "text"),
        "bottom": (3, "text"),
        "top": (4, "text"),
        "param": (6, "learning"),
        "blobs": (7, "blob"),
        "include": (8, "rule"),
        "exclude": (9, "rule"),
        "transform_param": (100, "transform"),
        "convolution_param": (106, "convolution"),
        "data_param": (107, "data"),
        "dropout_param": (108, "dropout"),
        "inner_product_param": (117, "inner"),
        "lrn_param": (118, "lrn"),
        "pooling_param": (121, "pooling"),
        "relu_param": (123, "relu"),
        "input_param": (143, "input"),
    },
    "old_layer": {
        "layer": (1, "layer"),
        "bottom": (2, "text"),
        "top": (3, "text"),
        "name": (4, "text"),
        "type": (5, "int"),
        "blobs": (6, "blob"),
        "convolution_param": (10, "convolution"),
        "data_param": (11, "data"),
        "dropout_param": (12, "dropout"),
        "inner_product_param": (17, "inner"),
        "lrn_param": (18, "lrn"),
        "pooling_param": (19, "pooling"),
        "relu_param": (30, "relu"),
        "include": (32, "rule"),
        "transform_param": (36, "transform"),
    },
    "blob": {
        "num": (1, "int"),
        "channels": (2, "int"),
        "height": (3, "int"),
        "width": (4, "int"),
        "data": (5, "packed"),
        "unpacked_data": (5, "unpacked"),
        "diff": (6, "packed"),
        "shape": (7, "shape"),
        "double_data": (8, "packed"),
        "unpacked_double_data": (8, "unpacked"),
        "raw_data_type": (10, "int"),
        "raw_data": (12, "packed"),
    },
    "shape": {"dim": (1, "packed_ints"), "unpacked_dim": (1, "int")},
    "rule": {"phase": (1, "int"), "stage": (4, "text"), "not_stage": (5, "text")},
    "learning": {"lr_mult": (3, "float"), "decay_mult": (4, "float")},
    "transform": {
        "scale": (1, "float"),
        "mirror": (2, "int"),
        "crop_size": (3, "int"),
        "mean_file": (4, "text"),
        "mean_value": (5, "float"),
    },
    "convolution": {
        "num_output": (1, "int"),
        "pad": (3, "int"),
        "kernel_size": (4, "int"),
        "group": (5, "int"),
        "stride": (6, "int"),
        "weight_filler": (7, "filler"),
        "pad_h": (9, "int"),
        "pad_w": (10, "int"),
        "kernel_h": (11, "int"),
        "kernel_w": (12, "int"),
        "dilation": (18, "int"),
    },
    "filler": {"type": (1, "text"), "std": (6, "float")},
    "data": {
        "source": (1, "text"),
        "scale": (2, "float"),
        "mean_file": (3, "text"),
        "batch_size": (4, "int"),
        "crop_size": (5, "int"),
        "backend": (8, "int"),
    },
    "dropout": {"dropout_ratio": (1, "float"), "scale_train": (2, "int")},
    "inner": {"num_output": (1, "int"), "transpose": (6, "int")},
    "lrn": {
        "local_size": (1, "int"),
        "alpha": (2, "float"),
        "beta": (3, "float"),
        "norm_region": (4, "int"),
        "k": (5, "float"),
    },
    "pooling": {
        "pool": (1, "int"),
        "kernel_size": (2, "int"),
        "stride": (3, "int"),
        "pad": (4, "int"),
        "global_pooling": (12, "int"),
        "round_mode": (13, "int"),
    },
    "relu": {"negative_slope": (1, "float")},
    "input": {"shape": (1, "shape")},
}
ENUMERATORS = {
    "TRAIN": 0,
    "TEST": 1,
    "MAX": 0,
    "AVE": 1,
    "CEIL": 0,
    "FLOOR": 1,
    "LMDB": 1,
    "ACROSS_CHANNELS": 0,
    "WITHIN_CHANNEL": 1,
    "FLOAT": 1,
    "FLOAT16": 2,
    "INT": 3,
    "true": 1,
    "false": 0,
    "ACCURACY": 1,
    "CONVOLUTION": 4,
    "DATA": 5,
    "DROPOUT": 6,
    "INNER_PRODUCT": 14,
    "LRN": 15,
    "POOLING": 17,
    "RELU": 18,
    "SOFTMAX_LOSS": 21,
    "SPLIT": 22,
}


def varint(value: int) -> bytes:
    """Return base-128 digits, the least significant first, all but the last marked."""
    digits = bytearray()
    value %= 2**64
    while value > 127:
        digits.append(value % 128 + 128)
        value //= 128
    return bytes([*digits, value])


def binary(fields: Fields, table: str = "net") -> bytes:
    """Return a message in the wire format."""
    return b"".join(_field(*TABLES[table][name], value) for name, value in fields)


def _field(number: int, kind: str, value: Any) -> bytes:
    if kind == "int":
        return varint(number * 8) + varint(ENUMERATORS.get(value, value))
    if kind == "float":
        return varint(number * 8 + 5) + struct.pack("<f", value)
    if kind == "unpacked":
        tag = varint(number * 8 + (5 if value.itemsize == 4 else 1))
        return b"".join(tag + item.tobytes() for item in value.reshape(-1))
    if kind in TABLES:
        content = binary(value, kind)
    elif kind == "packed_ints":
        content = b"".join(map(varint, value))
    else:
        content = value.encode() if kind == "text" else value.tobytes()
    return varint(number * 8 + 2) + varint(len(content)) + content


def prototxt(fields: Fields, table: str = "net", indent: str = "") -> str:
    """Return a message in the text format."""
    lines = []
    for name, value in fields:
        kind = TABLES[table][name][1]
        if kind in TABLES:
            inner = prototxt(value, kind, indent + "  ")
            lines.append(f"{indent}{name} {{\n{inner}{indent}}}\n")
        elif kind == "packed_ints":
            lines += [f"{indent}{name}: {item}\n" for item in value]
        else:
            is_quoted = kind == "text"
            lines.append(
                f'{indent}{name}: "{value}"\n' if is_quoted else f"{indent}{name}: {value}\n"
            )
    return "".join(lines)
