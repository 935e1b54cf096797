"""What the checks of tools/gpu_check.py do that is no GPU's work; and that the table finds them."""

import ast
import re
from pathlib import Path
from xml.etree import ElementTree

import gpu_check
import numpy as np
import pytest
import torch
from gpu_checks import torch_gpu, towers, training_command
from gpu_checks.check import ROOT, Check, Failed, Settings, Skipped, require
from gpu_checks.own_tests import FILES, counts
from gpu_checks.report import to_plain
from gpu_checks.towers import CPU, compute, errors, inputs_of

from tests.support.plain_network import random_weights, small_spec


def test_figures_become_json_without_the_folders_of_this_machine(tmp_path: Path) -> None:
    value = {
        "rate": np.float32(1 / 3),
        "nan": float("nan"),
        "counts": (np.int64(3), torch.tensor(2.0), True, None),
        "reason": f"cannot open {tmp_path}/lib/libcudart.so.13; see https://example.org/a/b",
        "path": tmp_path / "model.engine",
        "share": "1/2 of a batch, images/s",
    }
    assert to_plain(value) == {
        "rate": 0.333333,
        "nan": "nan",
        "counts": [3, 2.0, True, None],
        "reason": "cannot open libcudart.so.13; see https://example.org/a/b",
        "path": "model.engine",
        "share": "1/2 of a batch, images/s",
    }


def parameters(function: str) -> dict[str, list[str]] | None:
    """Return the parameters of a check's function, read and not imported; None if there is none."""
    module, name = function.split(":")
    path = ROOT / "tools" / Path(*module.split(".")).with_suffix(".py")
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return {
                "positional": [each.arg for each in node.args.args],
                "named": [each.arg for each in node.args.kwonlyargs],
            }
    return None


@pytest.mark.parametrize("check", [gpu_check.ENVIRONMENT, *gpu_check.CHECKS], ids=lambda c: c.name)
def test_each_check_of_the_table_is_a_function_that_takes_its_arguments(check: Check) -> None:
    expected = {"positional": ["settings"], "named": list(check.arguments)}
    assert parameters(check.function) == expected


def test_no_two_checks_have_one_name() -> None:
    names = [check.name for check in (gpu_check.ENVIRONMENT, *gpu_check.CHECKS)]
    assert len(names) == len(set(names))


def test_each_test_that_needs_a_gpu_is_run_where_there_is_one() -> None:
    needed = {
        str(path.relative_to(ROOT)): set(re.findall(r'^@pytest\.mark\.gpu\("(\w+)"', text, re.M))
        for path in (ROOT / "tests").rglob("test_*.py")
        if "\n@pytest.mark.gpu" in (text := path.read_text("utf-8"))
    }
    assert needed == {file: {module} for file, module in FILES.items()}


def test_what_pytest_found_is_counted() -> None:
    xml = """<testsuites><testsuite>
      <testcase classname="a" name="one"/>
      <testcase classname="a" name="two"><failure message="no"/></testcase>
      <testcase classname="b" name="three"><error message="no"/></testcase>
      <testcase classname="b" name="four"><skipped message="needs two GPUs"/></testcase>
      <testcase classname="b" name="five"><skipped message="needs two GPUs"/></testcase>
    </testsuite></testsuites>"""
    cases = ElementTree.fromstring(xml).iter("testcase")
    assert counts(cases) == {
        "passed": 1,
        "failed": ["a::two", "b::three"],
        "skipped": {"needs two GPUs": 2},
    }


def test_a_requirement_that_is_not_met_keeps_the_figures() -> None:
    require(True, "all is well", {})
    with pytest.raises(Failed, match="too slow") as error:
        require(False, "too slow", {"rate": 3})
    assert error.value.figures == {"rate": 3}


def test_towers_are_compared_layer_by_layer() -> None:
    """On the CPU, where float32 differs from float64 by rounding; and a wrong layer is named."""
    spec, both = small_spec(), (CPU, CPU)
    weights = random_weights(spec, torch.float32)
    images = 50 * torch.randn(2, 3, spec.input_size, spec.input_size)
    expected = compute(spec, weights, images, both, "fp64")
    close = errors(compute(spec, weights, images, both, "fp32"), expected)
    assert max(close["logits"], close["gradient"]) < 1e-4
    wrong = compute(spec, weights, images, both, "fp64")
    wrong.gradients["conv3.bias"][0] = float("nan")
    found = errors(wrong, expected)
    assert (found["logits"], found["gradient"], found["layer"]) == (0, float("inf"), "conv3.bias")


SETTINGS = Settings(scratch=Path("nowhere"))


def test_the_towers_numbers_are_the_same_in_every_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the CPU in the GPU's place; another machine's rounding must not fail it by chance."""
    monkeypatch.setattr(towers, "both_towers_on_one", lambda: (CPU, CPU))
    monkeypatch.setattr(towers, "preset_spec", lambda preset, num_classes: small_spec(num_classes))
    # bf16 takes a CPU seconds.
    some = {precision: towers.TOLERANCES[precision] for precision in ("fp64", "fp32")}
    monkeypatch.setattr(towers, "TOLERANCES", some)
    first, again = (towers.numbers(SETTINGS) for _ in range(2))
    assert first == again
    assert set(first) == {"one_gpu_fp64", "one_gpu_fp32"}
    assert first["one_gpu_fp32"]["logits"] < 2e-6
    torch.testing.assert_close(inputs_of(small_spec()), inputs_of(small_spec()), rtol=0, atol=0)


@pytest.mark.parametrize(("part", "by"), [("logits", 2e-5), ("gradient", 2e-2), ("none", 0)])
def test_towers_that_are_off_fail(monkeypatch: pytest.MonkeyPatch, part: str, by: float) -> None:
    exact = {"logits": 0.0, "gradient": 0.0, "layer": "conv1.weight"}
    monkeypatch.setattr(towers, "both_towers_on_one", lambda: (CPU, CPU))
    monkeypatch.setattr(towers, "preset_spec", lambda preset, num_classes: small_spec(num_classes))
    monkeypatch.setattr(towers, "compute", lambda *_: None)
    monkeypatch.setattr(towers, "errors", lambda *_: exact)
    towers.numbers(SETTINGS)
    # As much in every precision: more than float32 may, less than the shorter ones.
    monkeypatch.setattr(towers, "errors", lambda *_: exact | {part: by})
    if part == "none":
        towers.numbers(SETTINGS)
        return
    with pytest.raises(Failed, match=f"one_gpu in fp32, {part} {by:.1e}") as error:
        towers.numbers(SETTINGS)
    assert "bf16" not in str(error.value)


@pytest.mark.parametrize(
    ("cuda", "finds", "outcome"),
    [(None, False, Skipped), ("13.0", False, Failed), ("13.0", True, None)],
)
def test_a_torch_for_gpus_that_finds_none_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, cuda: str | None, finds: bool, outcome: type[Exception] | None
) -> None:
    monkeypatch.setattr(torch.version, "cuda", cuda)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: finds)
    if outcome is None:
        assert [device.type for device in torch_gpu.both_towers_on_one()] == ["cuda", "cuda"]
        return
    with pytest.raises(outcome, match="CPU" if outcome is Skipped else r"CUDA 13\.0, finds no GPU"):
        torch_gpu.both_towers_on_one()


@pytest.mark.parametrize("missing", ["matplotlib", "onnx", "onnxruntime", "safetensors"])
def test_training_is_skipped_where_a_package_is_missing_that_it_needs(
    monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    monkeypatch.setattr(training_command, "both_towers_on_one", lambda: (CPU, CPU))
    monkeypatch.setattr("alexnet_deploy.installed.has_module", lambda name: name != missing)
    with pytest.raises(Skipped, match=f"needs {missing}, with"):
        training_command.train(SETTINGS)
