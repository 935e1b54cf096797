"""Run commands as a user types them."""

import subprocess
import sys
import time


def run_command(*arguments: str, exit_code: int = 0) -> tuple[list[str], float]:
    """Run `alexnet-deploy` in the current folder; return the lines that it prints, and seconds."""
    start = time.perf_counter()
    finished = subprocess.run(
        [sys.executable, "-m", "alexnet_deploy", *arguments],
        capture_output=True,
        check=False,
        text=True,
    )
    sys.stderr.write(finished.stderr)  # to the log
    said = " | ".join(finished.stderr.strip().splitlines()[-2:])
    assert finished.returncode == exit_code, (
        f"{' '.join(arguments[:3])} ended with exit code {finished.returncode}, expected "
        f"{exit_code}: {said}"
    )
    return finished.stdout.splitlines(), time.perf_counter() - start
