"""`alexnet-deploy pull`."""

import json

import click

from alexnet_deploy.console.reporting import bytes_shown, print_result, say
from alexnet_deploy.files.path_text import printable


@click.command(epilog="Example: alexnet-deploy pull torchvision")
@click.argument("name")
@click.option(
    "--from",
    "source",
    metavar="FILE|URL",
    help="Take it from here: a file as it was published, a folder with it, or an address.  "
    "[default: this disk, else $ALEXNET_MIRROR, else its publisher]",
)
@click.option("--offline", is_flag=True, help="Open no connection; so does HF_HUB_OFFLINE=1.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def pull(name: str, source: str | None, offline: bool, as_json: bool) -> None:
    """Get a public AlexNet, so that every command knows it by its name.

    `alexnet-deploy models` lists the names. A file in the cache of torch or of the Hugging Face
    hub is used where it is; what is downloaded is continued where it broke off, and used only if
    its hash is the published one.
    """
    from alexnet_deploy.weights.names import named_network
    from alexnet_deploy.weights.pull import Reporting
    from alexnet_deploy.weights.pull import pull as pull_network

    network = named_network(name)
    with bytes_shown() as on_bytes:
        reporting = Reporting(notify=say, on_bytes=on_bytes)
        pulled = pull_network(network, source=source, offline=offline, reporting=reporting)
    if as_json:
        fields = {"path": str(pulled.path), "identity": pulled.identity, "source": pulled.source}
        print_result(json.dumps({"name": name} | fields))
        return
    how = "was here already" if pulled.source is None else f"from {printable(pulled.source)}"
    print_result(f"{name}: {printable(pulled.path)}, {how}; licence: {network.licence}")
