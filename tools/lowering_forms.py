"""Time the three forms of LRN on each CPU runtime, in turns, in one process.

    python tools/lowering_forms.py [--batch-size 32] [--rounds 15] [--precision fp32]

Prints images per second of the whole network and the ratio to the folded form in the same round,
both medians over the rounds. The choice in `alexnet_deploy/graph/lowering.py` is based on this.
"""

import argparse
import functools
import statistics
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from alexnet_deploy.choices import FILE_PRECISIONS
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.graph.lowering import banded_convolution, split_towers
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.timing import in_turns, median_ratio, seconds_of

FORMS: dict[str, Callable[[ModelFile], ModelFile]] = {
    "folded": lambda file: file,
    "split towers": split_towers,
    "banded": banded_convolution,
}


def openvino_call(file: ModelFile, images: NDArray[np.uint8]) -> Callable[[], object]:
    """Compile for a fixed batch in fp32 and return one inference as a function."""
    import alexnet_deploy.runtimes.openvino_runner  # noqa: F401 - first: it disables telemetry

    import openvino  # isort: skip

    core = openvino.Core()
    model = core.read_model(file.to_bytes())
    model.reshape({"images": list(images.shape)})
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    request = core.compile_model(model, "CPU", settings).create_infer_request()
    return lambda: request.infer([images], share_inputs=True)


def onnxruntime_call(file: ModelFile, images: NDArray[np.uint8]) -> Callable[[], object]:
    """Open a session and return one inference as a function."""
    import alexnet_deploy.runtimes.onnxruntime_runner  # noqa: F401 - first, as above

    import onnxruntime  # isort: skip

    options = onnxruntime.SessionOptions()
    # Sessions take turns; a spinning thread pool would slow the next one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = onnxruntime.InferenceSession(file.to_bytes(), options, ["CPUExecutionProvider"])
    return lambda: session.run(None, {"images": images})


def main() -> None:
    """Measure and print the rates."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--precision", choices=FILE_PRECISIONS, default="fp32")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(bundled_checkpoint())
    file = build_file(checkpoint, ("probabilities", "fc7"), arguments.precision)
    size = file.spec.input_size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (arguments.batch_size, size, size, 3), np.uint8)
    for runtime, make in (("OpenVINO", openvino_call), ("ONNX Runtime", onnxruntime_call)):
        calls = {form: make(lower(file), images) for form, lower in FORMS.items()}
        timers = {form: functools.partial(seconds_of, call) for form, call in calls.items()}
        in_turns(timers, 1)  # to warm up
        seconds = in_turns(timers, arguments.rounds)
        for form, times in seconds.items():
            rate = len(images) / statistics.median(times)
            ratio = median_ratio(seconds["folded"], times)
            print(f"{runtime:<13} {form:<13} {rate:6.1f} images/s   {ratio:.2f} x folded")


if __name__ == "__main__":
    main()
