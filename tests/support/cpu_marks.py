"""Parameters of tests that need instructions which a CPU may lack."""

import pytest

from alexnet_deploy.runtimes.processor import saturates_int8

EXACT_INT8 = (
    pytest.param(
        "openvino",
        marks=pytest.mark.skipif(
            saturates_int8(),
            reason="OpenVINO's sums of 8-bit products saturate on this CPU, which has no VNNI",
        ),
    ),
    "onnxruntime",
)
"""The runtimes whose int8 is exact."""
