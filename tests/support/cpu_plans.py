"""Engines for the tests: the plan is an ONNX file, and ONNX Runtime runs it on the CPU.

Our operators are in the file with the local functions that stand behind them.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.runtimes.base import RunnerOptions, check_images
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import EngineFile, EngineRecord, EngineRuntime
from tests.support.plain_session import plain_session

GPU_NAME, CAPABILITY = "NVIDIA Fake 100", "9.0"  # of trt_stub.fake_driver


def built(
    model: ModelFile, profile: BatchProfile, runtime: EngineRuntime = "tensorrt", **changed: Any
) -> EngineFile:
    """Return `model` as an engine of `runtime`, with fields of its record changed."""
    has_plugins = any(node.domain == "alexnet" for node in model.graph.graph.node)
    on_gpu = runtime == "tensorrt"
    record = EngineRecord(
        runtime=runtime,
        runtime_version="11.4.0.106" if on_gpu else "1.7.1.116",
        cuda_version="13.0" if on_gpu else None,
        gpu_name=GPU_NAME if on_gpu else None,
        compute_capabilities=(CAPABILITY,) if on_gpu else (),
        profile=profile,
        precision=model.precision,
        outputs=model.outputs(),
        lrn="plugin" if has_plugins else "native" if model.spec.lrn else "none",
        plugin_sha256="0" * 64 if has_plugins else None,
        spec=model.spec,
        identity=model.identity,
        checkpoint=model.checkpoint_identity,
    )
    return EngineFile(record=dataclasses.replace(record, **changed), plan=model.to_bytes())


class CpuPlan:
    """Stands for `TensorRtRunner`."""

    def __init__(self, file: EngineFile, options: RunnerOptions) -> None:
        record = file.record
        assert set(options.outputs) <= set(record.outputs)
        if not options.exact_batch:
            batch = record.profile.nearest(options.batch_size)
            options = dataclasses.replace(options, batch_size=batch)
        assert record.profile.min <= options.batch_size <= record.profile.max
        self.spec, self.identity = record.spec, record.identity
        self.options = dataclasses.replace(
            options, runtime=record.runtime, device="cuda", precision=record.precision
        )
        self.description = f"{record.runtime} on {GPU_NAME}, {record.precision}"
        self._session = plain_session(file.plan)

    def run(self, images: NDArray[np.uint8]) -> Mapping[str, NDArray[np.float32]]:
        check_images(images, self.spec, self.options.batch_size)
        names = list(self.options.outputs)
        return dict(zip(names, self._session.run(names, {"images": images}), strict=True))

    def close(self) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()
