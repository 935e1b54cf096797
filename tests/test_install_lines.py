"""Every `pip install` line that a message or a page gives asks for what the package index has."""

import ast
import re
from collections.abc import Iterator
from itertools import chain, product
from pathlib import Path

import pytest
from floors import requirements
from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name

from alexnet_deploy.photographs.suffixes import HEIF_EXTRA
from alexnet_deploy.runtimes.onnxruntime_distributions import ONNX_RUNTIMES
from tests.test_house import EXTRAS, PROJECT, ROOT, files_in_git

# Read with `pip index versions NAME` on 2026-11-30: the newest, then one that a line pins.
INDEX = {
    "click": ("8.5.1",),
    "cuda-bindings": ("13.5.0",),
    "faiss-cpu": ("1.15.1",),
    "faiss-gpu": ("1.15.1",),
    "imagehash": ("4.3.2",),
    "matplotlib": ("3.11.2",),
    "numpy": ("2.4.6",),
    "nvidia-cuda-nvdisasm": ("13.5.37",),
    "nvidia-cuda-nvrtc": ("13.5.37", "13.0.88"),  # the oldest is 13.0.48
    "nvidia-nvimgcodec-cu13": ("0.9.0.20",),
    "onnx": ("1.23.2",),
    "onnxruntime": ("1.32.0",),
    "onnxruntime-gpu": ("1.31.1",),
    "onnxruntime-openvino": ("1.24.1",),
    "openvino": ("2026.4.1",),
    "pillow": ("13.0.0",),
    "pillow-heif": ("1.8.1",),
    "pyarrow": ("26.0.1",),
    "pytest": ("9.2.0",),
    "pytest-timeout": ("2.4.0",),
    "rich": ("15.0.0",),
    "safetensors": ("0.8.0",),
    "tensorrt": ("11.4.0.106",),
    "tensorrt-rtx": ("1.7.1.116",),
    "torch": ("2.15.0",),
    "tritonclient": ("2.73.0",),
}
EXTRAS_OF_OTHERS = {
    "nvidia-nvimgcodec-cu13": {"nvjpeg"},
    "onnxruntime-gpu": {"cuda", "cudnn"},
    "tritonclient": {"grpc"},
}
USERS = sorted(EXTRAS.keys() - {"dev"})
# What a computed part of a line may be, by its expression.
COMPUTED = {
    "HEIF_EXTRA": [HEIF_EXTRA],
    "extra": USERS,
    "wanted": [*(f"'alexnet-deploy[{extra}]'" for extra in USERS), "openvino", "onnxruntime"],
    "' '.join(_imported()) or 'onnxruntime'": list(ONNX_RUNTIMES),
}


def texts(path: Path) -> Iterator[str]:
    """Yield a page, or the strings of a module, with {expressions}."""
    text = path.read_text("utf-8")
    if path.suffix == ".md":
        yield from text.splitlines()
        return
    nodes = list(ast.walk(ast.parse(text)))
    joined = [node for node in nodes if isinstance(node, ast.JoinedStr)]
    for string in joined:
        yield "".join(
            f"{{{ast.unparse(part.value)}}}"
            if isinstance(part, ast.FormattedValue)
            else str(ast.literal_eval(part))
            for part in string.values
        )
    parts = {id(part) for string in joined for part in string.values}
    for node in nodes:
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in parts:
            yield node.value


def lines(text: str) -> Iterator[str]:
    """Yield what follows each `pip install`, once for every value of its computed parts."""
    for found in re.finditer(r"pip install(?= )([^\n]*)", text):
        parts = re.split(r"\{(.*?)\}", found[1])
        values = [COMPUTED[name] for name in parts[1::2]]
        for chosen in product(*values):
            yield "".join(
                part + value for part, value in zip(parts[::2], (*chosen, ""), strict=True)
            )


def wanted(line: str) -> list[Requirement]:
    """Return the requirements at the beginning of a line, up to a sign that ends them."""
    found = []
    for word in line.split():
        bare = word.rstrip(".,;:)`|").strip("'")
        if word.startswith("-"):
            continue
        try:
            found.append(Requirement(re.sub(r"^\.(?=\[)", PROJECT["name"], bare)))
        except InvalidRequirement:
            break
        if bare != word.strip("'"):
            break
    return found


def check(requirement: Requirement) -> None:
    name = canonicalize_name(requirement.name)
    if name == PROJECT["name"]:
        for needed in map(Requirement, PROJECT["dependencies"]):
            check(needed)
        for extra in requirement.extras:
            for needed in requirements(extra):
                check(needed)
        return
    assert any(requirement.specifier.contains(version) for version in INDEX[name]), requirement
    assert requirement.extras <= EXTRAS_OF_OTHERS.get(name, set()), requirement


def test_whatever_is_to_be_installed_can_be() -> None:
    count = 0
    for path in files_in_git():
        is_shown = path.relative_to(ROOT).parts[0] in ("alexnet_deploy", "training", "tools")
        if path.suffix == ".md" or (path.suffix == ".py" and is_shown):
            for line in chain.from_iterable(map(lines, texts(path))):
                if line.startswith(" /"):  # a checkout
                    continue
                asked = wanted(line)
                assert asked, f"{path}: pip install{line}"
                for requirement in asked:
                    check(requirement)
                count += 1
    assert count > 20


@pytest.mark.parametrize(
    "line", [" nvidia-cuda-nvrtc==12.8.*", " alexnet-deploy[tenzorrt]", " onnxruntime-gpu[rocm]"]
)
def test_what_does_not_exist_is_noticed(line: str) -> None:
    (asked,) = wanted(line)
    with pytest.raises((AssertionError, KeyError)):
        check(asked)


@pytest.mark.parametrize(
    ("line", "asked"),
    [
        (" 'alexnet-deploy[cpu]', or [gpu] for an NVIDIA GPU", ["alexnet-deploy[cpu]"]),
        (" --force-reinstall --no-deps onnx", ["onnx"]),
        (" 'a>=1' b==2.*", ["a>=1", "b==2.*"]),
        (" '.[cpu,train]'   # from the checkout", ["alexnet-deploy[cpu,train]"]),
        (" openvino`.", ["openvino"]),
    ],
)
def test_requirements_end_where_prose_begins(line: str, asked: list[str]) -> None:
    assert [str(requirement) for requirement in wanted(line)] == asked
