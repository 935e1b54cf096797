"""The program `alexnet-deploy`, which is also `python -m alexnet_deploy`."""

from alexnet_deploy.console.signals import end_on_the_spot


def main() -> None:
    """Run the command line, heeding signals from before anything else is imported."""
    end_on_the_spot()
    from alexnet_deploy.cli import main as run

    run()


if __name__ == "__main__":
    main()
