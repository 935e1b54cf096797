"""What follows from times that were measured: rates, bounds, bottlenecks, recommendations."""

import dataclasses
import json
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.benchmark.machine import Machine
from alexnet_deploy.benchmark.results import Row
from alexnet_deploy.benchmark.table import table
from alexnet_deploy.console.reporting import in_options
from alexnet_deploy.photographs.pixels import Decode
from alexnet_deploy.timing import Spread
from alexnet_deploy.verification.agreement import Agreement
from tests.support.measured import AGREES, DIFFERS, FIRST, bench_of, row_of, seconds


def test_on_a_cpu_the_times_add_up_and_beside_a_gpu_the_longer_one_counts() -> None:
    cpu, gpu = row_of(FIRST), row_of(FIRST, runtime="onnxruntime", device="cuda")
    assert (cpu.decoding.median, cpu.network.median, cpu.whole.median) == (100, 25, 100 / 6)
    assert cpu.bound.median == pytest.approx(1 / (1 / 100 + 1 / 25)) == 20
    decoded_there = row_of(FIRST, decode=Decode.of("gpu"))
    assert gpu.bound.median == decoded_there.bound.median == min(100, 25)
    assert cpu.share.median == pytest.approx(5 / 6)
    assert gpu.share.median == pytest.approx(4 / 6)
    assert cpu.process.median == 100 / 7


def test_rounds_are_compared_with_themselves() -> None:
    """The second round is three times as slow for all, and no share is above 1 for it."""
    own = {"decoding": [1, 3, 1], "network": [4, 12, 4], "whole": [6, 18, 8], "process": [7] * 3}
    first = {"whole": [12, 36, 8]}
    found = Row.of(row_of(own).setting, "", 100, own, first, None)
    assert found.share.upper == pytest.approx(5 / 6)
    assert (found.speedup.median, found.speedup.lower) == (2, 1.5)
    assert found.whole == Spread.of([100 / 6, 100 / 18, 100 / 8])


@pytest.mark.parametrize(
    ("times", "device", "sentence"),
    [
        ((1, 4, 5), "cpu", "the network holds it back: 80% of the time; decoding 20%, the rest 0%"),
        (
            (3, 2, 6),
            "cpu",
            "decoding holds it back: 50% of the time; the network 33%, the rest 17%",
        ),
        (
            (1, 2, 8),
            "cpu",
            "the rest holds it back: 62% of the time; the network 25%, decoding 12%",
        ),
        # As measured alone they would take longer than both together did.
        ((1, 4, 4), "cpu", "the network holds it back: 80% of the time; decoding 20%, the rest 0%"),
        ((4, 1, 4.5), "cuda", "decoding holds it back: 25 a second alone, the network 100"),
        ((1, 4, 4.5), "cuda", "the network holds it back: 25 a second alone, decoding 100"),
        (
            (4, 1, 8),
            "cuda",
            "what lies between decoding and the network holds it back: decoding 25 a second "
            "alone, the network 100",
        ),
    ],
)
def test_one_sentence_says_what_holds_it_back(
    times: tuple[float, float, float], device: Any, sentence: str
) -> None:
    decoding, network, whole = times
    own = seconds(decoding=decoding, network=network, whole=whole)
    assert row_of(own, runtime="onnxruntime", device=device).bottleneck() == sentence


FASTER = seconds(decoding=1, network=2, whole=3)


def test_what_is_faster_and_agrees_is_recommended_in_the_words_of_the_caller() -> None:
    found = bench_of(row_of(FIRST), row_of(FASTER, AGREES, precision="bf16")).recommendation()
    assert found.changes == {"precision": "bf16"}
    said = f"2 times as fast, {AGREES} on these photographs"
    assert str(found.text) == f'use precision="bf16": {said}'
    assert in_options(found.text) == f"use --precision bf16: {said}"
    assert found.beyond == ""


@pytest.mark.parametrize(
    ("other", "beyond"),
    [
        (row_of(FASTER, DIFFERS, precision="bf16"), "it agrees less than verify allows"),
        (
            row_of(FASTER, AGREES, precision="int8"),
            "its ranges are those of the sample photographs",
        ),
        (row_of(FASTER, None, precision="bf16"), "how far it agrees was not measured"),
        (row_of(FASTER, DIFFERS, precision="int8"), "it agrees less than verify allows"),
        (row_of(FASTER, DIFFERS, Decode.of("scaled")), "it agrees less than verify allows"),
        (row_of(seconds(decoding=1, network=3.9, whole=5.9), batch_size=64), ""),
        (row_of(seconds(decoding=1, network=8, whole=9), AGREES, precision="bf16"), ""),
    ],
)
def test_what_is_less_exact_or_no_faster_than_noise_is_not(other: Row, beyond: str) -> None:
    found = bench_of(row_of(FIRST), other).recommendation()
    assert str(found.text).startswith("keep openvino cpu fp32, batch 32, exact: ")
    assert found.changes == {}
    assert bool(found.beyond) == bool(beyond)
    assert beyond in found.beyond


def test_a_speed_up_that_not_most_rounds_show_is_none() -> None:
    other = row_of({**FASTER, "whole": [3, 5, 8]}, batch_size=64)
    assert other.speedup.median == 1.2
    assert bench_of(row_of(FIRST), other).recommendation().changes == {}


def test_of_several_the_fastest_that_is_trusted_is_taken() -> None:
    fastest = seconds(decoding=1, network=1, whole=2)
    rows = (
        row_of(FIRST),
        row_of(FASTER, AGREES, precision="bf16", batch_size=8),
        row_of(fastest, AGREES, precision="int8"),
    )
    found = bench_of(*rows).recommendation()
    assert found.changes == {"precision": "bf16", "batch_size": 8}
    assert "3 times as fast" in found.beyond
    assert bench_of(row_of(FIRST)).recommendation().text.endswith(": nothing else was measured")


def test_the_table_has_a_line_for_each_row_and_its_conclusions() -> None:
    rows = (row_of(FIRST), row_of(FASTER, DIFFERS, precision="bf16"))
    lines = in_options(table(bench_of(*rows))).splitlines()
    assert lines[1] == (
        "photographs: 100, medians 300 x 200 px, 1 more could not be read; model.safetensors"
    )
    cells = [" ".join(line.split()) for line in lines[4:6]]
    assert cells[0] == "openvino cpu fp32, batch 32, exact 100 25 20 17 (17-17) 0.83 14 (14-14)"
    assert cells[1].endswith("the same class for 99 %, FC7 cosine 0.9999 (lowest 0.9994), too far")
    assert lines[6:8] == ["what ran", "writing alone: 5,000 vectors a second"]
    assert lines[-3].endswith(rows[0].bottleneck())
    assert len(lines) == 11


def layers(**changed: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    found = {
        "fc7": rng.random((50, 4096), np.float32),
        "logits": 10 * rng.random((50, 7), np.float32),
    }
    return found | changed


def test_equal_results_agree_in_every_precision() -> None:
    for precision in ("fp32", "fp16", "bf16", "int8"):
        found = Agreement.of(layers(), layers(), precision)
        assert found.is_admitted
        assert (found.same_class, found.fc7_error_max) == (1, 0)
        assert str(found) == "the same class for 100 %, FC7 cosine 1 (lowest 1)"


@pytest.mark.parametrize(
    ("error", "admitted"), [(1e-5, "fp32"), (1e-3, "fp16"), (1e-2, "bf16"), (1e-1, "int8")]
)
def test_an_error_is_admitted_from_the_precision_on_that_may_make_it(
    error: float, admitted: str
) -> None:
    expected = layers()
    actual = expected | {"logits": expected["logits"] * np.float32(1 + error)}
    precisions: tuple[Any, ...] = ("fp32", "fp16", "bf16", "int8")
    found = [name for name in precisions if Agreement.of(actual, expected, name).is_admitted]
    assert found == list(precisions[precisions.index(admitted) :])


def test_one_flipped_class_or_number_that_is_none_is_no_agreement() -> None:
    expected = layers()
    flipped = expected["logits"].copy()
    flipped[3] = flipped[3, ::-1]
    lost = expected["fc7"].copy()
    lost[5] = np.nan
    for name, values in (("logits", flipped), ("fc7", lost)):
        found = Agreement.of(expected | {name: values}, expected, "bf16")
        assert not found.is_admitted
        assert json.loads(json.dumps(dataclasses.asdict(found), allow_nan=False))


def test_nearly_all_is_not_called_all() -> None:
    almost = dataclasses.replace(AGREES, same_class=0.99999, cosine_mean=0.9999999)
    assert str(almost) == "the same class for 99.99 %, FC7 cosine 0.9999999 (lowest 0.9994)"


def test_without_a_head_vectors_are_compared_alone() -> None:
    only = {"fc7": layers()["fc7"]}
    found = Agreement.of(only, only, "fp32")
    assert (found.same_class, found.logits_error_max, found.is_admitted) == (None, None, True)
    assert str(found).startswith("FC7 cosine")


def test_the_machine_is_named() -> None:
    found = Machine.here()
    assert found.cores >= 1
    assert found.cpu
    assert found.versions["numpy"] == np.__version__
    assert f"{found.cores} cores of {found.cpu}" in str(found)
