"""`python -m training`: prepare a folder, train a network, shrink it."""

from alexnet_deploy.console.signals import end_on_the_spot

if __name__ == "__main__":
    end_on_the_spot()
    from training.cli import main

    main()
