"""Plain ONNX Runtime on the CPU, as anyone would open a file with it."""

from typing import Any


def plain_session(model: bytes) -> Any:
    """Return an `onnxruntime.InferenceSession` of the bytes of an ONNX file."""
    import onnxruntime

    return onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
