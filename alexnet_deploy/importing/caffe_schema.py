"""The fields of Caffe's messages that say what an AlexNet is (BVLC/caffe, caffe.proto)."""

from alexnet_deploy.importing.wire_format import Kind, Schema

_SHAPE: Schema = {1: ("dim", "whole")}
BLOB: Schema = {
    1: ("num", "whole"),
    2: ("channels", "whole"),
    3: ("height", "whole"),
    4: ("width", "whole"),
    5: ("data", "float32"),
    7: ("shape", _SHAPE),
    8: ("double_data", "float64"),
    # NVIDIA's branch
    10: ("raw_data_type", ("DOUBLE", "FLOAT", "FLOAT16", "INT", "UINT")),
    12: ("raw_data", "bytes"),
}
"""Weights, biases and mean images."""

_RULE: Schema = {
    1: ("phase", ("TRAIN", "TEST")),
    4: ("stage", "text"),
    5: ("not_stage", "text"),
}
_CONVOLUTION: Schema = {
    3: ("pad", "whole"),
    4: ("kernel_size", "whole"),
    5: ("group", "whole"),
    6: ("stride", "whole"),
    9: ("pad_h", "whole"),
    10: ("pad_w", "whole"),
    11: ("kernel_h", "whole"),
    12: ("kernel_w", "whole"),
    13: ("stride_h", "whole"),
    14: ("stride_w", "whole"),
    18: ("dilation", "whole"),
}
_POOLING: Schema = {
    1: ("pool", ("MAX", "AVE", "STOCHASTIC")),
    2: ("kernel_size", "whole"),
    3: ("stride", "whole"),
    4: ("pad", "whole"),
    5: ("kernel_h", "whole"),
    6: ("kernel_w", "whole"),
    7: ("stride_h", "whole"),
    8: ("stride_w", "whole"),
    9: ("pad_h", "whole"),
    10: ("pad_w", "whole"),
    12: ("global_pooling", "whole"),
    13: ("round_mode", ("CEIL", "FLOOR")),
}
_LRN: Schema = {
    1: ("local_size", "whole"),
    2: ("alpha", "number"),
    3: ("beta", "number"),
    4: ("norm_region", ("ACROSS_CHANNELS", "WITHIN_CHANNEL")),
    5: ("k", "number"),
}
_TRANSFORM: Schema = {
    1: ("scale", "number"),
    3: ("crop_size", "whole"),
    4: ("mean_file", "text"),
    5: ("mean_value", "number"),
}
# Before there was a transform_param.
_DATA: Schema = {2: ("scale", "number"), 3: ("mean_file", "text"), 5: ("crop_size", "whole")}

# The parameters of a layer: their number in a `layer`, in a `layers` of before 2015, and what
# they hold.
_PARAMETERS: tuple[tuple[int, int, str, Kind], ...] = (
    (100, 36, "transform_param", _TRANSFORM),
    (106, 10, "convolution_param", _CONVOLUTION),
    (107, 11, "data_param", _DATA),
    (108, 12, "dropout_param", {2: ("scale_train", "whole")}),
    (115, 15, "image_data_param", _DATA),
    (117, 17, "inner_product_param", {6: ("transpose", "whole")}),
    (118, 18, "lrn_param", _LRN),
    (121, 19, "pooling_param", _POOLING),
    (123, 30, "relu_param", {1: ("negative_slope", "number")}),
    (129, 20, "window_data_param", _DATA),
)
LAYER: Schema = {
    1: ("name", "text"),
    2: ("type", "text"),
    3: ("bottom", "text"),
    4: ("top", "text"),
    7: ("blobs", BLOB),
    8: ("include", _RULE),
    9: ("exclude", _RULE),
    143: ("input_param", {1: ("shape", _SHAPE)}),
    **{new: (name, kind) for new, _, name, kind in _PARAMETERS},
}
_OLD_TYPES = (
    "NONE ACCURACY BNLL CONCAT CONVOLUTION DATA DROPOUT EUCLIDEAN_LOSS FLATTEN HDF5_DATA "
    "HDF5_OUTPUT IM2COL IMAGE_DATA INFOGAIN_LOSS INNER_PRODUCT LRN MULTINOMIAL_LOGISTIC_LOSS "
    "POOLING RELU SIGMOID SOFTMAX SOFTMAX_LOSS SPLIT TANH WINDOW_DATA ELTWISE POWER "
    "SIGMOID_CROSS_ENTROPY_LOSS HINGE_LOSS MEMORY_DATA ARGMAX THRESHOLD DUMMY_DATA SLICE MVN "
    "ABSVAL SILENCE CONTRASTIVE_LOSS EXP DECONVOLUTION"
)
OLD_LAYER: Schema = {
    1: ("layer", {1: ("name", "text"), 2: ("type", "text")}),  # the format of 2013
    2: ("bottom", "text"),
    3: ("top", "text"),
    4: ("name", "text"),
    5: ("type", tuple(_OLD_TYPES.split())),
    6: ("blobs", BLOB),
    32: ("include", _RULE),
    33: ("exclude", _RULE),
    **{old: (name, kind) for _, old, name, kind in _PARAMETERS},
}
NET: Schema = {
    1: ("name", "text"),
    2: ("layers", OLD_LAYER),
    3: ("input", "text"),
    4: ("input_dim", "whole"),
    5: ("force_backward", "whole"),
    6: ("state", {}),
    7: ("debug_info", "whole"),
    8: ("input_shape", _SHAPE),
    100: ("layer", LAYER),
}
"""A `.caffemodel`, or what a prototxt writes out."""
