"""The floors that `make floors` installs."""

from floors import floors
from packaging.requirements import Requirement


def test_every_package_of_an_extra_has_its_floor_and_they_can_be_installed_together() -> None:
    lines = floors(["cpu", "parquet"])
    names = [Requirement(line).name for line in lines]
    assert {"numpy", "Pillow", "onnx", "onnxruntime", "openvino", "pyarrow"} <= set(names)
    assert len(names) == len(set(names))
    assert all("==" in line for line in lines)
