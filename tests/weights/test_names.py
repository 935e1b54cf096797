"""A word of the table is a network, anything else a file."""

from pathlib import Path

import pytest

from alexnet_deploy.errors import UsageError
from alexnet_deploy.importing.known import known_networks
from alexnet_deploy.weights.names import chosen_model, named_network
from alexnet_deploy.weights.places import parsed_source


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_a_word_of_the_table_is_the_network_even_where_a_file_has_its_name(here: Path) -> None:
    lines: list[str] = []
    network = known_networks()["torchvision"]
    assert chosen_model("torchvision", notify=lines.append) is network
    assert lines == []
    (here / "torchvision").touch()
    assert chosen_model("torchvision", notify=lines.append) is network
    assert len(lines) == 1
    assert lines[0].endswith("not the file here; for that give ./torchvision")


def test_anything_else_is_a_file(here: Path) -> None:
    (here / "word").touch()
    for path in (
        "./torchvision",
        "word",
        "torchvision.onnx",
        "folder/torchvision",
        "~/torchvision",
    ):
        assert chosen_model(path) == Path(path)
    assert chosen_model(Path("torchvision")) == Path("torchvision")
    assert chosen_model(Path("unknown")) == Path("unknown")


@pytest.mark.parametrize(
    ("word", "meant"), [("torchvison", "torchvision"), ("Caffe", "caffe"), ("resnet", None)]
)
def test_an_unknown_word_lists_the_names_and_the_closest(
    here: Path, word: str, meant: str | None
) -> None:
    for function in (chosen_model, named_network):
        with pytest.raises(UsageError, match="these are public: torchvision, caffe, ") as caught:
            function(word)
        assert str(caught.value).endswith(f"; do you mean {meant}?") == (meant is not None)


def test_the_table_holds_what_a_download_needs() -> None:
    for network in known_networks().values():
        assert network.files[0].urls, f"{network.name} can be fetched"
        for file in network.files:
            assert file.sha256 or file.sha1
            for url in file.urls:
                assert len(file.sha256) == 64, "a server is not trusted for less"
                assert parsed_source(url) == url
                assert url.endswith(f"/{file.name}")
    hashes = [file.sha256 for network in known_networks().values() for file in network.files]
    assert len(set(hashes)) == len(hashes)
