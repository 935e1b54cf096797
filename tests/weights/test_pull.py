"""A public network from this disk, a mirror or its publisher into the store, and out of it."""

import dataclasses
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from alexnet_deploy import installed
from alexnet_deploy.errors import (
    DownloadError,
    IncompatibleFileError,
    MissingPackageError,
    OutputError,
    UsageError,
)
from alexnet_deploy.files.private_folders import own_folder
from alexnet_deploy.importing.known import KnownNetwork
from alexnet_deploy.weights import pull as pull_module
from alexnet_deploy.weights.names import open_named
from alexnet_deploy.weights.pull import Pulled, Reporting, pull
from alexnet_deploy.weights.store import load_stored
from tests.support.file_server import FileServer, broken_after, sent, serving, stalled_after
from tests.support.full_disk import files_limited_to
from tests.support.known_tables import FILE_NAME, NAME, published, use_table


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for variable, folder in {
        "XDG_DATA_HOME": "data",
        "TORCH_HOME": "torch",
        "HF_HOME": "hf",
    }.items():
        monkeypatch.setenv(variable, str(tmp_path / folder))


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving(published()) as file:
        yield file


@pytest.fixture
def network(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> KnownNetwork:
    return use_table(monkeypatch, tmp_path, server.url)


def in_torch_hub(tmp_path: Path) -> Path:
    return tmp_path / "torch" / "hub" / "checkpoints" / FILE_NAME


def in_hugging_face_hub(tmp_path: Path) -> Path:
    """Return where the hub's client links to a blob."""
    folder = tmp_path / "hf" / "hub" / "models--a--b"
    blob = folder / "blobs" / "0123"
    link = folder / "snapshots" / "89ab" / "sub" / FILE_NAME
    link.parent.mkdir(parents=True)
    blob.parent.mkdir()
    blob.write_bytes(published())
    link.symlink_to(os.path.relpath(blob, link.parent))
    return link


def written(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def stored() -> list[str]:
    return sorted(os.listdir(own_folder("data")))


def test_a_network_is_fetched_once_and_kept_as_a_checkpoint_alone(
    network: KnownNetwork, server: FileServer
) -> None:
    told: list[tuple[int, int]] = []
    pulled = pull(network, reporting=Reporting(on_bytes=lambda *bytes_: told.append(bytes_)))
    assert pulled.source == server.url
    assert told[-1] == (len(published()),) * 2
    assert stored() == [f"{NAME}.safetensors"]
    assert stat.S_IMODE(own_folder("data").stat().st_mode) == 0o700
    checkpoint = open_named(network)
    assert checkpoint.identity == pulled.identity
    assert checkpoint.spec.provenance["imported"]["network"] == NAME
    assert pull(network) == Pulled(path=pulled.path, identity=pulled.identity, source=None)
    assert len(server.ranges) == 1


def test_a_copy_in_torchs_cache_is_used_where_it_is(
    network: KnownNetwork, server: FileServer, tmp_path: Path
) -> None:
    copy = written(in_torch_hub(tmp_path), published())
    assert pull(network, offline=True).source == str(copy)
    assert copy.read_bytes() == published()
    assert stored() == [f"{NAME}.safetensors"]
    assert server.ranges == []


def test_a_copy_in_the_hubs_cache_is_used_where_it_is(
    network: KnownNetwork, server: FileServer, tmp_path: Path
) -> None:
    copy = in_hugging_face_hub(tmp_path)
    assert pull(network).source == str(copy)
    assert copy.is_symlink()
    assert server.ranges == []


def test_a_damaged_copy_is_told_and_not_used(
    network: KnownNetwork, server: FileServer, tmp_path: Path
) -> None:
    content = bytearray(published())
    content[-1] ^= 1
    copy = written(in_torch_hub(tmp_path), bytes(content))
    lines: list[str] = []
    assert pull(network, reporting=Reporting(notify=lines.append)).source == server.url
    assert lines[0].startswith(f"{copy}: is not used")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_a_copy_that_cannot_be_read_is_told_and_not_used(
    network: KnownNetwork, server: FileServer, tmp_path: Path
) -> None:
    copy = written(in_torch_hub(tmp_path), published())
    copy.chmod(0)
    lines: list[str] = []
    assert pull(network, reporting=Reporting(notify=lines.append)).source == server.url
    assert lines[0].startswith(f"{copy}: is not used")


def test_the_next_source_is_asked_when_one_fails(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = use_table(monkeypatch, tmp_path, "http://127.0.0.1:1/gone", server.url)
    assert pull(network).source == server.url


def test_what_one_source_began_another_ends(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(published()) as other:
        network = use_table(monkeypatch, tmp_path, other.url, server.url)
        other.answers = [broken_after(1000), stalled_after(0)]
        pull(network, reporting=Reporting(stall_s=0.2))
    assert server.ranges == ["bytes=1000-"]


def test_a_failure_tells_of_each_source_and_what_to_do(
    network: KnownNetwork, server: FileServer
) -> None:
    server.answers = [sent(404)]
    with pytest.raises(DownloadError) as caught:
        pull(network)
    message = str(caught.value)
    assert f"{server.url}: does not have it (404)" in message
    assert message.endswith(f"alexnet-deploy pull {NAME} --from FILE")
    assert stored() == []


@pytest.mark.parametrize("variable", [None, "1", "true", "YES"])
def test_offline_opens_no_connection(
    network: KnownNetwork,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
    variable: str | None,
) -> None:
    if variable is not None:
        monkeypatch.setenv("HF_HUB_OFFLINE", variable)
    with pytest.raises(DownloadError, match="connections are forbidden"):
        pull(network, offline=variable is None)
    with pytest.raises(UsageError, match="connections are forbidden"):
        pull(network, source=server.url, offline=variable is None)
    assert server.ranges == []


def test_a_mirror_is_asked_in_place_of_the_publisher(
    network: KnownNetwork, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(published()) as mirror:
        base = f"{mirror.url.removesuffix('/file.bin')}/weights/"
        monkeypatch.setenv("ALEXNET_MIRROR", base)
        assert pull(network).source == f"{base}{FILE_NAME}"
        assert mirror.paths == [f"/weights/{FILE_NAME}"]
    assert server.ranges == []


@pytest.mark.parametrize("form", ["{}", "file://{}"])
def test_a_mirror_may_be_a_folder_also_offline(
    network: KnownNetwork, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    folder = tmp_path / "mirror"
    monkeypatch.setenv("ALEXNET_MIRROR", form.format(folder))
    with pytest.raises(DownloadError, match="no such file"):
        pull(network, offline=True)
    copy = written(folder / FILE_NAME, published(seed=1))
    with pytest.raises(DownloadError, match="another file, or damaged"):
        pull(network, offline=True)
    copy.write_bytes(published())
    assert pull(network, offline=True).source == str(copy)
    assert copy.exists()


def test_a_file_or_a_folder_or_an_address_may_be_given(
    network: KnownNetwork, server: FileServer, tmp_path: Path
) -> None:
    copy = written(tmp_path / "given" / FILE_NAME, published())
    renamed = written(tmp_path / "weights.bin", published())
    (own_folder("data") / f"{NAME}.safetensors").unlink(missing_ok=True)
    for source in (copy, copy.parent, renamed, f"file://{renamed}", server.url):
        pulled = pull(network, source=str(source), offline=source != server.url)
        assert pulled.source is not None
        pulled.path.unlink()
    assert copy.exists()
    assert renamed.exists()
    assert len(server.ranges) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (published(seed=1), f"none of the files in which {NAME} was published"),
        (b"<!doctype html><html></html>", "is a web page"),
        (published()[:5000], "none of the files"),
    ],
)
def test_another_file_is_refused(
    network: KnownNetwork, tmp_path: Path, content: bytes, message: str
) -> None:
    given = written(tmp_path / "given.bin", content)
    with pytest.raises(IncompatibleFileError, match=message):
        pull(network, source=str(given))


def test_a_source_that_is_none(network: KnownNetwork, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file"):
        pull(network, source=str(tmp_path / "missing"))
    with pytest.raises(UsageError, match="ftp: is not supported"):
        pull(network, source="ftp://example.org/tiny")


def test_what_cannot_be_read_yet_is_fetched_once(
    network: KnownNetwork, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise MissingPackageError("torch", "torch", "reading a .pt file")

    with monkeypatch.context() as patch:
        patch.setattr(pull_module, "import_weights", refuse)
        with pytest.raises(MissingPackageError):
            pull(network)
    assert pull(network, offline=True).source == str(own_folder("data") / FILE_NAME)
    assert stored() == [f"{NAME}.safetensors"]
    assert len(server.ranges) == 1


@pytest.mark.parametrize(("suffix", "package"), [(".pth", "torch"), (".onnx", "onnx")])
def test_what_cannot_be_read_here_is_not_fetched(
    suffix: str,
    package: str,
    network: KnownNetwork,
    server: FileServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(installed, "has_module", lambda name: name != package)
    file = dataclasses.replace(network.files[0], name=f"tiny{suffix}")
    with pytest.raises(MissingPackageError, match=f"needs the package {package}"):
        pull(dataclasses.replace(network, files=(file,)))
    assert server.ranges == []


def test_a_changed_byte_is_noticed_and_mended(network: KnownNetwork, server: FileServer) -> None:
    path = pull(network).path
    content = path.read_bytes()
    spec_at = content.index(b"tiny")  # the network's name in the provenance
    for position in (spec_at, len(content) - 1, len(content) // 2, 20):
        damaged = bytearray(content)
        damaged[position] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(IncompatibleFileError, match=f"alexnet-deploy pull {NAME}"):
            load_stored(NAME, path)
    pull(network)
    assert path.read_bytes() == content
    assert len(server.ranges) == 2


def test_one_network_under_the_name_of_another_is_noticed(network: KnownNetwork) -> None:
    path = pull(network).path
    other = path.rename(path.with_name("other.safetensors"))
    with pytest.raises(IncompatibleFileError, match="is not as it was written"):
        load_stored("other", other)


def test_a_store_that_others_can_write_to_is_not_believed(network: KnownNetwork) -> None:
    path = pull(network).path
    path.parent.chmod(0o777)
    with pytest.raises(IncompatibleFileError, match="others may have written to it"):
        open_named(network)
    with pytest.raises(OutputError, match="others may have written to it"):
        pull(network)


def test_a_store_that_cannot_be_made_is_one_error(
    network: KnownNetwork, tmp_path: Path, server: FileServer
) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    with pytest.raises(OutputError, match="cannot be written"):
        pull(network)
    assert server.ranges == []


def test_a_full_disk_leaves_the_store_as_it_was(
    network: KnownNetwork, tmp_path: Path, server: FileServer
) -> None:
    written(in_torch_hub(tmp_path), published())
    with files_limited_to(3000), pytest.raises(OutputError, match="cannot be written"):
        pull(network)
    assert stored() == []


def test_a_network_that_is_not_here_says_how_to_get_it(
    network: KnownNetwork, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=f"fetches .* MB: alexnet-deploy pull {NAME}$"):
        open_named(network)
    written(in_torch_hub(tmp_path), published())
    with pytest.raises(UsageError, match="takes it from this disk: alexnet-deploy pull"):
        open_named(network)
