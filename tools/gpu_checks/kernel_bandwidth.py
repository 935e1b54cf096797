"""The LRN kernel's results, and its speed relative to memory bandwidth."""

from lrn_bandwidth import measure

from gpu_checks.check import Figures, Settings, require
from gpu_checks.torch_gpu import both_towers_on_one

SHARE = 0.8
"""Share of a copy's speed that the form run by TensorRT (fused, float16) must reach."""


def bandwidth(settings: Settings) -> Figures:
    """Return what `tools/lrn_bandwidth.py` measures.

    Raises:
        AlexNetDeployError: the kernel's results are wrong.
        Failed: it is too slow.
        Skipped: this torch is a build for the CPU.
    """
    both_towers_on_one()
    figures = measure()
    slow = [
        f"{row['layer']} {row['share_of_copy']:.0%}"
        for row in figures["rows"]
        if (row["form"], row["scalar"], row["fused"]) == ("kernel", "half", True)
        and row["share_of_copy"] < SHARE
    ]
    require(not slow, f"less than {SHARE:.0%} of a copy's speed: {', '.join(slow)}", figures)
    return figures
