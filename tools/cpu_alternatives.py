"""Time other forms of the network on each CPU runtime, in turns, in one process.

    python tools/cpu_alternatives.py [--batch-size 1 32] [--rounds 15] [--int8 TRAIN TEST]
    python tools/cpu_alternatives.py --nodes "split towers" [--int8 TRAIN TEST]

Prints a line for each runtime, batch size and form: its images per second of processor time, and
how many times those of the form in use, the median of the rounds' ratios with its quartiles. The
choices in `alexnet_deploy/graph/lowering.py` and `unsigned_int8.py` are based on this. `--int8`
takes the forms of the int8 file, calibrated on 200 photographs of TRAIN, and compares FC7 with that
of fp32 on 200 of TEST. `--nodes` prints what OpenVINO makes of a form: of each node the share of
the time, the kernel and its precision, and the layout.
"""

import argparse
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

import alexnet_deploy.runtimes.onnxruntime_session  # first, as the next: it disables telemetry
import alexnet_deploy.runtimes.openvino_runner  # noqa: F401
from alexnet_deploy.export.onnx import build_file
from alexnet_deploy.graph.lowering import banded_convolution, split_towers
from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.graph.unsigned_int8 import unsigned_activations
from alexnet_deploy.model.checkpoints import load_checkpoint
from alexnet_deploy.model.default import bundled_checkpoint
from alexnet_deploy.photographs.decoding import load_photograph
from alexnet_deploy.photographs.finding import find_photographs
from alexnet_deploy.photographs.preprocessing import preprocess
from alexnet_deploy.timing import Spread, in_turns, seconds_of
from alexnet_deploy.verification.comparison import cosine_similarity

import onnxruntime  # isort: skip
import openvino  # isort: skip

Images = NDArray[np.uint8]
PHOTOGRAPHS = 200
USED = {
    ("OpenVINO", "fp32"): "split towers",
    ("ONNX Runtime", "fp32"): "banded",
    ("OpenVINO", "int8"): "unsigned",
    ("ONNX Runtime", "int8"): "signed",
}


def changed(node: onnx.NodeProto, inputs: list[str], output: str, **changes: Any) -> onnx.NodeProto:
    """Return a copy of a node with other inputs, another output and other attributes."""
    kept = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return helper.make_node(node.op_type, inputs, [output], name=output, **kept | changes)


def groups_of(node: onnx.NodeProto) -> int:
    """Return the number of a convolution's groups; 1 of any other node."""
    return next((a.i for a in node.attribute if a.name == "group"), 1)


def one_convolution_per_group(file: ModelFile) -> ModelFile:
    """Split each grouped convolution into plain ones."""
    nodes: list[onnx.NodeProto] = []
    arrays = dict(file.arrays)
    for node in file.graph.graph.node:
        groups, output = groups_of(node), node.output[0]
        if groups == 1:
            nodes.append(node)
            continue
        parts = [f"{output}_{index}" for index in range(groups)]
        inputs = [f"{part}_input" for part in parts]
        nodes.append(helper.make_node("Split", [node.input[0]], inputs, axis=1, num_outputs=groups))
        for index, part in enumerate(parts):
            names = [f"{name}_{index}" for name in node.input[1:]]
            for name, own in zip(node.input[1:], names, strict=True):
                arrays[own] = np.split(arrays[name], groups)[index]
            nodes.append(changed(node, [inputs[index], *names], part, group=1))
        nodes.append(helper.make_node("Concat", parts, [output], name=output, axis=1))
    return file.with_nodes(nodes, arrays)


def merged_factors(file: ModelFile) -> ModelFile:
    """Multiply the two factors of each factored layer."""
    nodes, arrays = [], dict(file.arrays)
    first = {n.output[0]: n for n in file.graph.graph.node if n.output[0].endswith("_rank")}
    for node in file.graph.graph.node:
        if node.op_type == "Gemm" and node.input[0] in first:
            x, right = first[node.input[0]].input
            arrays[node.input[1]] = arrays[node.input[1]] @ arrays[right]
            node = changed(node, [x, *node.input[1:]], node.output[0])
        if node.output[0] not in first:
            nodes.append(node)
    return file.with_nodes(nodes, arrays)


def mean_in_bias(file: ModelFile) -> ModelFile:
    """Let conv1 read pixels; what the mean gives, borders included, is a map to subtract."""
    spec, size = file.spec, file.spec.input_size
    arrays = dict(file.arrays)
    weight = arrays["conv1.weight"] / arrays.get("std", np.float32(1))
    mean = np.broadcast_to(arrays["mean"], (1, 3, size, size)).astype(np.float32)
    top, left, bottom, right = spec.conv_padding(1)
    padded = np.pad(mean, ((0, 0), (0, 0), (top, bottom), (left, right)))
    kernel = weight.shape[-1]
    windows = np.lib.stride_tricks.sliding_window_view(padded[0], (kernel, kernel), axis=(1, 2))
    products = np.einsum("chwyx,ocyx->ohw", windows[:, ::4, ::4], weight, optimize=True)
    arrays |= {"conv1.weight": weight, "conv1_mean": products[np.newaxis].astype(np.float32)}
    nodes = []
    for node in file.graph.graph.node:
        if node.output[0] == "conv1_pre":
            nodes.append(changed(node, ["pixels", *node.input[1:]], "conv1_raw"))
            node = helper.make_node("Sub", ["conv1_raw", "conv1_mean"], ["conv1_pre"])
        if node.output[0] not in ("centred", "input"):
            nodes.append(node)
    return file.with_nodes(nodes, arrays)


def conv1_in_float(file: ModelFile) -> ModelFile:
    """Take the rounding of conv1's input and weights out."""
    nodes = []
    for node in file.graph.graph.node:
        if node.output[0] == "conv1_pre":
            node = changed(node, ["input", *node.input[1:]], "conv1_pre")
        if node.output[0] not in ("input_int8", "input_dequantized", "conv1.weight"):
            nodes.append(node)
    weight = file.weights().arrays["conv1.weight"]
    return file.with_nodes(nodes, {**file.arrays, "conv1.weight": weight})


def fp32_forms(fp32: ModelFile, fp16: ModelFile, runtime: str) -> dict[str, ModelFile]:
    """Return the forms by name; those not of LRN have it in the form that is in use."""
    used = split_towers if runtime == "OpenVINO" else banded_convolution
    return {
        "split towers": split_towers(fp32),
        "banded": banded_convolution(fp32),
        "folded, as the file": fp32,
        "a convolution for each group": used(one_convolution_per_group(fp32)),
        "factors multiplied": used(merged_factors(fp32)),
        "mean in conv1's bias": used(mean_in_bias(fp32)),
        "fp16 weights": banded_convolution(fp16),
    }


def int8_forms(int8: ModelFile) -> dict[str, ModelFile]:
    """Return the forms of an int8 file by name."""
    forms = {
        "unsigned": unsigned_activations(int8, narrow_sums=True),
        "unsigned, conv1 not by sign": unsigned_activations(int8, narrow_sums=False),
        "unsigned, conv1 in fp32": unsigned_activations(conv1_in_float(int8), narrow_sums=False),
        "signed": int8,
    }
    return {name: banded_convolution(form) for name, form in forms.items()} | {
        "signed, folded": int8
    }


def openvino_request(file: ModelFile, *, counts: bool = False) -> Any:
    """Compile for any batch, multiplying fp32 in fp32."""
    core = openvino.Core()
    model = core.read_model(file.to_bytes())
    model.reshape({"images": [-1, file.spec.input_size, file.spec.input_size, 3]})
    settings = {"INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    return core.compile_model(model, "CPU", settings | {"PERF_COUNT": counts})


def openvino_call(file: ModelFile) -> Callable[[Images], Any]:
    """Return what computes FC7 of a batch."""
    request = openvino_request(file).create_infer_request()
    return lambda images: request.infer([images], share_inputs=True)["fc7"]


def onnxruntime_call(file: ModelFile, *, is_exact: bool = False) -> Callable[[Images], Any]:
    """Return what computes FC7 of a batch; exactly as the graph says, if wanted."""
    options = onnxruntime.SessionOptions()
    # Sessions take turns; a spinning thread pool would slow the next one.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    if is_exact:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(file.to_bytes(), options, ["CPUExecutionProvider"])
    return lambda images: session.run(["fc7"], {"images": images})[0]


def print_nodes(file: ModelFile, images: Images, rounds: int) -> None:
    """Print OpenVINO's nodes of one form with their shares."""
    compiled = openvino_request(file, counts=True)
    about = {
        op.get_friendly_name(): op.get_rt_info() for op in compiled.get_runtime_model().get_ops()
    }
    request = compiled.create_infer_request()
    taken: dict[tuple[str, str], list[float]] = {}
    for _ in range(rounds):
        request.infer([images])
        for node in request.get_profiling_info():
            key = (node.node_name, node.exec_type)
            taken.setdefault(key, []).append(node.real_time.total_seconds())
    medians = {key: float(np.median(times)) for key, times in taken.items()}
    whole = sum(medians.values())
    for (name, kernel), seconds in medians.items():
        if seconds > 0 and name in about:
            layout = about[name]["outputLayouts"].value
            print(f"{seconds / whole:6.1%}  {kernel:24} {layout:8} {name}")


def compare_times(
    calls: dict[str, Callable[[Images], Any]], used: str, images: Images, rounds: int, title: str
) -> None:
    """Print the rate of each form and its ratio to the one in use."""
    timers = {
        form: partial(seconds_of, partial(call, images), clock=time.process_time)
        for form, call in calls.items()
    }
    in_turns(timers, 1)  # to warm up
    seconds = in_turns(timers, rounds)
    for form, times in seconds.items():
        ratios = Spread.of(a / b for a, b in zip(seconds[used], times, strict=True))
        rate = len(images) / Spread.of(times).median
        spread = f"{ratios.median:.2f} ({ratios.lower:.2f} to {ratios.upper:.2f})"
        print(f"{title} {form:33} {rate:6.1f}  {spread}", flush=True)


def in_batches(call: Callable[[Images], Any], crops: Images) -> NDArray[np.float32]:
    """Return FC7 of many photographs."""
    return np.concatenate([np.array(call(crops[i : i + 20])) for i in range(0, len(crops), 20)])


def print_agreement(forms: dict[str, ModelFile], fp32: ModelFile, crops: Images) -> None:
    """Print FC7's cosine with that of fp32, in OpenVINO's sums and in exact ones."""
    expected = in_batches(onnxruntime_call(fp32), crops)
    for form, file in forms.items():
        for sums, call in (
            ("OpenVINO", openvino_call(file)),
            ("exact", onnxruntime_call(file, is_exact=True)),
        ):
            actual = in_batches(call, crops)
            cosines = list(map(cosine_similarity, actual, expected))
            print(f"{form:33} {sums:8} FC7 {np.mean(cosines):.5f} ({min(cosines):.5f})", flush=True)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--batch-size", type=int, nargs="+", default=[32])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--int8", type=Path, nargs=2, metavar=("TRAIN", "TEST"))
    parser.add_argument("--nodes", metavar="FORM")
    arguments = parser.parse_args()
    checkpoint = load_checkpoint(bundled_checkpoint())
    fp32 = build_file(checkpoint, ("fc7",), "fp32")
    size = fp32.spec.input_size
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (max(arguments.batch_size), size, size, 3), np.uint8)
    precision = "int8" if arguments.int8 else "fp32"
    if arguments.int8:
        train, test = (evenly(folder) for folder in arguments.int8)
        int8 = int8_forms(build_file(checkpoint, ("fc7",), "int8", train))
        crops = np.stack([preprocess(load_photograph(path), fp32.spec) for path in test])
        images = np.resize(crops, images.shape)
    else:
        fp16 = build_file(checkpoint, ("fc7",), "fp16")
    for runtime, make in (("OpenVINO", openvino_call), ("ONNX Runtime", onnxruntime_call)):
        forms = int8 if arguments.int8 else fp32_forms(fp32, fp16, runtime)
        if arguments.nodes:
            print_nodes(forms[arguments.nodes], images, arguments.rounds)
            return
        calls = {form: make(file) for form, file in forms.items()}
        for count in arguments.batch_size:
            title = f"{runtime:12} {count:2}"
            used = USED[runtime, precision]
            compare_times(calls, used, images[:count], arguments.rounds, title)
    if arguments.int8:
        print_agreement(int8, fp32, crops)


def evenly(folder: Path) -> list[Path]:
    """Return the photographs to use of a folder."""
    found = list(find_photographs([folder]))
    return [found[i * len(found) // PHOTOGRAPHS] for i in range(PHOTOGRAPHS)]


if __name__ == "__main__":
    main()
