"""Engine builders for TensorRT 11 and TensorRT-RTX, and the LRN kernel and plugin."""
