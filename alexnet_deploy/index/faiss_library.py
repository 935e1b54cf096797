"""FAISS, or what to install for it."""

from collections.abc import Iterator
from contextlib import contextmanager

from alexnet_deploy.errors import DeviceError, MissingPackageError
from alexnet_deploy.runtimes.onnxruntime_distributions import is_installed_for_gpu

try:
    import faiss as faiss
except (ImportError, RuntimeError) as error:
    if not isinstance(error, ModuleNotFoundError) or error.name != "faiss":
        # A build for GPUs raises a RuntimeError where a library of CUDA is missing.
        raise DeviceError(
            f"the package faiss is installed here and cannot be imported ({error}); install what "
            "it lacks, or in its place faiss-cpu, which runs everywhere"
        ) from error
    if is_installed_for_gpu():
        raise MissingPackageError("faiss-gpu", "gpu", "searching an index") from error
    raise MissingPackageError("faiss-cpu", "cpu", "searching an index") from error


@contextmanager
def threads_of_faiss(number: int) -> Iterator[None]:
    """Let FAISS compute in so many threads, within the block."""
    before = faiss.omp_get_max_threads()
    faiss.omp_set_num_threads(number)
    try:
        yield
    finally:
        faiss.omp_set_num_threads(before)
