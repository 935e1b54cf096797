"""The console script, which `python -m alexnet_deploy` is, too."""

import sys


def main() -> None:
    """Run the command line; while it is loaded, Ctrl-C has the usual end already."""
    try:
        from alexnet_deploy.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    run()


if __name__ == "__main__":
    main()
