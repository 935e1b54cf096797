"""TensorRT 11 and TensorRT-RTX: the LRN kernel and plugin, the builders, the engine files."""
