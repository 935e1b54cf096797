"""Engine files: what is written is read, and what does not belong together is refused."""

import dataclasses
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_args

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alexnet_deploy.errors import IncompatibleFileError, OutputError, UsageError
from alexnet_deploy.files.records import LATER
from alexnet_deploy.graph.report import Check, Report
from alexnet_deploy.model.spec import PRESET_NAMES, preset_spec
from alexnet_deploy.runtimes import engine_file
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import (
    NOT_VERIFIED,
    EngineFile,
    EngineLrn,
    EngineRecord,
    HardwareCompatibility,
    engine_target,
    read_engine,
    sidecar_path,
    write_engine,
)

REPORT = {
    "passed": True,
    "checks": [{"name": "fc7", "measured": "1e-06", "allowed": "<= 1e-04", "passed": True}],
    "runs": "TensorRT 11.4",
    "against": "f" * 64,
    "num_photographs": 3,
    "skipped": [],
}
RECORD = EngineRecord(
    runtime="tensorrt",
    runtime_version="11.4.0.106",
    cuda_version="13.0",
    gpu_name="NVIDIA H200",
    compute_capabilities=("9.0",),
    profile=BatchProfile(min=1, opt=8, max=32),
    precision="fp16",
    outputs=("probabilities", "fc7"),
    lrn="plugin",
    plugin_sha256="0123456789abcdef" * 4,
    spec=preset_spec("paper", num_classes=3, labels=("ant", "bee", "cat")),
    identity="f" * 64,
    checkpoint="f" * 64,
    report=REPORT,
)
PORTABLE = dataclasses.replace(
    RECORD,
    runtime="tensorrt-rtx",
    runtime_version="1.7.1.116",
    cuda_version=None,
    gpu_name=None,
    compute_capabilities=(),
    lrn="native",
    plugin_sha256=None,
    report=None,
)
PLAN = bytes(range(256)) * 40


@pytest.fixture
def written(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    write_engine(EngineFile(record=RECORD, plan=PLAN), path)
    return path


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # on a busy disk it takes a second


def change(path: Path, **fields: Any) -> None:
    """Change fields of the engine's sidecar and its hash of them; `...` removes one."""
    sidecar = sidecar_path(path)
    changed = json.loads(sidecar.read_text("utf-8")) | fields
    kept = {name: value for name, value in changed.items() if value is not ...}
    if "record_sha256" not in fields:
        kept["record_sha256"] = engine_file._record_sha256(kept)
    sidecar.write_text(json.dumps(kept), "utf-8")


def test_the_engine_is_the_plain_plan_and_the_rest_lies_beside_it(written: Path) -> None:
    assert written.read_bytes() == PLAN
    assert sorted(path.name for path in written.parent.iterdir()) == [
        "model.engine",
        "model.engine.json",
    ]
    fields = json.loads((written.parent / "model.engine.json").read_text("utf-8"))
    assert fields["format"] == 2
    assert fields["status"] == "verified"
    assert fields["profile"] == {"min": 1, "opt": 8, "max": 32}
    assert fields["spec"]["labels"] == ["ant", "bee", "cat"]
    assert fields["report"] == REPORT


def texts() -> st.SearchStrategy[str]:
    return st.text(min_size=1, max_size=20)


@st.composite
def records(draw: st.DrawFn) -> EngineRecord:
    spec = preset_spec(draw(st.sampled_from(PRESET_NAMES)), num_classes=draw(st.integers(1, 5)))
    on_gpu = draw(st.booleans())
    lrn: EngineLrn = draw(st.sampled_from(get_args(EngineLrn)))
    least, usual, most = sorted(draw(st.tuples(*[st.integers(1, 4096)] * 3)))
    levels = get_args(HardwareCompatibility)
    layers = st.lists(st.sampled_from(list(spec.layer_shapes())), min_size=1, unique=True)
    checks = st.lists(st.builds(Check, passed=st.booleans()), max_size=3).map(tuple)
    reports = st.builds(Report, checks=checks, num_photographs=st.integers(0, 10**6))
    plain = reports.map(lambda report: json.loads(json.dumps(report.to_dict())))
    return EngineRecord(
        runtime="tensorrt" if on_gpu else "tensorrt-rtx",
        runtime_version=draw(st.from_regex(r"[0-9]{1,3}(\.[0-9]{1,3}){0,3}", fullmatch=True)),
        cuda_version=f"{draw(st.integers(0, 99))}.{draw(st.integers(0, 99))}" if on_gpu else None,
        gpu_name=draw(texts()) if on_gpu else None,
        compute_capabilities=tuple(draw(st.lists(texts(), min_size=int(on_gpu), max_size=3))),
        profile=BatchProfile(min=least, opt=usual, max=most),
        precision=draw(st.sampled_from(["fp32", "fp16", "bf16", "int8"])),
        outputs=tuple(draw(layers)),
        lrn=lrn,
        plugin_sha256="a" * 64 if lrn in ("plugin", "unknown") else None,
        spec=spec,
        identity=draw(st.from_regex("[0-9a-f]{64}", fullmatch=True)),
        checkpoint=draw(st.from_regex("[0-9a-f]{64}", fullmatch=True)),
        report=draw(st.none() | plain),
        version_compatible=on_gpu and draw(st.booleans()),
        hardware_compatibility=draw(st.sampled_from(levels)) if on_gpu else "none",
    )


@given(record=records(), plan=st.binary(max_size=200))
@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_what_is_written_is_read(
    record: EngineRecord, plan: bytes, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("engine") / "e.engine"
    write_engine(EngineFile(record=record, plan=plan), path)
    file = read_engine(path)
    assert file.record == record
    assert file.plan == plan
    assert file.source == str(path)


def test_an_engine_that_was_never_verified_says_so(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    write_engine(EngineFile(record=PORTABLE, plan=PLAN), path)
    assert read_engine(path).record.status == NOT_VERIFIED == "built, not verified here"
    assert f'"status": "{NOT_VERIFIED}"' in sidecar_path(path).read_text("utf-8")


@pytest.mark.parametrize("place", [0, 5000, len(PLAN) - 1])
def test_an_engine_with_one_flipped_bit_is_refused(written: Path, place: int) -> None:
    plan = bytearray(PLAN)
    plan[place] ^= 1
    written.write_bytes(plan)
    with pytest.raises(IncompatibleFileError, match=r"the plan is damaged or.*--trt -o .*engine$"):
        read_engine(written)


def test_the_sidecar_of_another_engine_is_refused(written: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.engine"
    write_engine(EngineFile(record=RECORD, plan=PLAN + b"."), other)
    sidecar_path(other).replace(sidecar_path(written))
    with pytest.raises(IncompatibleFileError, match="sidecar is another engine's"):
        read_engine(written)


def test_an_engine_without_its_sidecar_is_refused(written: Path) -> None:
    sidecar_path(written).unlink()
    with pytest.raises(
        IncompatibleFileError,
        match=r"model\.engine\.json is not beside it.*--trt or, for TensorRT-RTX, .*--rtx",
    ):
        read_engine(written)


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"{}", b"\xff\xfe", b'"format"'])
def test_a_sidecar_that_is_no_json_of_ours_is_refused(written: Path, content: bytes) -> None:
    sidecar_path(written).write_bytes(content)
    with pytest.raises(
        IncompatibleFileError,
        match=r"model\.engine\.json: damaged.*--trt or, for TensorRT-RTX, .*--rtx$",
    ):
        read_engine(written)


def test_a_sidecar_of_another_format_is_refused(written: Path) -> None:
    change(written, format=3)
    with pytest.raises(IncompatibleFileError, match=r"format is 3, this version of .* reads 2"):
        read_engine(written)


def test_one_of_tensorrt_rtx_is_built_again_with_it(tmp_path: Path) -> None:
    path = tmp_path / "model.engine"
    write_engine(EngineFile(record=PORTABLE, plan=PLAN), path)
    change(path, precision="fp8")
    with pytest.raises(IncompatibleFileError, match=r"damaged .*export CKPT --rtx$"):
        read_engine(path)


def reversed_labels(fields: dict[str, Any]) -> None:
    fields["spec"]["labels"].reverse()


def another_filter(fields: dict[str, Any]) -> None:
    preprocessing = fields["spec"]["preprocessing"]
    assert preprocessing["filter"] == "bicubic"
    preprocessing["filter"] = "bilinear"


def more_photographs(fields: dict[str, Any]) -> None:
    fields["report"]["num_photographs"] = 3000


def another_identity(fields: dict[str, Any]) -> None:
    fields["identity"] = "e" * 64


@pytest.mark.parametrize(
    "edit", [reversed_labels, another_filter, more_photographs, another_identity]
)
def test_a_sidecar_that_was_edited_is_refused_though_it_could_be_one(
    written: Path, edit: Callable[[dict[str, Any]], None]
) -> None:
    sidecar = sidecar_path(written)
    fields = json.loads(sidecar.read_text("utf-8"))
    sidecar.write_text(json.dumps(fields), "utf-8")
    read_engine(written)  # spaces and lines are no edit
    edit(fields)
    sidecar.write_text(json.dumps(fields), "utf-8")
    with pytest.raises(
        IncompatibleFileError,
        match=r"damaged \(its fields do not match record_sha256.*export CKPT --trt$",
    ):
        read_engine(written)
    change(written)  # with the right hash it would be read
    read_engine(written)


@pytest.mark.parametrize(
    "field",
    [
        "record_sha256",
        *(each.name for each in dataclasses.fields(EngineRecord) if each.metadata != LATER),
    ],
)
def test_a_field_that_is_missing_is_named(written: Path, field: str) -> None:
    change(written, **{field: ...})
    with pytest.raises(IncompatibleFileError, match=f"{field}.*missing"):
        read_engine(written)


def test_a_field_that_is_unknown_is_named(written: Path) -> None:
    change(written, colour="blue")
    with pytest.raises(IncompatibleFileError, match=r"colour.*unknown"):
        read_engine(written)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("runtime", "onnxruntime"),
        ("runtime_version", 11),
        ("runtime_version", "11.x"),
        ("cuda_version", None),  # TensorRT builds on a GPU
        ("cuda_version", "13"),
        ("cuda_version", "13.x"),
        ("gpu_name", ""),
        ("compute_capabilities", []),
        ("compute_capabilities", "9.0"),
        ("profile", [1, 8, 32]),
        ("profile", {"min": 1, "opt": 8}),
        ("profile", {"min": 9, "opt": 8, "max": 32}),
        ("profile", {"min": 1, "opt": 8.5, "max": 32}),
        ("precision", "fp8"),
        ("outputs", []),
        ("outputs", ["fc7", "fc7"]),
        ("outputs", ["fc7", "fc9"]),
        ("outputs", "fc7"),
        ("lrn", "cudnn"),
        ("version_compatible", "yes"),
        ("hardware_compatibility", "turing-plus"),
        ("plugin_sha256", None),  # with lrn "plugin"
        ("plugin_sha256", "g" * 64),
        ("plan_sha256", "0" * 63),
        ("identity", None),
        ("report", {"passed": True}),
        ("report", REPORT | {"passed": "no"}),
        ("report", REPORT | {"passed": 1}),
        ("report", "passed"),
        ("report", REPORT | {"checks": [5]}),
        ("report", REPORT | {"passed": False}),  # against its checks
        ("status", NOT_VERIFIED),  # with a report
    ],
)
def test_a_value_that_cannot_be_is_named(written: Path, field: str, value: object) -> None:
    change(written, **{field: value})
    with pytest.raises(IncompatibleFileError, match=f"damaged .*{field}|its {field}: damaged"):
        read_engine(written)


def test_a_sidecar_from_before_engines_could_be_compatible_is_read(written: Path) -> None:
    fields = json.loads(sidecar_path(written).read_text("utf-8"))
    assert not {"version_compatible", "hardware_compatibility"} & fields.keys()
    record = read_engine(written).record
    assert (record.version_compatible, record.hardware_compatibility) == (False, "none")


@pytest.mark.parametrize(
    ("field", "value"),
    [("version_compatible", True), ("hardware_compatibility", "ampere-plus")],
)
def test_only_tensorrts_engines_are_compatible(field: str, value: Any) -> None:
    with pytest.raises(IncompatibleFileError, match=f"{field}.*with TensorRT-RTX"):
        dataclasses.replace(PORTABLE, **{field: value})


def test_a_plugins_hash_without_a_plugin_is_refused(written: Path) -> None:
    change(written, lrn="native")
    with pytest.raises(IncompatibleFileError, match=r"damaged .*plugin_sha256"):
        read_engine(written)


def test_a_spec_that_cannot_be_is_refused(written: Path) -> None:
    for spec in (None, {}, {"format": 2}):
        change(written, spec=spec)
        with pytest.raises(IncompatibleFileError, match=r"engine\.json.*spec"):
            read_engine(written)


def test_a_file_that_is_not_there_is_wrong_usage(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"no such file; give an \.engine file"):
        read_engine(tmp_path / "model.engine")


def test_a_place_that_cannot_be_written_shows_before_anything_is_built(tmp_path: Path) -> None:
    with (
        pytest.raises(OutputError, match="create its folder first"),
        engine_target(tmp_path / "nowhere" / "model.engine"),
    ):
        pytest.fail("the body was entered")


def test_an_engine_that_fails_leaves_the_old_pair(written: Path) -> None:
    def build_and_fail() -> None:
        with engine_target(written) as write:
            write(EngineFile(record=PORTABLE, plan=b"new"))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        build_and_fail()
    assert read_engine(written).plan == PLAN
    assert len(list(written.parent.iterdir())) == 2


def test_a_plan_never_stands_beside_the_sidecar_of_the_last_one(
    written: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Die before each rename: what is left can be read whole, or is refused for its sidecar."""
    steps = 0

    def dying(real: Callable[..., None], limit: int) -> Callable[..., None]:
        def replace(*paths: Any) -> None:
            nonlocal steps
            steps += 1
            if steps > limit:
                raise KeyboardInterrupt
            real(*paths)

        return replace

    for limit in range(2):
        steps = 0
        with monkeypatch.context() as patch:
            patch.setattr(os, "replace", dying(os.replace, limit))
            with pytest.raises(KeyboardInterrupt):
                write_engine(EngineFile(record=PORTABLE, plan=b"new"), written)
        with pytest.raises(IncompatibleFileError, match="not beside it"):
            read_engine(written)
    write_engine(EngineFile(record=PORTABLE, plan=b"new"), written)
    assert read_engine(written).plan == b"new"
