"""The `.onnx` file: built from the weights, lowered, cast, quantized, read and written."""
