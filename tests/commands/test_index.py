"""index, search and info on an index through the command line, with a quick runner."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from alexnet_deploy.runtimes import gpu_driver
from tests.support.command_line import done, refused, run
from tests.support.index_runner import (
    DIMENSION,
    Runners,
    photograph,
    save,
)

RED, GREEN, BLUE = (200, 0, 0), (0, 200, 0), (0, 0, 200)


pytestmark = pytest.mark.usefixtures("runners")


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three photographs in `photos/`, indexed in `alexnet-index/`, seen from the folder above."""
    monkeypatch.chdir(tmp_path)
    for name, colour in (("blue", BLUE), ("green", GREEN), ("red", RED)):
        save(Path("photos", f"{name}.bmp"), colour)
    done("index", "photos", "--layer", "logits")
    return tmp_path / "photos"


def test_index_says_what_it_does_on_stderr(photos: Path, runners: Runners) -> None:
    assert Path("alexnet-index/manifest.json").is_file()
    save(photos / "new.bmp", (1, 2, 3))
    first = done("index", "photos")
    assert first.stdout == ""
    assert first.stderr.splitlines()[0] == "fake runner"
    assert first.stderr.splitlines()[-1].startswith(
        "1 embedded, 0 reused, 3 unchanged, 0 removed, 0 failed in "
    )
    runners.num_opened = 0
    again = done("index")
    assert again.stderr.startswith("0 embedded, 0 reused, 4 unchanged, 0 removed, 0 failed in ")
    assert (again.stdout, runners.num_opened) == ("", 0)


def test_index_json_has_the_counts(photos: Path) -> None:
    save(photos / "new.bmp", (1, 2, 3))
    result = done("index", "photos", "--json")
    told = json.loads(result.stdout)
    assert told == {
        "index": "alexnet-index",
        "embedded": 1,
        "reused": 0,
        "unchanged": 3,
        "failed": 0,
        "failed_before": 0,
        "removed": 0,
        "missing": {},
        "left_out": {},
    }


def test_losses_exit_with_1_and_prune_accepts_them(photos: Path) -> None:
    (photos / "red.bmp").unlink()
    result = run("index", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["missing"] == {str(photos): 1}
    assert f"{photos}: 1 of 3 indexed photographs are gone" in result.stderr
    assert "--prune" in result.stderr
    assert json.loads(done("index", "--prune", "--json").stdout)["removed"] == 1


def test_too_many_failures_exit_with_3_after_the_account(photos: Path) -> None:
    save(photos / "bad.jpg", b"bad")
    result = run("index", "--json")
    assert result.exit_code == 3
    assert json.loads(result.stdout)["failed"] == 1
    lines = result.stderr.splitlines()
    assert lines[1].startswith(f"failed: {photos / 'bad.jpg'}: ")
    assert "1 of 4 photographs could not be read" in lines[-1]
    assert json.loads(done("index", "--json").stdout)["failed_before"] == 1
    done("index", "--retry-failed", "--max-failures", "1")


def test_a_folder_that_was_moved_is_named_with_root(photos: Path, runners: Runners) -> None:
    runners.colours.clear()
    photos.rename("moved")
    told = json.loads(done("index", "--root", "photos=moved", "--json").stdout)
    assert (told["unchanged"], told["embedded"]) == (3, 0)
    assert runners.colours == []


def test_index_takes_its_directory_from_the_option_then_the_variable(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALEXNET_INDEX", "from variable")
    done("index", "photos", "--layer", "logits")
    assert Path("from variable/manifest.json").is_file()
    assert json.loads(done("index", "--json").stdout)["index"] == "from variable"
    done("search", "photos/red.bmp")
    told = json.loads(done("index", "--index", "alexnet-index", "--json").stdout)
    assert told["index"] == "alexnet-index"
    monkeypatch.setenv("ALEXNET_INDEX", "nowhere")
    assert "index nowhere: does not exist" in refused(2, "search", "photos/red.bmp")


def test_wrong_usage_of_index(photos: Path) -> None:
    assert "nowhere" in refused(2, "index", "nowhere")
    refused(2, "index", "--batch-size", "0")
    assert "fc7" in refused(5, "index", "photos", "--layer", "fc7")
    Path("empty").mkdir()
    assert "no photograph found" in refused(1, "index", "empty", "--index", "new")
    assert not Path("new").exists()
    assert "is not an index, contains other files" in refused(
        2, "index", "photos", "--index", "photos"
    )


def test_search_prints_a_table_for_each_query(photos: Path) -> None:
    result = done("search", "photos/red.bmp", "photos/blue.bmp", "-k", "1")
    lines = result.stdout.splitlines()
    assert [lines[0], lines[4]] == [f"neighbours of photos/{name}.bmp" for name in ("red", "blue")]
    assert lines[1] == lines[5] == "cosine        L2              path"
    assert [lines[3], lines[7:]] == ["", [""]]
    assert lines[2].split()[2] in (str(photos / "green.bmp"), str(photos / "blue.bmp"))
    assert "2 " in result.stderr.splitlines()[-1]


def test_search_json_has_a_line_for_each_query_failures_included(photos: Path) -> None:
    save(photos / "bad.jpg", b"bad")
    result = done("search", "photos", "--json", "--max-failures", "1", "--threads", "1")
    lines: list[dict[str, Any]] = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["query"] for line in lines] == [
        f"photos/{name}" for name in ("bad.jpg", "blue.bmp", "green.bmp", "red.bmp")
    ]
    assert list(lines[0]) == ["query", "error"]
    for line in lines[1:]:
        assert list(line) == ["query", "results"]
        assert len(line["results"]) == 2
        similarities = [one["cosine_similarity"] for one in line["results"]]
        assert similarities == sorted(similarities, reverse=True)
    assert "failed: photos/bad.jpg: " in result.stderr


def test_search_metric_and_limit_reach_the_search(photos: Path) -> None:
    result = done("search", "photos/red.bmp", "--metric", "l2", "--json")
    found = json.loads(result.stdout)["results"]
    assert found[0]["l2_distance"] < found[1]["l2_distance"]
    limit = str(found[0]["l2_distance"])
    limited = done("search", "photos/red.bmp", "--metric", "l2", "--max-distance", limit, "--json")
    assert json.loads(limited.stdout)["results"] == found[:1]


def test_search_compares_what_all_filters_leave(photos: Path) -> None:
    for name in ("raw/teal.bmp", "raw/teal.png", "old/teal.png"):
        save(photos / name, (0, 99, 99))
    os.utime(photos / "raw" / "teal.png", (1e9, 1e9))  # in 2001
    done("index", "photos")
    query = ("search", "photos/red.bmp", "--paths", "--since", "2002-01-01T00:00")
    folders = ("--within", "photos/raw", "--within", "photos/old")
    listed = done(*query, *folders, "--glob", "*.png", "--glob", "*.jpg").stdout
    assert listed == f"{photos}/old/teal.png\n"
    nothing = done(*query, "--glob", "*.jpg")
    assert (nothing.stdout, nothing.exit_code) == ("", 0)
    assert nothing.stderr.startswith("no indexed photograph passes the filters")


def test_search_paths_are_bytes_that_other_programs_take(photos: Path) -> None:
    name = os.fsdecode(b"new\nline \xff.bmp")
    save(photos / name, RED)
    done("index")
    expected = os.fsencode(photos / name)
    assert done("search", "photos/red.bmp", "--paths", "-k1").stdout_bytes == expected + b"\n"
    with_nul = done("search", "photos/red.bmp", "--paths", "-0", "-k2").stdout_bytes
    assert with_nul.split(b"\0")[0] == expected
    assert with_nul.count(b"\0") == 2
    assert with_nul.endswith(b"\0")
    table = done("search", "photos/red.bmp", "-k1").stdout
    assert r"new\nline \xff.bmp" in table


def test_search_takes_a_photograph_from_standard_input_in_its_place(photos: Path) -> None:
    result = done(
        *("search", "photos/red.bmp", "-", "photos/blue.bmp", "--json"), stdin=photograph(GREEN)
    )
    lines = [json.loads(line) for line in result.stdout.splitlines()]
    assert [line["query"] for line in lines] == ["photos/red.bmp", "-", "photos/blue.bmp"]
    assert lines[1]["results"][0]["path"] == str(photos / "green.bmp")
    assert lines[1]["results"][0]["l2_distance"] == 0
    alone = run("search", "-", stdin=b"")
    assert alone.exit_code == 3
    assert "failed: -: is empty" in alone.stderr


def test_search_takes_no_more_from_standard_input_than_from_a_file(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("alexnet_deploy.photographs.memory.MAX_FILE_BYTES", 100)
    assert len(photograph(GREEN)) > 100
    result = run("search", "-", stdin=photograph(GREEN))
    assert result.exit_code == 2
    assert "-: standard input has more than" in result.stderr


@pytest.mark.parametrize("suffix", [".png", ".html"])
def test_search_draws_a_sheet_beside_its_results(photos: Path, suffix: str) -> None:
    sheet = Path(f"sheet{suffix}")
    arguments = ("search", "photos/red.bmp", "-", "--paths")
    without = done(*arguments, stdin=photograph(GREEN)).stdout_bytes
    drawn = done(*arguments, "--sheet", sheet, stdin=photograph(GREEN)).stdout_bytes
    assert drawn == without
    if suffix == ".png":
        with Image.open(sheet) as image:
            image.load()
            assert min(image.size) > 300
    else:
        text = sheet.read_text("utf-8")
        assert text.count("<svg") == 2 + 2 + 3
        assert text.count("<image") == 3
        assert "green.bmp" in text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("photos", "--json", "--paths"), "choose one"),
        (("photos", "-0"), "add --paths"),
        (("photos", "--json", "-0"), "add --paths"),
        (("photos", "--sheet", "sheet.pdf"), "sheet.pdf"),
        (("photos", "-k", "0"), "-k"),
        (("photos", "--max-distance", "-1"), "--max-distance"),
        (("photos", "--max-distance", "nan"), "--max-distance"),
        (("photos", "--metric", "l1"), "--metric"),
        (("photos", "--within", ""), "--within"),
        (("photos", "--within", "nowhere"), "nowhere: no folder of the index is there"),
        (("photos", "--glob", ""), "--glob"),
        (("photos", "--since", "May"), "--since is 'May', expected a date or a time"),
        (("nowhere.jpg",), "nowhere.jpg"),
        (("photos", "--index", "nowhere"), "index nowhere: does not exist"),
        ((), "QUERY"),
    ],
)
def test_wrong_usage_of_search(photos: Path, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused(2, "search", *arguments)
    assert not Path("sheet.pdf").exists()


def test_search_of_another_vector_space_exits_with_5(photos: Path, runners: Runners) -> None:
    assert "precision" in refused(5, "search", "photos/red.bmp", "--precision", "bf16")
    runners.identity = "f" * 64
    assert "identity" in refused(5, "search", "photos/red.bmp", "--model", "other.onnx")


@pytest.mark.parametrize("option", [(), ("--precision", "auto")])
def test_an_index_has_the_precision_of_its_model_file(
    photos: Path, runners: Runners, option: tuple[str, ...]
) -> None:
    runners.precision = "fp16"
    done("index", "photos", "--index", "half", "--layer", "logits", *option)
    manifest = json.loads(Path("half", "manifest.json").read_text())
    assert manifest["space"]["precision"] == "fp16"
    done("search", "photos/red.bmp", "--index", "half", *option)
    assert "precision" in refused(
        5, "search", "photos/red.bmp", "--index", "half", "--precision", "fp32"
    )


def test_search_on_a_gpu_that_is_not_there_is_refused_though_no_engine_is_needed(
    photos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gpu_driver, "_LIBRARY", "libno-such-driver.so.1")
    for query in ("photos/red.bmp", "photos"):
        assert "no NVIDIA GPU" in refused(1, "search", query, "--device", "cuda")
    done("search", "photos/red.bmp", "--device", "cpu")
    done("search", "photos/red.bmp")


def test_too_many_failed_queries_exit_with_3(photos: Path) -> None:
    save(photos / "bad.jpg", b"bad")
    result = run("search", "photos", "--paths")
    assert result.exit_code == 3
    assert result.stdout.count("\n") == 3 * 2
    assert "1 of 4 photographs could not be read" in result.stderr


def test_a_folder_without_photographs_is_no_query(photos: Path) -> None:
    Path("empty").mkdir()
    assert "no photograph found" in refused(1, "search", "empty")


def test_info_tells_about_an_index(photos: Path) -> None:
    text = done("info", "alexnet-index").stdout
    assert text.startswith("alexnet-index: index, ")
    assert "3 indexed, 0 failed" in text
    told = json.loads(done("info", "alexnet-index", "--json").stdout)
    checked = json.loads(done("info", "alexnet-index", "--check", "--json").stdout)
    assert checked == told | {"problems": []}
    assert "  problem       none: " in done("info", "alexnet-index", "--check").stdout


@pytest.mark.parametrize("as_json", [False, True])
def test_info_check_exits_with_5_and_says_what_is_wrong(photos: Path, as_json: bool) -> None:
    (segment,) = Path("alexnet-index/vectors").iterdir()
    data = bytearray(segment.read_bytes())
    data[2 * DIMENSION] ^= 1
    segment.write_bytes(data)
    done("info", "alexnet-index")
    result = run("info", "alexnet-index", "--check", *(["--json"] if as_json else []))
    assert result.exit_code == 5
    line = f"vector 1: was changed since it was written ({photos / 'green.bmp'})"
    if as_json:
        assert json.loads(result.stdout)["problems"] == [line]
    else:
        assert f"  problem       {line}\n" in result.stdout
    assert "alexnet-index: 1 problems; " in result.stderr
    done("index", "--repair")
    done("info", "alexnet-index", "--check")


def test_info_check_is_for_an_index_only(photos: Path) -> None:
    file = save(Path("model.onnx"), b"")
    assert "--check is for an index" in refused(2, "info", file, "--check")
    assert "--check is for an index" in refused(2, "info", "--check")
    assert "is not an index" in refused(5, "info", "photos", "--check")


@pytest.mark.parametrize("query", ["query.png", "photos/indexed.png"])
def test_a_sheet_does_not_replace_a_photograph(photos: Path, query: str) -> None:
    image = Image.new("RGB", (40, 30), RED)
    for name in ("query.png", "photos/indexed.png"):
        image.save(name)
    done("index", "photos")
    before = Path(query).read_bytes()
    message = refused(2, "search", "query.png", "--sheet", query)
    assert f"{query}: is one of the photographs" in message
    assert Path(query).read_bytes() == before


def test_any_number_of_neighbours_may_be_asked_for(photos: Path) -> None:
    listed = done("search", "photos/red.bmp", "-k", "9" * 30, "--paths").stdout
    assert len(listed.splitlines()) == 2
