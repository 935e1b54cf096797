"""Benchmarks from times that are made up."""

import dataclasses
from typing import Any

from alexnet_deploy.benchmark.machine import Machine
from alexnet_deploy.benchmark.results import Benchmark, Row, Seconds
from alexnet_deploy.benchmark.settings import Setting
from alexnet_deploy.photographs.pixels import EXACT, Decode
from alexnet_deploy.runtimes.base import RunnerOptions
from alexnet_deploy.timing import Spread
from alexnet_deploy.verification.agreement import Agreement

AGREES = Agreement(
    same_class=0.99,
    logits_error_max=1e-2,
    fc7_error_max=1e-2,
    cosine_mean=0.99991,
    cosine_min=0.9994,
    is_admitted=True,
)
DIFFERS = dataclasses.replace(AGREES, is_admitted=False)


def seconds(*, decoding: float, network: float, whole: float) -> Seconds:
    """Return three equal rounds."""
    every = {"decoding": decoding, "network": network, "whole": whole, "process": whole + 1}
    return {name: [each] * 3 for name, each in every.items()}


FIRST = seconds(decoding=1, network=4, whole=6)


def row_of(
    own: Seconds, agreement: Agreement | None = None, decode: Decode = EXACT, **options: Any
) -> Row:
    usual: dict[str, Any] = {"runtime": "openvino", "device": "cpu", "precision": "fp32"}
    setting = Setting(options=RunnerOptions(**usual | options), decode=decode)
    return Row.of(setting, "what ran", 100, own, FIRST, agreement)


def bench_of(*rows: Row) -> Benchmark:
    return Benchmark(
        machine=Machine(
            system="Linux", cpu="Some", instructions=("avx2",), cores=2, gpus=(), versions={}
        ),
        model="model.safetensors",
        identity="0123",
        num_photographs=100,
        num_failed=1,
        median_size=(300, 200),
        num_rounds=3,
        writing=Spread.of([5000.0]),
        rows=rows,
    )
