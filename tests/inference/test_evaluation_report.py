"""The exact table and the exact JSON of an evaluation."""

import json
import os
from pathlib import Path

from alexnet_deploy.inference.evaluation_report import ClassAccuracy, EvaluatedModel, Evaluation

ONE = Evaluation(
    top1=0.716224,
    top5=1.0,
    mean_class_top1=0.5,
    num_photographs=1695,
    failures=((Path(os.fsdecode(b"d/caf\xe9.jpg")), "is empty"),),
    num_crops=10,
    matched_by="order",
    models=(
        EvaluatedModel(
            path=Path("dir/m.onnx"),
            identity="0123456789abcdef0123",
            runtime="openvino",
            precision="fp32",
            weight=0.25,
        ),
        EvaluatedModel(
            path=None, identity="f" * 64, runtime="onnxruntime", precision="fp32", weight=1.0
        ),
    ),
    classes=(
        ClassAccuracy(label="dog\n", index=3, num_photographs=1695, top1=0.716224, top5=1.0),
        ClassAccuracy(label="cat", index=0, num_photographs=0, top1=None, top5=None),
    ),
    seconds=12.34567,
)
TOTALS = """\
top-1                     71.62 %
top-5                     100.00 %
top-1, mean over classes  50.00 %
photographs               1,695 in 2 classes, 1 more failed
views                     10 crops averaged
classes                   folders in sorted order: the model has no labels
model                     m.onnx (0123456789abcdef, openvino fp32, weight 0.250)
model                     model (ffffffffffffffff, onnxruntime fp32)"""


def test_the_table_is_exactly_this() -> None:
    assert ONE.table() == TOTALS
    assert ONE.table(per_class=True) == TOTALS + (
        "\n\n"
        "class  photographs    top-1    top-5\n"
        "dog\\n        1,695  71.62 % 100.00 %\n"
        "cat              0        -        -"
    )


def test_json_is_exactly_this() -> None:
    assert json.loads(ONE.to_json()) == {
        "top1": 0.716224,
        "top5": 1.0,
        "mean_class_top1": 0.5,
        "photographs": 1695,
        "failures": [
            {"path": "d/caf\udce9.jpg", "path_base64": "ZC9jYWbpLmpwZw==", "error": "is empty"}
        ],
        "crops": 10,
        "matched_by": "order",
        "models": [
            {
                "path": "dir/m.onnx",
                "identity": "0123456789abcdef0123",
                "runtime": "openvino",
                "precision": "fp32",
                "weight": 0.25,
            },
            {
                "path": None,
                "identity": "f" * 64,
                "runtime": "onnxruntime",
                "precision": "fp32",
                "weight": 1.0,
            },
        ],
        "classes": [
            {"label": "dog\n", "index": 3, "photographs": 1695, "top1": 0.716224, "top5": 1.0},
            {"label": "cat", "index": 0, "photographs": 0, "top1": None, "top5": None},
        ],
        "seconds": 12.346,
    }
    assert ONE.to_json().isascii()
    assert "\n" not in ONE.to_json()
