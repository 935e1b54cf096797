"""`python -m training`: prepare a folder, train a network, shrink it."""

import sys

if __name__ == "__main__":
    try:
        from training.cli import main
    except KeyboardInterrupt:  # once it is loaded, the command line sees to it
        sys.stderr.write("interrupted\n")
        sys.exit(130)
    main()
