"""The real TensorRT bindings without TensorRT: stub libraries, fakes of what C++ would hand out.

The wheel `tensorrt_cu13_bindings` holds NVIDIA's Python API, decorators and their checks included,
and imports nine functions from three libraries that no package index has. Over stubs that have
these nine, and do nothing, it imports; every class, method, enum and docstring in it is real.
"""
