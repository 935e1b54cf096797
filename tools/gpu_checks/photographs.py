"""Compare a runner with the reference on photographs."""

from parity import parity, runner_layers

from alexnet_deploy.runtimes.base import Runner
from alexnet_deploy.verification.agreement import Agreement, Layers
from gpu_checks.check import Figures, require
from gpu_checks.reference import Expected

# For hundreds of photographs; an export's own verification is stricter with a few. Logits and FC7:
# the largest relative error; FC7: the lowest mean cosine; top-1: the lowest agreement.
_LARGEST_ERROR = {"fp32": 1e-4}
_MEAN_COSINE = {"fp32": 0.99999, "fp16": 0.999, "bf16": 0.999, "int8": 0.99}
_AGREEMENT = {"fp32": 0.995, "fp16": 0.995, "bf16": 0.995, "int8": 0.98}
_MANY = 200


def compared(runner: Runner, expected: Expected, precision: str, so_far: Figures) -> Figures:
    """Run a runner with parity's batch size and layers; return `so_far` with the figures of
    `judged`.

    Raises:
        Failed: as for `judged`.
    """
    return judged(runner_layers(runner, expected.crops), expected.layers, precision, so_far)


def judged(actual: Layers, expected: Layers, precision: str, so_far: Figures) -> Figures:
    """Return `so_far` with the figures of `tools/parity.py`.

    Raises:
        Failed: they miss the precision's tolerances.
    """
    count = len(expected["fc7"])
    found = Agreement.of(actual, expected, precision)
    figures: Figures = {**so_far, "photographs": count, **parity(found)}
    error = max(figures["logits_error_max"], figures["fc7_error_max"])
    allowed = _LARGEST_ERROR.get(precision)
    require(allowed is None or error <= allowed, f"{precision}: {error:.1e} off", figures)
    cosine = figures["cosine_mean"]
    require(cosine >= _MEAN_COSINE[precision], f"{precision}: mean cosine {cosine}", figures)
    # One flip among a few proves nothing: a photograph between two classes may fall to either side.
    agreement = figures["top1_agreement"]
    is_enough = count < _MANY or agreement >= _AGREEMENT[precision]
    require(is_enough, f"{precision}: top-1 agreement {agreement}", figures)
    return figures
