"""Model files with our operators, written by hand: enough of a graph for dolls to be shown."""

from typing import Any

import onnx
from onnx import TensorProto, helper

from alexnet_deploy.graph.model_file import ModelFile
from alexnet_deploy.model.spec import preset_spec

OPERATORS = ("TowerLRN", "ReluTowerLRNPool")
SPEC = preset_spec("paper", num_classes=7)
PLUGIN: dict[str, Any] = {"plugin_namespace": "alexnet", "plugin_version": "1", "aot": 1}


def plugin_node(op: str, name: str = "norm1", **changed: Any) -> onnx.NodeProto:
    """Return a node that carries what every node of ours carries; None takes an attribute away."""
    lrn: dict[str, Any] = {"size": 5, "alpha": 1e-4, "beta": 0.75, "bias": 2.0, "towers": 2}
    attributes: dict[str, Any] = lrn | PLUGIN | changed
    attributes = {key: value for key, value in attributes.items() if value is not None}
    return helper.make_node(op, [f"{name}_in"], [name], name=name, domain="alexnet", **attributes)


def plugin_model(*nodes: onnx.NodeProto) -> ModelFile:
    """Return a file of the `paper` preset that begins as ours do and then has only `nodes`."""
    graph = helper.make_graph(
        [
            helper.make_node(
                "Cast", ["images"], ["images_float"], name="images_float", to=TensorProto.FLOAT
            ),
            helper.make_node(
                "Transpose", ["images_float"], ["pixels"], name="pixels", perm=[0, 3, 1, 2]
            ),
            *nodes,
        ],
        "alexnet",
        [helper.make_tensor_value_info("images", TensorProto.UINT8, ["N", 224, 224, 3])],
        [helper.make_tensor_value_info("fc7", TensorProto.FLOAT, ["N", 4096])],
    )
    model = helper.make_model(graph, ir_version=10)
    return ModelFile(graph=model, arrays={}, spec=SPEC, origin="f" * 64, source="m.onnx")
