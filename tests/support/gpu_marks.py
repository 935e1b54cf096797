"""Whether a test marked `gpu` can run here."""

from alexnet_deploy import installed
from alexnet_deploy.runtimes.gpu_driver import gpus


def why_skipped(library: str, number: int = 1) -> str:
    """Return what a test lacks that runs `library` on so many GPUs; "" if it can run.

    A library for GPUs that then finds none, or does not load, is a fault for the test to show.
    """
    found = len(gpus())
    if found < number:
        return f"needs {number} NVIDIA GPU{'s' * (number > 1)}, and here are {found}"
    if not installed.has_module(library):
        return f"needs {library}, which is not installed here"
    return "" if _uses_gpus(library) else f"the installed {library} is a build for the CPU"


def _uses_gpus(library: str) -> bool:
    """Ask the library itself, which is imported for that where there is a GPU only."""
    if library == "torch":
        import torch

        return torch.version.cuda is not None
    if library == "onnxruntime":
        from alexnet_deploy.runtimes.onnxruntime_session import CUDA, has_provider

        return has_provider(CUDA)
    if library == "faiss":
        import faiss

        return hasattr(faiss, "StandardGpuResources")
    return True
