"""Give a runtime a graph from before opset 7, the first that ONNX Runtime runs.

The layers of an AlexNet have not changed their meaning since, only how they are spelled.
"""

from pathlib import Path

import numpy as np
import onnx
from onnx import helper, numpy_helper

from alexnet_deploy.graph.reading import parsed_model

_FIRST_RUN = 7
_GONE = ("consumed_inputs", "is_test", "broadcast")
"""Attributes that said what became the rule."""


def runnable_bytes(path: Path, opset: int) -> bytes:
    """Return an `.onnx` file for a runtime: as it is, or its layers as opset 7 spells them.

    Args:
        path: of a file that `read_foreign_network` reads.
        opset: as that found it.

    Raises:
        IncompatibleFileError: unreadable.
    """
    if opset >= _FIRST_RUN:
        return path.read_bytes()
    model = parsed_model(path)
    for place, node in enumerate(model.graph.node):
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Reshape" and "shape" in attributes:
            shape = np.array(attributes.pop("shape").ints, np.int64)
            name = f"shape of node {place}"
            model.graph.initializer.append(numpy_helper.from_array(shape, name))
            node.input.append(name)
        kept = [attribute for name, attribute in attributes.items() if name not in _GONE]
        del node.attribute[:]
        node.attribute.extend(kept)
    del model.opset_import[:]
    model.opset_import.append(helper.make_opsetid("", _FIRST_RUN))
    # The first version in which an array need not be an input of the graph, too.
    model.ir_version = max(model.ir_version, onnx.IR_VERSION_2019_1_22)
    content: bytes = model.SerializeToString()
    return content
