"""What `info` says of a file: the same numbers as the file, in words that a terminal can show."""

import dataclasses
import json
from pathlib import Path

import pytest
from networks import random_checkpoint

from alexnet_deploy.checkpoints import Checkpoint, save_checkpoint
from alexnet_deploy.errors import IncompatibleFileError, UsageError
from alexnet_deploy.inspection import describe, readable
from alexnet_deploy.model_file import write_model
from alexnet_deploy.onnx_graph import build_model


def test_a_checkpoint_is_described_as_it_is(tmp_path: Path) -> None:
    checkpoint = random_checkpoint("paper")
    save_checkpoint(checkpoint, tmp_path / "a.safetensors")
    description = json.loads(json.dumps(describe(tmp_path / "a.safetensors")))
    assert description["kind"] == "checkpoint"
    assert description["fingerprint"] == checkpoint.fingerprint
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
    with pytest.raises(IncompatibleFileError, match="a checkpoint ends in"):
        describe(tmp_path / "a.txt")


def test_a_changed_model_file_does_not_pass_for_verified(tmp_path: Path) -> None:
    file = build_model(random_checkpoint("paper"), ("fc7",))
    report = {"passed": True, "checks": [], "runs": "x", "num_photographs": 1}
    write_model(dataclasses.replace(file, report=report), tmp_path / "a.onnx")
    assert describe(tmp_path / "a.onnx")["unchanged"]
    content = bytearray((tmp_path / "a.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (tmp_path / "a.onnx").write_bytes(content)
    description = describe(tmp_path / "a.onnx")
    assert not description["unchanged"]
    assert "CHANGED since it was exported" in readable(description)
