"""Run one check in this process and write its result: `python -m gpu_checks.child TASK`.

TASK is JSON: "function", "arguments", "settings", "limit_s" and "answer", the file to write.
"""

import faulthandler
import importlib
import json
import os
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alexnet_deploy.errors import MissingPackageError
from gpu_checks.check import Failed, Settings, Skipped
from gpu_checks.report import to_plain

# Optional modules. If any other is missing, the checkout is at fault.
OPTIONAL = (
    *("cuda", "cupy", "faiss", "hypothesis", "matplotlib", "nvidia", "onnx", "onnxruntime"),
    *("pytest", "tensorrt", "tensorrt_rtx", "torch"),
)


def outcome(function: str, settings: Settings, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Run a check; return its "status", "reason" and "figures".

    Args:
        function: "module:function".
        settings: for the check.
        arguments: for the check.
    """
    figures: Mapping[str, Any] = {}
    try:
        module, name = function.split(":")
        figures = getattr(importlib.import_module(module), name)(settings, **arguments)
    except (Failed, Skipped) as error:
        status = "skipped" if isinstance(error, Skipped) else "failed"
        return {"status": status, "reason": str(error), "figures": to_plain(error.figures)}
    except Exception as error:
        missing = _missing(error)
        if not missing:
            traceback.print_exc()
        reason = missing or f"{type(error).__name__}: {error}"
        return {"status": "skipped" if missing else "failed", "reason": reason, "figures": {}}
    return {"status": "passed", "reason": "", "figures": to_plain(figures)}


def _missing(error: Exception) -> str:
    """Return the requirement that a check lacks on this machine, "" if it simply failed."""
    if isinstance(error, ModuleNotFoundError):
        package = (error.name or "").split(".")[0]
        return f"needs {package}, which is not installed here" if package in OPTIONAL else ""
    if isinstance(error, MissingPackageError):
        # An installed package that cannot be loaded is a failure, not silently skipped.
        cause = error.__cause__
        broken = isinstance(cause, ImportError) and not isinstance(cause, ModuleNotFoundError)
        return "" if broken else str(error)
    return ""


def main() -> None:
    """Run the task given on the command line."""
    task = json.loads(sys.argv[1])
    # So that the log shows where a check hangs.
    faulthandler.dump_traceback_later(max(0.5, task["limit_s"] - 2))
    photographs = task["settings"]["photographs"]
    settings = Settings(
        scratch=Path(task["settings"]["scratch"]),
        photographs=None if photographs is None else Path(photographs),
    )
    result = outcome(task["function"], settings, task["arguments"])
    answer = Path(task["answer"])
    part = answer.with_suffix(".part")
    part.write_text(json.dumps(result), "utf-8")
    os.replace(part, answer)
    faulthandler.cancel_dump_traceback_later()


if __name__ == "__main__":
    main()
