"""The kernel's own text on a CPU: `tower_lrn.cu` as C++ over a small stand-in for CUDA."""
