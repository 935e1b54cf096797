"""What `info` says of a file: the same numbers as the file, in words that a terminal can show."""

import dataclasses
import json
from pathlib import Path

import pytest

from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.coder_file import write_coder
from alexnet_deploy.graph.model_file import write_model
from alexnet_deploy.graph.report import Report
from alexnet_deploy.inspection import describe, readable
from alexnet_deploy.model.checkpoints import Checkpoint, save_checkpoint
from alexnet_deploy.runtimes.engine_file import EngineRecord, sidecar_path, write_engine
from tests.support.coders import random_coder, space_of
from tests.support.engine_files import ENGINE
from tests.support.networks import random_checkpoint


def test_a_checkpoint_is_described_as_it_is(tmp_path: Path) -> None:
    checkpoint = random_checkpoint("paper")
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    description = json.loads(json.dumps(describe(tmp_path / "a.safetensors")))
    assert description["kind"] == "checkpoint"
    assert description["identity"] == checkpoint.identity
    # 60,965,224 of the paper's network with 1000 classes, less 989 rows of fc8.
    assert description["parameters"] == 60_965_224 - 989 * 4097
    assert description["layers"]["conv5"] == [256, 13, 13]
    assert description["arrays"]["fc6.weight.right"] == "float32 [16, 9216]"
    text = readable(description)
    assert "fc6 and fc7 as two factors" in text
    assert "within each of 2 towers" in text


def test_strings_of_the_file_cannot_command_the_terminal(tmp_path: Path) -> None:
    checkpoint = random_checkpoint("paper")
    spec = dataclasses.replace(
        checkpoint.spec,
        labels=("\x1b[2Jclear", *checkpoint.spec.labels[1:]),
        provenance={"\x1b]0;title\x07": "a\x9bb", "note": {"deep\u202e": ["\x00"]}},
    )
    path = tmp_path / "bell\x07.safetensors"
    save_checkpoint(Checkpoint(spec=spec, arrays=checkpoint.arrays), path)
    text = readable(describe(path))
    assert all(line.isprintable() for line in text.split("\n"))
    assert "\\x1b[2Jclear" in text
    assert "bell\\x07" in text


@pytest.mark.parametrize(
    ("name", "reason"), [("missing.onnx", "no such file"), ("x" * 300, "cannot be opened")]
)
def test_a_path_that_is_no_file_is_a_wrong_argument(tmp_path: Path, name: str, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        describe(tmp_path / name)


def test_a_file_that_is_neither_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a")
    with pytest.raises(IncompatibleFileError, match="none of the files that hold weights"):
        describe(tmp_path / "a.txt")


def test_a_changed_model_file_does_not_pass_for_verified(tmp_path: Path) -> None:
    file = build_model(random_checkpoint("paper"), ("fc7",))
    report = Report(checks=(), runs="x", against="f" * 64, num_photographs=1).to_dict()
    write_model(dataclasses.replace(file, report=report), tmp_path / "a.onnx")
    assert describe(tmp_path / "a.onnx")["unchanged"]
    content = bytearray((tmp_path / "a.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.onnx").write_bytes(content)
    description = describe(tmp_path / "a.onnx")
    assert not description["unchanged"]
    assert "CHANGED since it was exported" in readable(description)


PORTABLE = dataclasses.replace(
    ENGINE.record,
    runtime="tensorrt-rtx",
    cuda_version=None,
    gpu_name=None,
    compute_capabilities=(),
    lrn="native",
    plugin_sha256=None,
    report=None,
)


def test_an_engine_is_described_as_its_record_has_it(tmp_path: Path) -> None:
    write_engine(ENGINE, tmp_path / "m.engine")
    description = json.loads(json.dumps(describe(tmp_path / "m.engine")))
    assert (description["kind"], description["size_bytes"]) == ("engine", len(b"the plan"))
    record = json.loads(sidecar_path(tmp_path / "m.engine").read_text("utf-8"))
    for field in dataclasses.fields(EngineRecord):
        if field.name != "spec":
            stored = record.get(field.name, field.default)
            assert description[field.name] == stored, field.name
    assert description["spec"] == json.loads(json.dumps(ENGINE.record.spec.result_fields()))
    assert description["status"] == "verified"
    assert description["parameters"] == 60_965_224 - 989 * 4097
    assert "arrays" not in description, "its weights cannot be seen"
    assert readable(description).splitlines()[-5:-1] == [
        "  engine        TensorRT 11.4.0.106, fp16, batches of 1 to 64, best at 32; our plugin "
        "normalizes",
        "  runs on       NVIDIA H200, compute capability 9.0",
        "  outputs       probabilities, fc7",
        "  verification  says that it passed on 40 photographs, TensorRT 11.4; to be sure run: "
        "alexnet-deploy verify FILE --against CKPT",
    ]


def test_an_engine_that_was_not_verified_says_so_and_how_to(tmp_path: Path) -> None:
    write_engine(dataclasses.replace(ENGINE, record=PORTABLE), tmp_path / "m.engine")
    description = describe(tmp_path / "m.engine")
    assert (description["status"], description["report"]) == ("built, not verified here", None)
    text = readable(description)
    assert "TensorRT-RTX 11.4.0.106, fp16" in text
    assert "its own layer normalizes" in text
    assert "  runs on       compute capability 8.0, 8.6, 8.9, 12.0 and later\n" in text
    assert "built, not verified here; run: alexnet-deploy verify FILE --against CKPT" in text


def test_an_engine_for_other_machines_says_so(tmp_path: Path) -> None:
    for_others = dataclasses.replace(
        ENGINE.record,
        lrn="unknown",
        version_compatible=True,
        hardware_compatibility="same-compute-capability",
    )
    write_engine(dataclasses.replace(ENGINE, record=for_others), tmp_path / "m.engine")
    text = readable(describe(tmp_path / "m.engine"))
    assert "TensorRT 11.4.0.106 and later, fp16" in text
    assert "what normalizes is unknown" in text
    assert (
        "compute capability 9.0, compatible at TensorRT's level same-compute-capability\n" in text
    )


def test_an_engine_that_is_damaged_is_refused(tmp_path: Path) -> None:
    write_engine(ENGINE, tmp_path / "m.engine")
    (tmp_path / "m.engine").write_bytes(b"the plam")
    with pytest.raises(IncompatibleFileError, match="hashes differ"):
        describe(tmp_path / "m.engine")


def test_a_coder_is_described_by_the_vectors_that_it_takes(tmp_path: Path) -> None:
    space, path = space_of("fc6"), tmp_path / "head.onnx"
    write_coder(random_coder(space, bits=128, hidden=6), path)
    description = describe(path)
    assert (description["kind"], description["bits"]) == ("coder", 128)
    assert description["widths"] == [4096, 6, 128]
    assert (description["layer"], description["identity"]) == ("fc6", space.identity)
    assert "  codes         128 bits, by layers of 4096, 6, 128 numbers" in readable(description)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(IncompatibleFileError):
        describe(path)
