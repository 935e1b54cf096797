"""Put the first two nodes of a graph in the order that TensorRT's parser accepts.

The file transposes before it casts, while a pixel is one byte. TensorRT supports only the cast on
uint8: "first input has type UInt8 but must have type Float, ..." (TensorRT-RTX 1.7.1, the same
parser).
"""

from alexnet_deploy.graph.model_file import INPUT, ModelFile


def cast_first(file: ModelFile) -> ModelFile:
    """Return `file` with the cast of its pixels before their transposition; results are identical.

    A graph that does not begin with Transpose, Cast is returned unchanged.
    """
    nodes = list(file.graph.graph.node)
    transpose, cast = nodes[:2]
    begins_so = (
        (transpose.op_type, cast.op_type) == ("Transpose", "Cast")
        and list(transpose.input) == [INPUT]
        and list(cast.input) == list(transpose.output)
        and sum(transpose.output[0] in node.input for node in nodes) == 1
    )
    if not begins_so:
        return file
    file = file.with_nodes([cast, transpose, *nodes[2:]], file.arrays)
    cast, transpose = file.graph.graph.node[:2]
    between = f"{cast.output[0]}_nhwc"
    transpose.input[0], transpose.output[0] = between, cast.output[0]
    cast.input[0], cast.output[0] = INPUT, between
    transpose.name, cast.name = transpose.output[0], cast.output[0]
    return file
