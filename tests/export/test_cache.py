"""The user's cache: an entry is what was written, for what it was written for, or is not there."""

import dataclasses
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from alexnet_deploy.errors import OutputError
from alexnet_deploy.export import opening
from alexnet_deploy.export.cache import read_network, write_network
from alexnet_deploy.files.private_folders import own_folder
from alexnet_deploy.model.checkpoints import load_checkpoint, save_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.model.spec import preset_spec
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.runtimes.prepared import PreparedNetwork
from alexnet_deploy.weights.names import MODEL_VARIABLE
from tests.support.networks import noise
from tests.support.waiting import PATIENCE_S

NETWORK = PreparedNetwork(
    body=(b"a graph,\n", b" its arrays\n"),
    layers={"fc6": b"\n6", "fc7": b"7"},
    spec=preset_spec("paper", num_classes=3),
    identity="0123",
    precision="fp32",
    source="c.safetensors",
)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv(MODEL_VARIABLE, raising=False)
    return tmp_path / "cache" / "alexnet-deploy"


def read(key: str) -> PreparedNetwork | None:
    return read_network(key, spec=NETWORK.spec, precision="fp32", source=NETWORK.source)


def test_a_network_comes_back_as_it_was_written(cache: Path) -> None:
    assert read("key") is None
    write_network("key", NETWORK)
    back = read("key")
    assert back is not None
    assert back.to_bytes(("fc7", "fc6")) == b"a graph,\n its arrays\n7\n6"
    assert (back.identity, back.layers) == (NETWORK.identity, NETWORK.layers)


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe"])
def test_what_is_in_the_place_of_an_entry_gives_way_to_it(
    cache: Path, tmp_path: Path, kind: str
) -> None:
    write_network("key", NETWORK)
    (entry,) = cache.iterdir()
    other = tmp_path / "other"
    entry.rename(other)
    content = other.read_bytes()
    if kind == "pipe":
        os.mkfifo(entry)
    else:
        entry.symlink_to(other if kind == "link" else tmp_path / "missing")
    assert read("key") is None
    write_network("key", dataclasses.replace(NETWORK, identity="4567"))
    back = read("key")
    assert back is not None
    assert back.identity == "4567"
    assert other.read_bytes() == content
    entry.unlink()
    entry.mkdir()
    with pytest.raises(OutputError):
        write_network("key", NETWORK)


def test_an_entry_with_any_byte_changed_missing_or_added_is_none(cache: Path) -> None:
    write_network("key", NETWORK)
    (entry,) = cache.iterdir()
    content = entry.read_bytes()
    for place in range(len(content)):
        for wrong in (content[:place], content[:place] + content[place + 1 :]):
            entry.write_bytes(wrong)
            assert read("key") is None, place
        flipped = bytearray(content)
        flipped[place] ^= 1
        entry.write_bytes(flipped)
        assert read("key") is None, place
    entry.write_bytes(content + b"\n")
    assert read("key") is None
    entry.write_bytes(content)
    assert read("key") is not None


def test_an_entry_of_another_key_is_none_under_any_name(cache: Path) -> None:
    write_network("key", NETWORK)
    (entry,) = cache.iterdir()
    write_network("other", NETWORK)
    (other,) = set(cache.iterdir()) - {entry}
    other.replace(entry)
    assert read("key") is None


@pytest.mark.parametrize("mode", [0o755, 0o770, 0o777])
def test_a_cache_that_others_may_use_is_not_used(cache: Path, mode: int) -> None:
    write_network("key", NETWORK)
    assert stat.S_IMODE(cache.stat().st_mode) == 0o700
    cache.chmod(mode)
    assert read("key") is None
    with pytest.raises(OutputError, match=rf"not a folder of yours alone \(mode {mode:o}\)"):
        write_network("other", NETWORK)
    assert len(list(cache.iterdir())) == 1


def test_a_cache_or_an_entry_behind_a_link_is_not_used(cache: Path, tmp_path: Path) -> None:
    write_network("key", NETWORK)
    (entry,) = cache.iterdir()
    entry.rename(tmp_path / "entry")
    entry.symlink_to(tmp_path / "entry")
    assert read("key") is None
    entry.unlink()
    (tmp_path / "entry").rename(entry)
    cache.rename(tmp_path / "elsewhere")
    cache.symlink_to(tmp_path / "elsewhere")
    assert read("key") is None
    with pytest.raises(OutputError, match="not a folder of yours alone"):
        write_network("other", NETWORK)


def test_without_a_home_the_message_names_the_variable(monkeypatch: pytest.MonkeyPatch) -> None:
    def no_home() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(Path, "home", no_home)
    with pytest.raises(OutputError, match="set XDG_CACHE_HOME"):
        own_folder("cache")


def run(options: RunnerOptions, *layers: str) -> tuple[dict[str, bytes], str, list[str]]:
    """Return what layers of the bundled network are for noise, its identity, and what was said."""
    lines: list[str] = []
    own = dataclasses.replace(options, outputs=layers)
    with opening.open_runner_of(None, own, notify=lines.append) as runner:
        outputs = runner.run(noise(runner.spec, 1))
        return {name: outputs[name].tobytes() for name in layers}, runner.identity, lines


@pytest.mark.parametrize(
    "options",
    [
        RunnerOptions(batch_size=1, runtime="openvino", precision="int8"),
        RunnerOptions(batch_size=1, runtime="onnxruntime"),
    ],
)
def test_one_entry_gives_every_layer_with_the_bits_of_a_fresh_export(
    cache: Path, options: RunnerOptions
) -> None:
    expected, identity, said = run(options, "fc6", "probabilities")
    assert "preparing caltech101.safetensors" in said[0]
    assert run(options, "fc6", "probabilities") == (expected, identity, [])
    layers, again, said = run(options, *NETWORK.spec.layer_shapes())
    assert (again, said) == (identity, [])
    assert layers.keys() > expected.keys()


def test_what_openvino_compiled_is_for_its_machine_and_options_alone(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = RunnerOptions(batch_size=1, runtime="openvino")
    expected = run(first, "fc6")[:2]
    counts = []
    for options in (first, dataclasses.replace(first, threads=1), first):
        assert run(options, "fc6")[1:] == (expected[1], [])
        counts.append(len(list(cache.glob("*.network"))))
    monkeypatch.setattr("alexnet_deploy.runtimes.openvino_runner.compiler", lambda: "another")
    assert run(first, "fc6") == (*expected, [])
    assert [*counts, len(list(cache.glob("*.network")))] == [2, 3, 3, 4]


def test_what_openvino_refuses_is_compiled_again(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = RunnerOptions(batch_size=1, runtime="openvino")
    expected = run(options, "fc6")[:2]
    read: list[bool] = []

    def broken(key: str, *, is_compiled: bool = False, **facts: Any) -> PreparedNetwork | None:
        network = read_network(key, is_compiled=is_compiled, **facts)
        read.append(is_compiled)
        assert network is not None
        return (
            dataclasses.replace(network, body=(memoryview(bytearray(b"?")),))
            if is_compiled
            else network
        )

    monkeypatch.setattr(opening, "read_network", broken)
    assert run(options, "fc6") == (*expected, [])
    assert read == [True, False]


def test_the_entry_of_another_checkpoint_is_not_used(cache: Path, tmp_path: Path) -> None:
    """Whoever put it there gave it the name of the bundled one's."""
    options = RunnerOptions(batch_size=1, runtime="onnxruntime")
    expected = run(options, "logits")
    (own,) = cache.glob("*.network")
    genuine = own.read_bytes()
    bundled = load_checkpoint(bundled_checkpoint())
    arrays = dict(bundled.arrays) | {"fc8.bias": bundled.arrays["fc8.bias"] + 1}
    save_checkpoint(dataclasses.replace(bundled, arrays=arrays), tmp_path / "other.safetensors")
    opening.open_runner_of(tmp_path / "other.safetensors", options).close()
    (other,) = set(cache.glob("*.network")) - {own}
    other.replace(own)
    again = run(options, "logits")
    assert again[:2] == expected[:2]
    assert len(again[2]) == 1
    assert own.read_bytes() == genuine


WITHOUT_THE_REST = """
import os, sys
for name in {modules!r}:
    sys.modules[name] = None
from alexnet_deploy.cli import main
for arguments in {commands!r}:
    sys.argv[1:] = arguments
    try:
        main()
    except SystemExit as stop:
        assert stop.code == 0, arguments
assert "openvino.tools.ovc.convert" not in sys.modules
"""


def test_a_network_out_of_the_cache_loads_nothing_that_it_can_do_without(
    cache: Path, tmp_path: Path
) -> None:
    for runtime in ("openvino", "onnxruntime"):
        opening.open_runner_of(None, RunnerOptions(runtime=runtime)).close()
    photograph, index = str(varied_samples()[0]), str(tmp_path / "index")
    commands = [
        ["classify", photograph],
        ["classify", photograph, "--runtime", "onnxruntime"],
        ["embed", photograph, "-o", str(tmp_path / "v.npy"), "--layer", "fc6"],
        ["index", str(Path(photograph).parent), "--index", index],
        ["search", photograph, "--index", index],
    ]
    unused = ["onnx", "google.protobuf", "alexnet_deploy.importing.opening", "urllib.request"]
    program = WITHOUT_THE_REST.format(modules=unused, commands=commands)
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
    )
    assert done.returncode == 0, done.stderr
    assert "preparing" not in done.stderr
