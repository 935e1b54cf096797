"""`python -m training`: prepare a folder, train a network, shrink it."""

from training.cli import main

if __name__ == "__main__":
    main()
