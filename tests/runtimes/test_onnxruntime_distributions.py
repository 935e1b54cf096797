"""Builds of ONNX Runtime that overwrite each other are found by pip's own records."""

import sys
from pathlib import Path

import pytest

from alexnet_deploy.errors import DeviceError, MissingPackageError
from alexnet_deploy.runtimes.onnxruntime_distributions import (
    check_distributions,
    is_installed_for_gpu,
    overwritten_distributions,
)
from tests.support.fake_packages import error_of_import, install


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only folder with packages."""
    monkeypatch.setattr("sys.path", [str(tmp_path)])
    return tmp_path


@pytest.mark.parametrize("name", ["onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino"])
def test_one_distribution_is_all_right(site: Path, name: str) -> None:
    install(site, name)
    assert overwritten_distributions() == ()
    check_distributions()


def test_two_in_one_folder_are_refused_with_the_way_out(site: Path) -> None:
    install(site, "onnxruntime-gpu")
    install(site, "onnxruntime")
    assert overwritten_distributions() == ("onnxruntime", "onnxruntime-gpu")
    with pytest.raises(DeviceError, match="pip uninstall onnxruntime onnxruntime-gpu, then"):
        check_distributions()


def test_two_in_different_folders_do_no_harm(
    site: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    install(site, "onnxruntime")
    install(other, "onnxruntime-gpu")
    monkeypatch.setattr("sys.path", [str(other), str(site)])
    assert overwritten_distributions() == ()


def test_a_folder_listed_twice_is_one_folder(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install(site, "onnxruntime")
    monkeypatch.setattr("sys.path", [str(site), str(site)])
    assert overwritten_distributions() == ()


def test_where_none_is_installed_there_is_nothing_to_say(site: Path) -> None:
    assert overwritten_distributions() == ()


@pytest.mark.parametrize(("first", "is_gpu"), [("onnxruntime-gpu", True), ("onnxruntime", False)])
def test_the_gpu_build_is_known_without_importing_it(
    site: Path,
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    first: str,
    is_gpu: bool,
) -> None:
    """Of two folders the first counts, as for an import."""
    other = tmp_path_factory.mktemp("other")
    monkeypatch.delitem(sys.modules, "onnxruntime")  # find_spec would answer for what is loaded
    assert not is_installed_for_gpu()
    install(site, "onnxruntime" if is_gpu else "onnxruntime-gpu")
    install(other, first)
    monkeypatch.setattr("sys.path", [str(other), str(site)])
    assert is_installed_for_gpu() is is_gpu


SESSION = "runtimes.onnxruntime_session"
BROKEN = "raise ImportError('libcudart.so.13: no such file')"


def test_builds_over_each_other_are_refused_before_what_is_left_of_them_is_imported(
    tmp_path: Path,
) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        install(tmp_path, name, source=BROKEN)
    for module in (SESSION, "runtimes.onnxruntime_runner", "runtimes.onnxruntime_cuda_runner"):
        said = error_of_import(module, tmp_path)
        assert said.startswith("DeviceError: onnxruntime and onnxruntime-gpu are installed over")


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        (BROKEN, "ImportError: libcudart.so.13: no such file"),
        ("import nowhere.to_be_found", "ModuleNotFoundError: No module named 'nowhere'"),
        ("import sys; sys.capi", "AttributeError: module 'sys' has no attribute 'capi'"),
    ],
)
def test_a_build_that_cannot_be_imported_is_to_be_installed_again(
    tmp_path: Path, source: str, reason: str
) -> None:
    install(tmp_path, "onnxruntime-gpu", source=source)
    assert error_of_import(SESSION, tmp_path) == (
        f"DeviceError: the package onnxruntime is installed here and cannot be imported ({reason})"
        "; install it again: pip install --force-reinstall --no-deps onnxruntime-gpu"
    )


def test_an_empty_folder_of_an_uninstalled_build_is_no_onnx_runtime(tmp_path: Path) -> None:
    before = """
from importlib.machinery import ModuleSpec
sys.modules["onnxruntime"] = types.ModuleType("onnxruntime")
sys.modules["onnxruntime"].__spec__ = ModuleSpec("onnxruntime", None, is_package=True)
"""
    said = error_of_import(SESSION, tmp_path, before=before)
    assert "cannot be imported (AttributeError: " in said
    assert "has no attribute '__version__'" in said


def test_what_is_missing_beside_the_gpu_build_is_installed_without_the_cpu_build(
    site: Path,
) -> None:
    assert str(MissingPackageError("openvino", "cpu", "it")).endswith("'alexnet-deploy[cpu]'")
    install(site, "onnxruntime-gpu")
    assert str(MissingPackageError("openvino", "cpu", "it")).endswith("with: pip install openvino")
    assert str(MissingPackageError("torch", "torch", "it")).endswith("'alexnet-deploy[torch]'")
