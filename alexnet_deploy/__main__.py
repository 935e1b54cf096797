"""`python -m alexnet_deploy` is `alexnet-deploy`."""

from alexnet_deploy.cli import main

if __name__ == "__main__":
    main()
