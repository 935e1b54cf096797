"""import, end to end: what it says and writes, what it needs, and where it cannot write.

Networks have 8 outputs in place of 4096, but where another process reads them.
"""

import hashlib
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load

from alexnet_deploy.errors import UsageError
from alexnet_deploy.importing.opening import open_weights
from alexnet_deploy.model.checkpoints import load_checkpoint
from tests.support.full_disk import files_limited_to
from tests.support.golden_files import PUBLISHED, light_bvlc_alexnet
from tests.support.import_command import SAID, refused, run
from tests.support.known_tables import published, use_few_outputs, use_table

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _few_outputs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    use_few_outputs(monkeypatch)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A network with torchvision's names, but fewer kernels."""
    path = tmp_path / "net.safetensors"
    path.write_bytes(published())
    return path


def test_a_file_becomes_a_checkpoint_beside_which_nothing_is_left(file: Path) -> None:
    result = run(file, *SAID, "-o", "out.safetensors")
    assert result.exit_code == 0, result.output
    assert sorted(os.listdir()) == ["net.safetensors", "out.safetensors"]
    first, *_, last, wrote = result.stdout.splitlines()
    assert first.split(None, 1) == ["features.0.weight", "[4, 3, 11, 11]  conv1.weight"]
    assert last == (
        "safetensors file; torchvision AlexNet, 11 classes, no labels, conv1 reads RGB: it is "
        "taken as torchvision's because you said so; nothing here can check that"
    )
    assert "out.safetensors" in wrote
    checkpoint = load_checkpoint(Path("out.safetensors"))
    np.testing.assert_array_equal(
        checkpoint.arrays["fc8.bias"], load(published())["classifier.6.bias"]
    )
    told = checkpoint.spec.provenance["imported"]
    assert told["file"] == "net.safetensors"
    assert told["sha256"] == hashlib.sha256(published()).hexdigest()


def test_a_file_is_not_written_over(file: Path) -> None:
    for output in ((), ("-o", file), ("-o", "./net.safetensors")):
        result = run(file, *SAID, *output)
        assert result.exit_code == 2
        assert "name another file with -o" in result.stderr
    assert file.read_bytes() == published()


def test_a_dry_run_says_the_same_and_writes_nothing(file: Path) -> None:
    shown = run(file, *SAID, "--dry-run")
    assert os.listdir() == ["net.safetensors"]
    written = run(file, *SAID, "-o", "out.safetensors")
    assert shown.exit_code == 0
    assert written.stdout.startswith(shown.stdout.rstrip())


def test_json_says_what_was_read_and_written(file: Path) -> None:
    told = json.loads(run(file, *SAID, "--json", "-o", "a.safetensors").stdout)
    assert told["file"] == "a.safetensors"
    assert told["comparison"] is None
    assert told["arrays"][0] == {
        "name": "conv1.weight",
        "source": "features.0.weight",
        "shape": [4, 3, 11, 11],
    }
    assert told["identity"] == load_checkpoint(Path("a.safetensors")).identity
    dry = json.loads(run(file, *SAID, "--json", "--dry-run").stdout)
    assert dry == told | {"file": None}


def test_a_public_network_is_known_by_its_file_and_needs_no_word(
    file: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "table").mkdir()
    use_table(monkeypatch, tmp_path / "table")
    told = json.loads(run(file, "--json", "--dry-run").stdout)
    assert told["network"] == "tiny"
    assert told["reason"] == "known: a tiny AlexNet"
    assert "is a tiny AlexNet" in refused(file, "--preset", "caffe", code=2)


def test_the_name_of_the_checkpoint_is_the_files(file: Path) -> None:
    file.rename("net.ckpt")
    assert run("net.ckpt", *SAID).exit_code == 0
    assert sorted(os.listdir()) == ["net.ckpt", "net.safetensors"]


def test_a_checkpoint_of_ours_is_taken_with_labels_only(file: Path) -> None:
    run(file, *SAID, "-o", "ours.safetensors")
    Path("names.txt").write_text("".join(f"class of {n}\n" for n in range(11)))
    result = run("ours.safetensors", "--labels", "names.txt", "-o", "named.safetensors")
    assert result.exit_code == 0, result.output
    assert load_checkpoint(Path("named.safetensors")).spec.labels[10] == "class of 10"
    message = refused(Path("ours.safetensors"), *SAID, code=2)
    assert "has its own spec, so only labels can be given to it" in message


def test_what_nobody_said_is_asked_for(file: Path) -> None:
    message = refused(file, code=2)
    assert "could be any AlexNet" in message
    assert message.endswith("say which it is: --preset")
    with pytest.raises(UsageError, match="say which it is, once: alexnet-deploy import FILE"):
        open_weights(file)


@pytest.mark.parametrize(
    ("said", "code", "message"),
    [
        (("--preset", "alex"), 2, "there is no preset 'alex'; choose from paper, torchvision"),
        (("--prototxt", "net.safetensors"), 2, "is no Caffe model, so a prototxt or a mean"),
        (("--mean", "net.safetensors"), 2, "is no Caffe model, so a prototxt or a mean"),
        ((*SAID, "--labels", "imagenet"), 5, "there are 1000 labels for 11 classes"),
        ((*SAID, "--labels", "none.txt"), 2, "none.txt"),
        ((*SAID, "--key", "model"), 5, "no array whose name begins with model."),
        ((*SAID, "--head", "none", "--labels", "imagenet"), 5, "1000 labels for 0 classes"),
    ],
)
def test_options_that_contradict_the_file_are_refused(
    said: tuple[str, ...], code: int, message: str, file: Path
) -> None:
    assert message in refused(file, *said, code=code)


@pytest.mark.parametrize("said", [("--head", "fc9"), ("--channels", "GBR"), ("--dry-run=yes",)])
def test_options_that_there_are_not_are_wrong_usage(said: tuple[str, ...], file: Path) -> None:
    assert run(file, *said).exit_code == 2


def test_a_missing_file_is_wrong_usage() -> None:
    assert "none.pth" in run("none.pth").stderr
    assert run("none.pth").exit_code == 2


def test_a_full_disk_leaves_the_old_checkpoint(file: Path) -> None:
    Path("out.safetensors").write_bytes(b"old")
    before = sorted(os.listdir())
    with files_limited_to(5000):
        result = run(file, *SAID, "-o", "out.safetensors")
    assert result.exit_code == 1
    assert "out.safetensors: cannot be written" in result.stderr
    assert Path("out.safetensors").read_bytes() == b"old"
    assert sorted(os.listdir()) == before


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_may_not_be_written_to_is_named(file: Path, tmp_path: Path) -> None:
    folder = tmp_path / "read-only"
    folder.mkdir(mode=0o500)
    result = run(file, *SAID, "-o", folder / "out.safetensors")
    assert result.exit_code == 1
    assert "get write permission there or choose another place" in result.stderr


@pytest.mark.parametrize(
    ("target", "remedy"),
    [
        ("missing/out.safetensors", "create its folder first"),
        ("net.safetensors/out.safetensors", "what should be its folder is a file"),
        (".", "name a file in it"),
    ],
)
def test_a_place_that_cannot_be_written_is_named(target: str, remedy: str, file: Path) -> None:
    result = run(file, *SAID, "-o", target)
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert target in line
    assert remedy in line
    assert os.listdir() == ["net.safetensors"]


def import_without(
    packages: tuple[str, ...], path: Path, preset: str
) -> subprocess.CompletedProcess[str]:
    """Import a file in a process of its own that lacks some packages."""
    arguments = ["import", str(path), "--preset", preset, "--dry-run"]
    program = (
        f"import sys; sys.modules |= dict.fromkeys({packages}); "
        f"from alexnet_deploy.cli import cli; cli({arguments})"
    )
    return subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )


@pytest.mark.parametrize(
    ("name", "absent"),
    [
        ("Hugging Face, two shards", ("torch", "onnx", "onnxruntime", "openvino")),
        ("bvlc_alexnet", ("torch", "onnx", "onnxruntime", "openvino")),
        ("the Model Zoo's bvlcalexnet", ("torch", "openvino")),
        ("torchvision .pth", ("onnx", "onnxruntime", "openvino")),
    ],
)
def test_a_file_needs_no_package_of_another_kind(
    name: str, absent: tuple[str, ...], tmp_path: Path
) -> None:
    published = PUBLISHED[name]
    pytest.importorskip(published.needs)
    finished = import_without(absent, published.write(tmp_path), published.network)
    assert finished.returncode == 0, finished.stderr
    assert f"{published.network} AlexNet, 10 classes" in finished.stdout


@pytest.mark.parametrize(
    ("content", "package"),
    [("torch", "torch"), ("onnx", "onnx"), ("onnx", "onnxruntime")],
)
def test_a_package_that_is_missing_is_named(content: str, package: str, tmp_path: Path) -> None:
    path = light_bvlc_alexnet()
    if content == "torch":
        path = tmp_path / "a.pth"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a/data.pkl", b"\x80\x02}q\x00.")
    finished = import_without((package,), path, "caffe-224")
    assert finished.returncode == 1
    (line,) = finished.stderr.splitlines()
    assert line.startswith("Error: ")
    assert f"needs the package {package}, which is not installed here" in line
