"""Sessions bound to memory give what plain ones give; they never run anything elsewhere."""

import sys

import numpy as np
import pytest

from alexnet_deploy.errors import IncompatibleFileError
from alexnet_deploy.graph.build import build_model
from alexnet_deploy.graph.model_file import ModelFile
from tests.support.networks import noise, random_checkpoint

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"
RECORD = {"session.record_ep_graph_assignment_info": "1"}


@pytest.fixture(scope="module")
def paper() -> ModelFile:
    return build_model(random_checkpoint("paper"), ("norm1", "fc7"))


def test_a_bound_session_gives_bit_for_bit_what_a_plain_one_gives(paper: ModelFile) -> None:
    from alexnet_deploy.runtimes.onnxruntime_session import BoundSession, open_session

    session = open_session(paper.to_bytes(), "paper", batch_size=2)
    bound = BoundSession(session, "cpu")
    for seed in (1, 2):
        images = noise(paper.spec, 2, seed=seed)
        expected = session.run(["norm1", "fc7"], {"images": images})
        actual = bound.run(images)
        assert list(actual) == ["norm1", "fc7"]
        for name, array in zip(("norm1", "fc7"), expected, strict=True):
            np.testing.assert_array_equal(actual[name], array)


def test_arrays_of_a_bound_session_belong_to_the_caller(paper: ModelFile) -> None:
    from alexnet_deploy.runtimes.onnxruntime_session import BoundSession, open_session

    bound = BoundSession(open_session(paper.to_bytes(), "paper", batch_size=1), "cpu")
    first = bound.run(noise(paper.spec, 1, seed=1))["fc7"]
    kept = first.copy()
    assert (bound.run(noise(paper.spec, 1, seed=2))["fc7"] != kept).any()
    np.testing.assert_array_equal(first, kept)


def test_a_view_of_images_runs_as_its_copy_does(paper: ModelFile) -> None:
    from alexnet_deploy.runtimes.onnxruntime_session import BoundSession, open_session

    bound = BoundSession(open_session(paper.to_bytes(), "paper", batch_size=1), "cpu")
    mirrored = noise(paper.spec, 1)[:, :, ::-1]
    assert not mirrored.flags.c_contiguous
    actual = bound.run(mirrored)["norm1"]
    np.testing.assert_array_equal(actual, bound.run(mirrored.copy())["norm1"])


def test_a_batch_size_is_the_only_one_that_its_session_takes(paper: ModelFile) -> None:
    from alexnet_deploy.runtimes.onnxruntime_session import open_session

    session = open_session(paper.to_bytes(), "paper", batch_size=2)
    assert session.get_inputs()[0].shape == [2, 224, 224, 3]
    with pytest.raises(Exception, match=r"(?i)got.* 1 .*expected.* 2"):
        session.run(None, {"images": noise(paper.spec, 1)})


def test_every_node_is_found_where_it_runs(paper: ModelFile) -> None:
    from alexnet_deploy.runtimes.onnxruntime_session import node_placement, open_session

    placement = node_placement(open_session(paper.to_bytes(), "paper", settings=RECORD))
    assert set(placement) == {CPU}
    assert {"conv1_pre", "norm1_lrn", "pool5", "fc7_pre"} <= set(placement[CPU])


@pytest.mark.filterwarnings("ignore:Specified provider")
def test_a_provider_that_is_not_there_is_not_replaced_by_the_cpu(paper: ModelFile) -> None:
    from alexnet_deploy.runtimes.onnxruntime_session import has_provider, open_session

    if has_provider(CUDA):
        pytest.skip("this build of ONNX Runtime has CUDA")
    forbid = {"session.disable_cpu_ep_fallback": "1"}
    with pytest.raises(IncompatibleFileError, match="fallback to CPU EP"):
        open_session(paper.to_bytes(), "paper", provider=CUDA, settings=forbid)


def test_libraries_that_are_missing_are_returned_and_not_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import onnxruntime

    from alexnet_deploy.runtimes.onnxruntime_session import load_cuda_libraries

    def preload() -> None:
        sys.stdout.write(
            "Failed to load libcublasLt.so.13: libcublasLt.so.13: no such file\n"
            "Failed to load /site/nvidia/libcurand.so.10: undefined symbol\n"
            "Please follow https://onnxruntime.ai/docs/install\n"
        )

    monkeypatch.setattr(onnxruntime, "preload_dlls", preload)
    missing = load_cuda_libraries()
    assert missing == "libcublasLt.so.13: no such file; undefined symbol"
    assert capsys.readouterr().out == ""


def test_the_cpu_build_has_no_libraries_to_load(capsys: pytest.CaptureFixture[str]) -> None:
    import onnxruntime

    from alexnet_deploy.runtimes.onnxruntime_session import load_cuda_libraries

    if onnxruntime.cuda_version:
        pytest.skip("this build of ONNX Runtime has CUDA")
    assert load_cuda_libraries() == ""
    assert capsys.readouterr().out == ""
