"""The words that arguments and options take: as types, and as tuples in the order of the help.

Only `typing` is imported, so the command line can list them and still start fast.
"""

from typing import Literal, NamedTuple, get_args

Runtime = Literal["auto", "openvino", "onnxruntime", "tensorrt", "tensorrt-rtx"]
Device = Literal["auto", "cpu", "cuda"]
FilePrecision = Literal["fp32", "fp16", "bf16", "int8"]
Precision = Literal["auto", FilePrecision]
Metric = Literal["cosine", "l2"]
Ann = Literal["auto", "exact", "compressed"]
Scale = Literal["exact", "scaled", "gpu"]
Colour = Literal["srgb", "ignored"]
Relu = Literal["before", "after", "none"]
Pool = Literal["none", "mean", "max"]
StoredType = Literal["float32", "float16"]

RUNTIMES: tuple[Runtime, ...] = get_args(Runtime)
DEVICES: tuple[Device, ...] = get_args(Device)
FILE_PRECISIONS: tuple[FilePrecision, ...] = get_args(FilePrecision)
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
METRICS: tuple[Metric, ...] = get_args(Metric)
ANNS: tuple[Ann, ...] = get_args(Ann)
CODE_BITS = (64, 128, 256, 512)
"""Of a binary code."""
SCALES: tuple[Scale, ...] = get_args(Scale)
COLOURS: tuple[Colour, ...] = get_args(Colour)
POOLS: tuple[Pool, ...] = get_args(Pool)
STORED_TYPES: tuple[StoredType, ...] = get_args(StoredType)

ALL_LAYERS = "all"
"""Every layer of the network, in forward order."""


class Layer(NamedTuple):
    """One layer by its names; those of the other programs are accepted wherever ours is.

    Attributes:
        name: ours, in files, results and tensors.
        relu: whether its activations are those before or after a ReLU; "none" beyond the last.
        torchvision: modules of torchvision's `alexnet` whose output it is.
        caffe: layers of Caffe's models after which its blob holds it, at the end of a pass.
    """

    name: str
    relu: Relu
    torchvision: tuple[str, ...] = ()
    caffe: tuple[str, ...] = ()


# A dropout changes nothing at inference. Caffe's ReLUs and dropouts work in place: the blob of
# conv1 is that of relu1, and before ReLU there is none.
LAYERS = (
    Layer("conv1_pre", "before", ("features.0",)),
    Layer("conv1", "after", ("features.1",), ("conv1", "relu1")),
    Layer("norm1", "after", (), ("norm1",)),
    Layer("pool1", "after", ("features.2",), ("pool1",)),
    Layer("conv2_pre", "before", ("features.3",)),
    Layer("conv2", "after", ("features.4",), ("conv2", "relu2")),
    Layer("norm2", "after", (), ("norm2",)),
    Layer("pool2", "after", ("features.5",), ("pool2",)),
    Layer("conv3_pre", "before", ("features.6",)),
    Layer("conv3", "after", ("features.7",), ("conv3", "relu3")),
    Layer("conv4_pre", "before", ("features.8",)),
    Layer("conv4", "after", ("features.9",), ("conv4", "relu4")),
    Layer("conv5_pre", "before", ("features.10",)),
    Layer("conv5", "after", ("features.11",), ("conv5", "relu5")),
    Layer("pool5", "after", ("features.12", "avgpool", "classifier.0"), ("pool5",)),
    Layer("fc6_pre", "before", ("classifier.1",)),
    Layer("fc6", "after", ("classifier.2", "classifier.3"), ("fc6", "relu6", "drop6")),
    Layer("fc7_pre", "before", ("classifier.4",)),
    Layer("fc7", "after", ("classifier.5",), ("fc7", "relu7", "drop7")),
    Layer("logits", "none", ("classifier.6",), ("fc8",)),
    Layer("probabilities", "none", (), ("prob",)),
)
"""The layers of a network that normalizes before it pools; others lack or exchange some."""
