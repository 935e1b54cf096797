"""What builds engines: the LRN kernel and plugin, TensorRT 11, TensorRT-RTX."""
