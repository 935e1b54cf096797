"""`export --triton`: what Triton is told is what the files are; bytes in give the local results."""

import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from alexnet_deploy import open_model
from alexnet_deploy.errors import VerificationError
from alexnet_deploy.export.triton import ServedNetwork, triton_repository
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.photographs.samples import varied_samples
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import read_engine, write_engine
from tests.support.command_line import done, refused
from tests.support.engine_files import ENGINE
from tests.support.pretended_triton import (
    PretendedTriton,
    PythonModel,
    TritonError,
    kind_of,
    read_config,
    serving,
)
from tests.support.trt_stub.machines import Machine

pytest_plugins = ["tests.support.trt_stub.fixtures", "tests.support.trt_stub.machine_fixtures"]

ROOT = Path(__file__).resolve().parents[2]
NAME = "caltech101"
NAMES = {NAME, f"{NAME}_preprocessing", f"{NAME}_ensemble"}
SPEC = load_checkpoint(bundled_checkpoint()).spec
PHOTOGRAPHS = varied_samples()[:5]
KINDS = {onnx.TensorProto.UINT8: "UINT8", onnx.TensorProto.FLOAT: "FP32"}


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("triton") / "models"
    done("export", "--no-verify", "--max-batch", "8", "--triton", path)
    return path


@pytest.fixture(scope="module")
def triton(repository: Path) -> PretendedTriton:
    return PretendedTriton(repository)


@pytest.mark.parametrize("name", [b"not-utf-8-\xff", b".", b".hidden", b"two\nlines"])
def test_a_name_that_triton_cannot_have_is_refused(tmp_path: Path, name: bytes) -> None:
    checkpoint = tmp_path / os.fsdecode(name + b".safetensors")
    checkpoint.symlink_to(bundled_checkpoint())
    error = refused(2, "export", "--no-verify", checkpoint, "--triton", tmp_path / "models")
    assert "cannot be the name of a model in Triton" in error
    assert "rename the checkpoint" in error
    assert [path.name for path in tmp_path.iterdir()] == [checkpoint.name]


def as_bytes(*photographs: bytes) -> NDArray[np.object_]:
    return np.array(photographs, object).reshape(-1, 1)


def crops(*paths: Path) -> NDArray[np.uint8]:
    return np.stack([preprocess(load_photograph(path), SPEC) for path in paths])


def test_a_repository_is_three_models_and_nothing_else(repository: Path) -> None:
    assert {path.name for path in repository.iterdir()} == NAMES
    files = {str(path.relative_to(repository)) for path in repository.rglob("*") if path.is_file()}
    assert files == {
        f"{NAME}/1/model.onnx",
        f"{NAME}/labels.txt",
        f"{NAME}_ensemble/labels.txt",
        f"{NAME}_preprocessing/1/model.py",
        *(f"{name}/config.pbtxt" for name in NAMES),
    }
    assert all((repository / name / "1").is_dir() for name in NAMES)
    assert (repository / NAME / "labels.txt").read_text().splitlines() == list(SPEC.labels)


def test_the_configuration_is_what_the_onnx_file_says_of_itself(repository: Path) -> None:
    config = read_config(repository / NAME)
    graph = onnx.load(repository / NAME / "1" / "model.onnx", load_external_data=False).graph
    for told, values in ((config.input, graph.input), (config.output, graph.output)):
        assert [tensor.name for tensor in told] == [value.name for value in values]
        for tensor, value in zip(told, values, strict=True):
            kind = value.type.tensor_type
            assert kind_of(tensor) == KINDS[kind.elem_type]
            first, *rest = kind.shape.dim
            assert first.dim_param, "Triton batches only what has a batch of any size"
            assert list(tensor.dims) == [size.dim_value for size in rest]
    assert config.max_batch_size == 8
    assert config.HasField("dynamic_batching")
    assert [warm_up.batch_size for warm_up in config.model_warmup] == [1, 8]
    for warm_up in config.model_warmup:
        assert list(warm_up.inputs["images"].dims) == [224, 224, 3]
        assert warm_up.inputs["images"].data_type == config.input[0].data_type
    (accelerator,) = config.optimization.execution_accelerators.gpu_execution_accelerator
    assert accelerator.parameters["use_tf32"] == "0"


def test_the_ensemble_joins_what_both_models_say(triton: PretendedTriton) -> None:
    ensemble = triton.configs[f"{NAME}_ensemble"]
    assert ensemble.platform == "ensemble"
    assert not ensemble.instance_group, "Triton refuses them of an ensemble"
    tensors = {tensor.name: tensor for tensor in ensemble.input}
    for step in ensemble.ensemble_scheduling.step:
        config = triton.configs[step.model_name]
        assert config.max_batch_size == ensemble.max_batch_size
        assert set(step.input_map) == {tensor.name for tensor in config.input}
        for tensor in config.input:
            made = tensors[step.input_map[tensor.name]]
            assert (made.data_type, made.dims) == (tensor.data_type, tensor.dims)
        tensors |= {step.output_map[tensor.name]: tensor for tensor in config.output}
    for tensor in ensemble.output:
        assert tensor == tensors[tensor.name]


def test_crops_are_those_of_the_package_bit_for_bit(triton: PretendedTriton) -> None:
    data = [path.read_bytes() for path in PHOTOGRAPHS]
    made = triton.infer(f"{NAME}_preprocessing", {"photograph": as_bytes(*data)})["images"]
    assert np.array_equal(made, crops(*PHOTOGRAPHS))


def test_a_photograph_that_cannot_be_read_is_an_error_of_its_request_alone(
    repository: Path,
) -> None:
    first, second, *_ = (path.read_bytes() for path in PHOTOGRAPHS)
    good, bad, mixed, last = PythonModel(repository / f"{NAME}_preprocessing").execute(
        {"photograph": as_bytes(first, second)},
        {"photograph": as_bytes(first[: len(first) // 2])},
        {"photograph": as_bytes(second, b"", b"no photograph")},
        {"photograph": as_bytes(second)},
    )
    assert np.array_equal(good.output_tensors()[0].as_numpy(), crops(*PHOTOGRAPHS[:2]))
    assert np.array_equal(last.output_tensors()[0].as_numpy(), crops(PHOTOGRAPHS[1]))
    assert bad.error().message().startswith("photograph 0: damaged or cut short")
    assert mixed.error().message().startswith("photograph 1: is empty (0 bytes)")
    assert "\nphotograph 2: not an image" in mixed.error().message()
    assert mixed.error().code() == TritonError.INVALID_ARG


def test_another_decoder_is_refused(repository: Path, tmp_path: Path) -> None:
    model = tmp_path / f"{NAME}_preprocessing"
    shutil.copytree(repository / model.name, model)
    config = (model / "config.pbtxt").read_text()
    (model / "config.pbtxt").write_text(config.replace('"pillow-13+', '"pillow-12+'))
    with pytest.raises(Exception, match=r"was exported for pillow-12\+.*decodes by pillow-13\+"):
        PythonModel(model)


def test_the_server_needs_no_extra_of_the_package() -> None:
    code = (
        "import sys, types\n"
        "sys.modules |= dict.fromkeys(['onnx', 'onnxruntime', 'openvino', 'faiss', 'google'])\n"
        "sys.modules['triton_python_backend_utils'] = types.ModuleType('utils')\n"
        "import alexnet_deploy.export.triton_preprocessing"
    )
    subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=True)


def client_example() -> str:
    page = (ROOT / "alexnet_deploy" / "README.md").read_text("utf-8")
    examples = re.findall(r"```py\n(.*?)```", page, re.DOTALL)
    (code,) = [code for code in examples if "tritonclient" in code]
    return str(code)


def test_the_client_of_the_page_gets_labels_and_vectors(repository: Path, tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    for path in PHOTOGRAPHS[:3]:
        shutil.copy(path, tmp_path / "photos" / f"{path.parent.name}.jpg")
    with serving(repository) as address:
        finished = subprocess.run(
            [
                *(sys.executable, "-W", "error", "-c"),
                client_example().replace("localhost:8001", address)
                + "\nnp.save('vectors.npy', vectors)",
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert finished.returncode == 0, finished.stderr
    paths = sorted((tmp_path / "photos").iterdir())
    with open_model(repository / NAME / "1" / "model.onnx") as model:
        results = list(model.classify(paths, top=5))
        vectors = model.embed(paths, layer="fc7").vectors
    for line, result in zip(finished.stdout.splitlines(), results, strict=True):
        assert line.split(" ")[0] == f"photos/{Path(str(result.path)).name}"
        labels = [prediction.label for prediction in result.predictions]
        assert line.split(" ", 1)[1] == ", ".join(labels)
    np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), vectors, rtol=1e-4, atol=1e-4)


def test_a_plan_says_which_tensorrt_the_container_must_have(tmp_path: Path) -> None:
    record = ENGINE.record
    profile = record.profile
    network = ServedNetwork.of(record.spec, "net", record.outputs, profile)
    with triton_repository(tmp_path / "models", network) as folder:
        write_engine(ENGINE, folder / "model.plan")
    model = tmp_path / "models" / "net"
    assert (model / "1" / "model.plan").read_bytes() == ENGINE.plan
    assert {path.name for path in (model / "1").iterdir()} == {"model.plan", "model.plan.json"}
    config = read_config(model)
    assert (config.backend, config.max_batch_size) == ("tensorrt", profile.max)
    assert config.parameters["tensorrt_version"].string_value == record.runtime_version
    assert f"# Only Triton with TensorRT {record.runtime_version}" in (
        (model / "config.pbtxt").read_text()
    )
    (group,) = config.instance_group
    assert (group.Kind.Name(group.kind), group.count) == ("KIND_GPU", 2)


@pytest.mark.usefixtures("quick")
def test_an_engine_is_built_into_the_repository_for_the_batches_that_are_asked_for(
    machine: Machine, folder: Path
) -> None:
    told = done("export", "--trt", "--max-batch", "64", "--triton", "models", "--json")
    ((_, _, profile, _),) = machine.builds
    assert profile == BatchProfile(min=1, opt=32, max=64)
    file = folder / "models" / NAME / "1" / "model.plan"
    assert json.loads(told.stdout)["file"] == str(file.relative_to(folder))
    assert read_engine(file).record.report == json.loads(told.stdout)["report"]
    for name in NAMES:
        assert read_config(folder / "models" / name).max_batch_size == 64
    assert f"clients call {NAME}_ensemble" in told.stderr
    assert "tritonserver --model-repository models" in told.stderr


@pytest.mark.usefixtures("machine", "quick", "folder")
def test_a_plan_in_a_repository_is_an_engine_as_any_other(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = f"models/{NAME}/1/model.plan"
    monkeypatch.setattr("alexnet_deploy.export.engine._obstacle", lambda engine: "as asked")
    told = done("export", "--trt", "--triton", "models")
    assert f"where it is to run: alexnet-deploy verify {plan}\n" in told.stderr
    assert f"{plan}: engine," in done("info", plan).stdout
    assert json.loads(done("verify", plan, "--json").stdout)["passed"] is True


def test_labels_are_those_of_layers_that_have_one_number_a_class(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, labels=('a "quoted"\nname', *SPEC.labels[1:]))
    network = ServedNetwork.of(spec, "net", ("logits", "conv5"), BatchProfile())
    with triton_repository(tmp_path / "models", network):
        pass
    config = read_config(tmp_path / "models" / "net")
    assert [(t.name, list(t.dims), t.label_filename) for t in config.output] == [
        ("logits", [101], "labels.txt"),
        ("conv5", list(spec.layer_shapes()["conv5"]), ""),
    ]
    labels = (tmp_path / "models" / "net" / "labels.txt").read_text().splitlines()
    assert labels == ['a "quoted" name', *spec.labels[1:]]


def test_a_network_without_a_head_gives_vectors_and_has_no_labels(tmp_path: Path) -> None:
    spec = dataclasses.replace(SPEC, num_classes=0, labels=())
    with triton_repository(
        tmp_path / "models", ServedNetwork.of(spec, "net", (), BatchProfile(opt=1, max=1))
    ):
        pass
    config = read_config(tmp_path / "models" / "net_ensemble")
    assert [(tensor.name, list(tensor.dims)) for tensor in config.output] == [("fc7", [4096])]
    assert not [*(tmp_path / "models").rglob("labels.txt")]
    warm_up = read_config(tmp_path / "models" / "net").model_warmup
    assert [sample.batch_size for sample in warm_up] == [1]


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    network = ServedNetwork.of(SPEC, NAME, (), BatchProfile())

    def fail() -> None:
        with triton_repository(tmp_path / "models", network) as folder:
            (folder / "model.onnx").write_bytes(b"")
            raise VerificationError("it differs")

    with pytest.raises(VerificationError, match="it differs"):
        fail()
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "m.onnx"], "--output: --triton names the files"),
        (["--rtx"], "--rtx: Triton runs TensorRT's engines"),
        (["--precision", "bf16"], "--precision bf16: Triton's ONNX Runtime has none"),
        (["--trt", "--version-compatible"], "--version-compatible: the container has to have"),
        (["--trt", "--min-batch", "2"], "--min-batch: Triton passes single photographs on, too"),
        (["--opt-batch", "2"], "--opt-batch: is for engines"),
        (["--layer", "conv9"], "conv9"),
        ([], "is there already, expected a new or an empty folder"),
    ],
)
def test_what_triton_cannot_serve_is_refused(
    tmp_path: Path, arguments: list[str], said: str
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "theirs").write_text("foreign")
    assert said in refused(2, "export", "--triton", tmp_path / "models", *arguments)
    assert [path.name for path in tmp_path.rglob("*")] == ["models", "theirs"]
    assert (tmp_path / "models" / "theirs").read_text() == "foreign"
