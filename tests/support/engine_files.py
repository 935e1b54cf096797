"""The file of an engine that was built and verified, with a plan that nothing runs."""

import json

from alexnet_deploy.graph.report import Report
from alexnet_deploy.runtimes.batch_profile import BatchProfile
from alexnet_deploy.runtimes.engine_file import EngineFile, EngineRecord
from tests.support.networks import random_checkpoint

RAN = Report(checks=(), runs="TensorRT 11.4", against="f" * 64, num_photographs=40)
REPORT = json.loads(json.dumps(RAN.to_dict()))
ENGINE = EngineFile(
    record=EngineRecord(
        runtime="tensorrt",
        runtime_version="11.4.0.106",
        cuda_version="13.0",
        gpu_name="NVIDIA H200",
        compute_capabilities=("9.0",),
        profile=BatchProfile(min=1, opt=32, max=64),
        precision="fp16",
        outputs=("probabilities", "fc7"),
        lrn="plugin",
        plugin_sha256="0" * 64,
        spec=random_checkpoint("paper").spec,
        identity="f" * 64,
        checkpoint="f" * 64,
        report=REPORT,
    ),
    plan=b"the plan",
)
