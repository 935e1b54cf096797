"""The exact table and the exact JSON of an evaluation."""

import dataclasses
import json
import os
from pathlib import Path

import pytest

from alexnet_deploy.inference.confusion import Confusion
from alexnet_deploy.inference.evaluation_report import (
    ClassAccuracy,
    Comparison,
    EvaluatedModel,
    Evaluation,
)
from alexnet_deploy.inference.published import PublishedAccuracy
from alexnet_deploy.inference.statistics import PairedCounts
from alexnet_deploy.model.spec import PRESETS
from tests.support.predictions import one_for_one

ONE = Evaluation(
    top1=0.716224,
    top5=1.0,
    mean_class_top1=0.5,
    num_photographs=1695,
    failures=((Path(os.fsdecode(b"d/caf\xe9.jpg")), "is empty"),),
    num_unlabelled=0,
    left_out={".heic": 2},
    num_crops=10,
    matched_by="order",
    models=(
        EvaluatedModel(
            path=Path("dir/m.onnx"),
            identity="0123456789abcdef0123",
            runtime="openvino",
            precision="fp32",
            weight=0.25,
            input_size=224,
            preprocessing=PRESETS["paper"].preprocessing,
        ),
        EvaluatedModel(
            path=None,
            identity="f" * 64,
            runtime="onnxruntime",
            precision="int8",
            weight=1.0,
            input_size=227,
            preprocessing=PRESETS["caffe"].preprocessing,
        ),
    ),
    classes=(
        ClassAccuracy(label="dog\n", index=3, num_photographs=1695, top1=0.716224, top5=1.0),
        ClassAccuracy(label="cat", index=0, num_photographs=0, top1=None, top5=None),
    ),
    published=None,
    confusions=(
        Confusion(
            true=3,
            predicted=0,
            true_label="dog\n",
            predicted_label="cat",
            num_photographs=481,
            num_of_class=1695,
        ),
    ),
    comparison=None,
    predictions=one_for_one([(1, 0)], ("cat", "dog")),
    seconds=12.34567,
)
TOTALS = """\
top-1                     71.62 % (95 % interval 69.43 to 73.72 %)
top-5                     100.00 % (95 % interval 99.77 to 100.00 %)
top-1, mean over classes  50.00 %
photographs               1,695 in 2 classes, 1 more failed
decoded by                pillow-13+libheif-1.23 at exact size, colour profiles converted to sRGB
classes                   folders in sorted order: the model has no labels
model                     m.onnx (0123456789abcdef, weight 0.250)
measured                  mean of 10 crops of 224 px, shorter side 256 px, bicubic; \
1,695 photographs; openvino fp32
model                     model (ffffffffffffffff)
measured                  mean of 10 crops of 227 px, squashed to 256 px, bilinear; \
1,695 photographs; onnxruntime int8
most confused             dog\\n taken for cat: 481 of 1,695"""


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
        "top1_interval": [pytest.approx(0.6943, abs=5e-5), pytest.approx(0.7372, abs=5e-5)],
        "top5": 1.0,
        "top5_interval": [pytest.approx(0.9977, abs=5e-5), pytest.approx(1.0, abs=1e-12)],
        "mean_class_top1": 0.5,
        "photographs": 1695,
        "failures": [
            {"path": "d/caf\udce9.jpg", "path_base64": "ZC9jYWbpLmpwZw==", "error": "is empty"}
        ],
        "unlabelled": 0,
        "left_out": {".heic": 2},
        "decode": {
            "decoder": "pillow-13+libheif-1.23",
            "scale": "exact",
            "colour": "srgb",
        },
        "crops": 10,
        "matched_by": "order",
        "models": [
            {
                "path": "dir/m.onnx",
                "identity": "0123456789abcdef0123",
                "runtime": "openvino",
                "precision": "fp32",
                "weight": 0.25,
                "input_size": 224,
                "resize": "shorter_side",
                "resize_to": 256,
                "filter": "bicubic",
            },
            {
                "path": None,
                "identity": "f" * 64,
                "runtime": "onnxruntime",
                "precision": "int8",
                "weight": 1.0,
                "input_size": 227,
                "resize": "squash",
                "resize_to": 256,
                "filter": "bilinear",
            },
        ],
        "classes": [
            {"label": "dog\n", "index": 3, "photographs": 1695, "top1": 0.716224, "top5": 1.0},
            {"label": "cat", "index": 0, "photographs": 0, "top1": None, "top5": None},
        ],
        "published": None,
        "confusions": [{"true": "dog\n", "predicted": "cat", "photographs": 481, "of": 1695}],
        "comparison": None,
        "seconds": 12.346,
    }
    assert ONE.to_json().isascii()
    assert "\n" not in ONE.to_json()


PUBLISHED = dataclasses.replace(
    ONE,
    num_unlabelled=7,
    matched_by="wnid",
    published=PublishedAccuracy(network="own", top1=0.73, top5=0.79, measured="one crop"),
)


def test_a_published_figure_stands_beside_and_says_whether_it_is_inside() -> None:
    lines = PUBLISHED.table().splitlines()
    assert lines[-2] == (
        "published                 top-1 73.00 % (inside the interval), "
        "top-5 79.00 % (outside the interval); own: one crop"
    )
    assert lines[3].endswith("1 more failed; 7 in the folder without a class")
    assert lines[5] == "classes                   ImageNet's, by their WordNet ids"
    found = json.loads(PUBLISHED.to_json())
    assert found["unlabelled"] == 7
    assert found["published"] == {
        "network": "own",
        "top1": 0.73,
        "top1_inside": True,
        "top5": 0.79,
        "top5_inside": False,
        "measured": "one crop",
    }


COMPARED = dataclasses.replace(
    ONE,
    num_crops=1,
    models=ONE.models[:1],
    confusions=(),
    comparison=Comparison(
        model=ONE.models[1],
        counts=PairedCounts(
            num_photographs=1695, num_both=1200, num_only_first=14, num_only_second=30
        ),
        predictions=ONE.predictions,
    ),
)


def test_a_second_model_stands_below_with_what_its_difference_means() -> None:
    assert COMPARED.table().splitlines()[-4:] == [
        "compared model            model (ffffffffffffffff)",
        "measured                  centre crop of 227 px, squashed to 256 px, bilinear; "
        "1,695 photographs; onnxruntime int8",
        "top-1, paired             72.57 % against 71.62 %: +0.94 points "
        "(95 % interval +0.16 to +1.72)",
        "                          right on 30 photographs where the other is wrong, wrong on 14 "
        "where it is right: p = 0.023 (McNemar, exact), so the difference is hardly chance, on "
        "photographs such as these",
    ]
    found = json.loads(COMPARED.to_json())["comparison"]
    assert found.pop("model") == json.loads(ONE.to_json())["models"][1]
    assert found == {
        "photographs": 1695,
        "first_top1": pytest.approx(1214 / 1695),
        "second_top1": pytest.approx(1230 / 1695),
        "difference": pytest.approx(16 / 1695),
        "difference_interval": [pytest.approx(0.0016, abs=5e-5), pytest.approx(0.01725, abs=5e-5)],
        "both": 1200,
        "only_first": 14,
        "only_second": 30,
        "p_value": pytest.approx(0.0226, abs=5e-5),
    }
