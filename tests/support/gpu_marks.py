"""Whether a test marked `gpu` can run here."""

from alexnet_deploy.runtimes.gpu_driver import gpus


def why_skipped(library: str, number: int = 1) -> str:
    """Return what a test lacks that runs `library` on so many GPUs; "" if it can run."""
    found = len(gpus())
    if found < number:
        return f"needs {number} NVIDIA GPU{'s' * (number > 1)}, and here are {found}"
    return "" if _uses_gpus(library) else f"the installed {library} is a build for the CPU"


def _uses_gpus(library: str) -> bool:
    """Ask the library itself, which is imported for that where there is a GPU only."""
    if library == "torch":
        import torch

        return bool(torch.cuda.is_available())
    if library == "onnxruntime":
        from alexnet_deploy.runtimes.onnxruntime_session import CUDA, has_provider

        return has_provider(CUDA)
    return True
