"""`.pt` files: ours, those of training scripts, and those that must not be read."""

import argparse
import collections
import datetime
import io
import pickle
import sys
import types
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.spec import SPEC_KEY
from tests.support.networks import random_checkpoint

torch = pytest.importorskip("torch", reason="reading .pt files needs torch")


def own_content() -> dict[str, Any]:
    """Return what our own `.pt` files hold."""
    checkpoint = random_checkpoint("paper")
    tensors = {name: torch.from_numpy(array) for name, array in checkpoint.arrays.items()}
    return {SPEC_KEY: checkpoint.spec.to_json(), "arrays": tensors}


def test_our_own_pt_round_trips_with_the_same_identity(tmp_path: Path) -> None:
    from alexnet_deploy.model.torch_files import write_pt

    checkpoint = random_checkpoint("paper")
    state = {"optimizer": {"lr": 0.01, "step": torch.tensor(7)}}
    write_pt(tmp_path / "a.pt", checkpoint.spec.to_json(), checkpoint.arrays, state)
    loaded = load_checkpoint(tmp_path / "a.pt")
    assert loaded.spec == checkpoint.spec
    assert loaded.identity == checkpoint.identity


@pytest.mark.parametrize("place", [0.2, 0.5, 0.8])
def test_a_file_with_a_flipped_byte_is_refused(tmp_path: Path, place: float) -> None:
    """torch itself would read it and say nothing."""
    path = tmp_path / "a.pt"
    torch.save(own_content(), path)
    data = bytearray(path.read_bytes())
    data[int(len(data) * place)] ^= 1
    path.write_bytes(data)
    torch.load(path, weights_only=True)
    with pytest.raises(IncompatibleFileError, match=r"is damaged \(the checksum of \S+ in it is"):
        load_checkpoint(path)


def test_bfloat16_tensors_become_float32(tmp_path: Path) -> None:
    halves = {name: tensor.bfloat16() for name, tensor in own_content()["arrays"].items()}
    torch.save(own_content() | {"arrays": halves}, tmp_path / "a.pt")
    arrays = load_checkpoint(tmp_path / "a.pt").arrays
    np.testing.assert_array_equal(arrays["conv1.bias"], halves["conv1.bias"].float().numpy())


@pytest.mark.parametrize("arrays", [None, [1, 2], "fc8", {"conv1.bias": 3}])
def test_a_file_of_ours_without_a_dict_of_arrays_is_refused(tmp_path: Path, arrays: object) -> None:
    torch.save(own_content() | {"arrays": arrays}, tmp_path / "a.pt")
    with pytest.raises(IncompatibleFileError, match="holds no weights"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_spec_that_is_no_text_is_refused(tmp_path: Path) -> None:
    torch.save(own_content() | {SPEC_KEY: torch.zeros(3)}, tmp_path / "a.pt")
    with pytest.raises(IncompatibleFileError, match=r"a\.pt: damaged"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize(
    ("convert", "kind"),
    [
        (lambda tensor: tensor.to_sparse(), "float32, sparse_coo"),
        (lambda tensor: tensor.to(torch.float8_e4m3fn), "float8_e4m3fn, strided"),
        (lambda tensor: tensor.to("meta"), "float32, strided, on meta"),
    ],
)
def test_a_tensor_that_is_no_array_is_named(
    tmp_path: Path, convert: Callable[[Any], Any], kind: str
) -> None:
    content = own_content()
    content["arrays"]["fc8.weight"] = convert(content["arrays"]["fc8.weight"])
    torch.save(content, tmp_path / "a.pt")
    with pytest.raises(IncompatibleFileError, match=rf"fc8\.weight is a tensor of {kind}.*dense"):
        load_checkpoint(tmp_path / "a.pt")


class _RunsCode:
    def __reduce__(self) -> tuple[Any, ...]:
        return (print, ("this must never be printed",))


@pytest.mark.parametrize("zipped", [True, False])
def test_a_pickle_that_would_run_code_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], zipped: bool
) -> None:
    path = tmp_path / "a.pt"
    torch.save(
        {"a.weight": torch.zeros(2), "b": _RunsCode()}, path, _use_new_zipfile_serialization=zipped
    )
    with pytest.raises(IncompatibleFileError, match=r"rejected, because reading it would run code"):
        load_checkpoint(path)
    path.write_bytes(pickle.dumps(_RunsCode()))
    with pytest.raises(IncompatibleFileError):
        load_checkpoint(path)
    assert capsys.readouterr().out == ""


def test_a_whole_network_is_refused_by_its_class(tmp_path: Path) -> None:
    torch.save({"state_dict": {}, "beside": torch.nn.Linear(2, 2)}, tmp_path / "a.pt")
    held = r"it holds torch\.nn\.modules\.linear\.Linear\)"
    with pytest.raises(IncompatibleFileError, match=held) as raised:
        load_checkpoint(tmp_path / "a.pt")
    assert "torch.save(model.state_dict(), path)" in str(raised.value)


def lightnings_dict(**fields: object) -> object:
    """Return what Lightning keeps hyper-parameters in: a dict of its own class."""
    name = "pytorch_lightning.utilities.parsing"
    kind = type("AttributeDict", (dict,), {"__module__": name})
    module = types.ModuleType(name)
    module.AttributeDict = kind  # type: ignore[attr-defined]
    sys.modules[name] = module
    return kind(fields)


@pytest.mark.parametrize("zipped", [True, False])
def test_what_training_programs_keep_beside_weights_is_left_aside(
    tmp_path: Path, zipped: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("pytorch_lightning", "pytorch_lightning.utilities.parsing"):
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    content = {
        "args": argparse.Namespace(lr=0.1, out=Path("runs"), when=datetime.date(2012, 9, 30)),
        "best": np.float64(56.5),
        "history": np.arange(3.0),
        "counts": collections.defaultdict(int, a=1),
        "last": collections.deque([1, 2]),
        "hyper_parameters": lightnings_dict(width=64, nested=types.SimpleNamespace(a=1)),
        "state_dict": {"net.conv1.bias": torch.ones(2)},
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(2)}}},
    }
    path = tmp_path / "a.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    from alexnet_deploy.model.torch_files import read_pt

    arrays, spec = read_pt(path)
    assert spec is None
    assert list(arrays) == ["state_dict.net.conv1.bias", "optimizer.state.0.exp_avg"]


def test_a_dict_in_itself_and_one_in_many_places_are_read_once(tmp_path: Path) -> None:
    content: dict[str, Any] = {"a": torch.ones(1)}
    content["self"] = content
    for _ in range(3):
        content = {str(index): content for index in range(5)}
    torch.save(content, tmp_path / "a.pt")
    from alexnet_deploy.model.torch_files import read_pt

    assert list(read_pt(tmp_path / "a.pt")[0]) == ["0.0.0.a"]


def test_a_torchscript_archive_is_called_one(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name in ("data.pkl", "constants.pkl", "version"):
            archive.writestr(f"a/{name}", b"3\n" if name == "version" else b"\x80\2N.")
    with pytest.raises(IncompatibleFileError, match="is a TorchScript archive"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("content", [b"PK\x03\x04 not a zip", b"\x80\x04."])
def test_a_file_that_is_no_torch_file_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.pt"
    path.write_bytes(content)
    with pytest.raises(
        IncompatibleFileError, match=r"a\.pt: (not a readable torch|is damaged)"
    ) as raised:
        load_checkpoint(path)
    assert "weights_only" not in str(raised.value)


def test_a_file_without_weights_says_what_was_expected(tmp_path: Path) -> None:
    torch.save({"epoch": 3}, tmp_path / "a.pt")
    with pytest.raises(IncompatibleFileError, match="holds no weights; expected a state dict"):
        load_checkpoint(tmp_path / "a.pt")


def test_a_compressed_member_is_refused_unread(tmp_path: Path) -> None:
    """torch stores its members as they are; a gigabyte of zeros would take seconds to unpack."""
    path = tmp_path / "a.pt"
    torch.save({"conv1.weight": torch.zeros(3)}, path)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as file:
        file.writestr("archive/unused", bytes(10**7))
    with pytest.raises(IncompatibleFileError, match="archive/unused in it is compressed"):
        load_checkpoint(path)


def test_an_archive_whose_end_only_torch_finds_is_refused(tmp_path: Path) -> None:
    """torch would read it, compressed members, wrong checksums and all."""
    path = tmp_path / "a.pt"
    torch.save({"conv1.weight": torch.zeros(3)}, path)
    path.write_bytes(path.read_bytes() + b"PK\5\6")
    torch.load(path, weights_only=True)
    with pytest.raises(IncompatibleFileError, match="is damaged"):
        load_checkpoint(path)


def test_members_that_overlap_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({"conv1.weight": torch.zeros(10**6)}, path)
    with zipfile.ZipFile(path, "a") as file:
        largest = max(file.infolist(), key=lambda member: member.file_size)
        file.filelist.extend([largest] * 3)
        file.writestr("archive/more", b"")
    with pytest.raises(IncompatibleFileError, match="parts of it overlap"):
        load_checkpoint(path)


def test_a_tensor_that_repeats_its_numbers_is_refused_uncopied(tmp_path: Path) -> None:
    """One number can stand for any number of gigabytes."""
    path = tmp_path / "a.pt"
    torch.save({"conv1.weight": torch.zeros(1).expand(10**6, 10**6)}, path)
    with pytest.raises(IncompatibleFileError, match="more than the file"):
        load_checkpoint(path)


@pytest.mark.parametrize("last", [2, 10**10])
def test_tensors_that_repeat_their_numbers_differently_all_count(tmp_path: Path, last: int) -> None:
    one = torch.zeros(4)[:1]
    torch.save({"a": one.expand(10**10 + 2 - last), "b": one.expand(last)}, tmp_path / "a.pt")
    with pytest.raises(IncompatibleFileError, match="more than the file"):
        load_checkpoint(tmp_path / "a.pt")


@pytest.mark.parametrize("change", [torch.Tensor.t, torch.Tensor.bfloat16])
def test_one_tensor_under_many_names_is_copied_once(tmp_path: Path, change: Any) -> None:
    from alexnet_deploy.model.torch_files import read_pt

    same = change(torch.rand(10, 20))
    torch.save({f"a{number}": same for number in range(1000)}, tmp_path / "a.pt")
    arrays, _ = read_pt(tmp_path / "a.pt")
    assert len({array.ctypes.data for array in arrays.values()}) == 1
    np.testing.assert_array_equal(arrays["a999"], same.float().numpy())


def test_a_name_that_is_no_text_is_passed_over(tmp_path: Path) -> None:
    path = tmp_path / "a.pt"
    torch.save({("conv1", "weight"): torch.zeros(3)}, path)
    with pytest.raises(IncompatibleFileError, match="holds no weights"):
        load_checkpoint(path)


DOUBLED = b"q\x02h\x02\x86"
"""Puts what is on the stack into a tuple twice."""


def write_pickle(path: Path, content: bytes, *, zipped: bool) -> None:
    """Write a file that torch takes for a checkpoint, with a pickle made by hand in it."""
    if zipped:
        with zipfile.ZipFile(path, "w") as archive:
            for name, data in (("data.pkl", content), ("byteorder", b"little"), ("version", b"3")):
                archive.writestr(f"archive/{name}", data)
        return
    beginning = io.BytesIO()
    torch.save({}, beginning, _use_new_zipfile_serialization=False)
    end = len(pickle.dumps({}, 2)) + len(pickle.dumps([], 2))
    path.write_bytes(beginning.getvalue()[:-end] + content + pickle.dumps([], 2))


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    "content",
    [
        b"\x80\x02}q\x00U\x01a\x85" + DOUBLED * 45 + b"K\x00s.",  # the key of a dict
        b"\x80\x02U\x01a\x85" + DOUBLED * 45 + b")R.",  # called, named by torch's error
        b"\x80\x02U\x07storageU\x01a" + DOUBLED * 45 + b"\x86Q.",  # the name of a storage
        b"\x80\x02]" + b"q\x02]h\x02ah\x02a" * 45 + b".",  # lists
        b"\x80\x02c__builtin__\nset\nU\x01a" + DOUBLED * 45 + b"\x85R.",  # elements of a set
        b"\x80\x02]q\x00]q\x01h\x00aa.",  # two lists that hold each other
        b"\x80\x02}" + b"N" + b"\x85" * 300_000 + b"Ns.",  # its hash would end the process
    ],
)
def test_a_pickle_that_would_never_end_is_refused_unread(
    tmp_path: Path, content: bytes, zipped: bool
) -> None:
    path = tmp_path / "a.pt"
    write_pickle(path, content, zipped=zipped)
    with pytest.raises(IncompatibleFileError, match=r"rejected: it holds .* as no checkpoint does"):
        load_checkpoint(path)


@pytest.mark.parametrize(
    "content",
    [
        b"c_codecs\nencode\nq\0U\1aU\x08punycode\x86R.",
        b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"c_codecs\nencode\nq\0U\1aU\6latin1\x86R0h\0U\1aU\x08punycode\x86R.",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(c_codecs\nencode\nNU\1aU\6latin1\x86NtR.",
    ],
)
def test_a_pickle_that_could_take_all_time_or_memory_is_refused_unread(
    tmp_path: Path, content: bytes
) -> None:
    """By a codec or a size of the file's choice."""
    path = tmp_path / "a.pt"
    write_pickle(path, b"\x80\x02" + content, zipped=True)
    with pytest.raises(IncompatibleFileError, match=r"run code \(it holds _codecs\.encode"):
        load_checkpoint(path)


@pytest.mark.parametrize("zipped", [True, False])
def test_a_checkpoint_with_all_that_training_scripts_keep_is_read(
    tmp_path: Path, zipped: bool
) -> None:
    """Groups share their settings, tied layers their tensors, and a history is long."""
    layers = torch.nn.Sequential(*(torch.nn.Linear(2, 2) for _ in range(100)))
    layers[1].weight = layers[0].weight
    betas, history = (0.9, 0.99), {"loss": [0.5] * 20_000}
    groups = [{"params": [weight], "betas": betas} for weight in layers.parameters()]
    optimizer = torch.optim.AdamW(groups)
    layers(torch.zeros(1, 2)).sum().backward()
    optimizer.step()
    content = {
        "state_dict": own_content()["arrays"] | layers.state_dict(),
        "optimizer_states": [optimizer.state_dict()],
        "lr_schedulers": [torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 5, 5]).state_dict()],
        "hyper_parameters": history,
        "hyper_parameters_before": history,
        "loops": {"fit": {"epoch": {"batch": {"progress": {"total": {"ready": 1}}}}}},
        "seen": {1, 2},
        "bytes": [b"\xff", bytearray(b"\xff")],
        "rng": [torch.get_rng_state()] * 8,
    }
    path = tmp_path / "a.pt"
    torch.save(content, path, _use_new_zipfile_serialization=zipped)
    from alexnet_deploy.model.torch_files import read_pt

    arrays, _ = read_pt(path)
    assert arrays.keys() == {f"state_dict.{name}" for name in content["state_dict"]}
