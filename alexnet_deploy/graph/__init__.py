"""The `.onnx` file: built from the weights, lowered, cast, quantised, read and written."""
