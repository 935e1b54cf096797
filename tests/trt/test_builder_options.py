"""Where a built engine is to run, what earlier builds measured, and how a plugin shows in it.

Over dolls of TensorRT's classes; see `fake_builder`.
"""

import dataclasses
from typing import Any, get_args

import pytest

from alexnet_deploy.runtimes.engine_file import HardwareCompatibility
from alexnet_deploy.runtimes.tensorrt_library import load_library
from tests.support.trt_stub.fake_builder import FILE, PLAN, PROFILE, FakeTensorRt, errors
from tests.support.trt_stub.models import plugin_model

pytest.importorskip("cuda.bindings", reason="CUDA's API comes with: pip install cuda-bindings")
pytest_plugins = [
    "tests.support.trt_stub.fixtures",
    "tests.support.trt_stub.builder_fixtures",
]


def myelin(*names: str) -> dict[str, str]:
    """Return what the inspector says of a layer that Myelin made of several nodes."""
    metadata = "\x1f".join(f"[ONNX Layer: {name}]" for name in names)
    return {"Name": "__myl_Conv_myl3_1", "LayerType": "kgen", "Metadata": metadata}


@pytest.mark.parametrize(
    ("layer", "plan", "lrn"),
    [
        ({"Name": "pool2", "LayerType": "PluginV3"}, PLAN, "plugin"),
        (myelin("conv2", "pool2"), PLAN, "plugin"),
        (myelin("conv2"), b"...relu_tower_lrn_pool...", "plugin"),
        (myelin("conv2"), PLAN, "unknown"),
        (myelin("pool22"), PLAN, "unknown"),
        ({"Name": "pool2", "LayerType": "LRN"}, PLAN, "unknown"),
        ({"Name": "images to pool2 reformat", "LayerType": "Reformat"}, PLAN, "unknown"),
    ],
)
def test_a_plugin_shows_in_the_list_of_layers_or_by_its_kernel(
    builder: Any, fake: FakeTensorRt, layer: dict[str, str], plan: bytes, lrn: str
) -> None:
    """The parser took it, and the result is verified: it need not show."""
    fake.built[2], fake.plan = layer, plan
    record = builder.build_engine(FILE, PROFILE).record
    assert (record.lrn, record.plugin_sha256) == (lrn, builder.plugin.plugin_sha256())


@pytest.mark.parametrize(
    ("plan", "lrn"),
    [
        (b"...relu_tower_lrn_pool...", "unknown"),
        (b"...relu_tower_lrn_pool...tower_lrn...", "plugin"),
    ],
)
def test_a_kernels_name_within_the_others_does_not_show_it(
    builder: Any, fake: FakeTensorRt, plan: bytes, lrn: str
) -> None:
    fake.built[1:], fake.plan = [myelin("pool2")], plan
    assert builder.build_engine(FILE, PROFILE).record.lrn == lrn


@pytest.mark.parametrize(
    ("compiler", "oldest"),
    [("12.9", "13.0"), ("13.0", "13.0"), ("13.2", "13.2"), ("13.10", "13.10")],
)
def test_the_oldest_driver_is_that_of_tensorrt_or_of_our_kernels_compiler(
    builder: Any, monkeypatch: pytest.MonkeyPatch, compiler: str, oldest: str
) -> None:
    """And not the one at hand, whose CUDA is 13.2."""
    monkeypatch.setattr(builder, "compiler_version", lambda: compiler)
    assert builder.build_engine(FILE, PROFILE).record.cuda_version == oldest
    native = plugin_model()
    assert builder.build_engine(native, PROFILE).record.cuda_version == "13.0"


@pytest.mark.parametrize("version_compatible", [False, True])
def test_an_engine_for_later_versions_brings_no_code_for_the_cpu(
    builder: Any, fake: FakeTensorRt, trt: Any, version_compatible: bool
) -> None:
    record = builder.build_engine(FILE, PROFILE, version_compatible=version_compatible).record
    flags = [call[1] for call in fake.config.calls if call[0] == "set_flag"]
    both = [trt.BuilderFlag.VERSION_COMPATIBLE, trt.BuilderFlag.EXCLUDE_LEAN_RUNTIME]
    assert flags == (both if version_compatible else [])
    assert record.version_compatible == version_compatible


@pytest.mark.parametrize("level", get_args(HardwareCompatibility))
def test_the_level_of_compatibility_is_tensorrts_own(
    builder: Any, fake: FakeTensorRt, level: HardwareCompatibility
) -> None:
    record = builder.build_engine(FILE, PROFILE, hardware_compatibility=level).record
    chosen = fake.config.hardware_compatibility_level
    assert chosen.name.lower().replace("_", "-") == record.hardware_compatibility == level


def test_timings_of_earlier_builds_are_used_and_added_to(builder: Any, fake: FakeTensorRt) -> None:
    timings = bytearray(b"earlier timings")
    builder.build_engine(FILE, PROFILE, timings=timings)
    calls = [call for call in fake.config.calls if "timing_cache" in call[0]]
    ((_, given), (_, cache, ignores_mismatch)) = calls
    assert (bytes(given[:15]), ignores_mismatch) == (b"earlier timings", False)
    assert cache.real is fake.trt.ITimingCache
    assert timings == b"earlier timings, new timings"


@pytest.mark.parametrize("wrong", ["damaged", "of another GPU"])
def test_timings_that_tensorrt_refuses_are_left_out(
    builder: Any, fake: FakeTensorRt, wrong: str
) -> None:
    new = fake.doll(fake.trt.ITimingCache, serialize=lambda: b"new timings")
    old = None if wrong == "damaged" else fake.doll(fake.trt.ITimingCache)

    def set_timing_cache(cache: Any, ignore_mismatch: bool) -> bool:
        if cache is not new:
            errors(fake, wrong)
        return cache is new

    fake.config.answers.update(
        create_timing_cache=lambda content: old if content else new,
        set_timing_cache=set_timing_cache,
    )
    timings = bytearray(b"earlier timings")
    assert builder.build_plan(FILE, PROFILE, timings=timings) == (PLAN, "plugin")
    assert timings == b"new timings"
    assert load_library("tensorrt").messages.take() == "TensorRT gave no reason"


def test_timings_are_of_a_version_a_gpu_a_driver_and_a_kernel(
    builder: Any, fake: FakeTensorRt, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = builder.builder_gpu("fp32")
    keys = [builder.timings_key(gpu)]
    for changed in ({"name": "NVIDIA H100"}, {"cuda_version": "13.3"}):
        keys.append(builder.timings_key(dataclasses.replace(gpu, **changed)))
    monkeypatch.setattr(builder.plugin, "plugin_sha256", lambda: "0" * 64)
    keys.append(builder.timings_key(gpu))
    monkeypatch.setattr(fake.trt, "__version__", "11.5.0.1")
    keys.append(builder.timings_key(gpu))
    assert len(set(keys)) == 5
