"""`alexnet-deploy models`."""

import json

import click

from alexnet_deploy.console.reporting import print_result


@click.command(epilog="Example: alexnet-deploy models")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def models(as_json: bool) -> None:
    """List the public AlexNets: their names, sizes, accuracy and licences, and which are here.

    Accuracy is top-1 and top-5 on ImageNet's validation set in per cent, as its publisher states
    it.
    """
    from alexnet_deploy.files.path_text import printable
    from alexnet_deploy.importing.known import known_networks
    from alexnet_deploy.weights.places import files_on_disk
    from alexnet_deploy.weights.store import stored_path

    rows = []
    for network in known_networks().values():
        path = stored_path(network.name)
        size = network.files[0].size
        copy = next((one for file in network.files for one in files_on_disk(file)), None)
        names = ("name", "title", "page", "preset", "licence", "top1", "top5", "measured")
        places = {"path": path and str(path), "file": copy and str(copy)}
        rows.append(
            {name: getattr(network, name) for name in names} | {"size_bytes": size} | places
        )
        if not as_json:
            where = "here" if path else f"at {printable(copy)}" if copy else "not here"
            print_result(
                f"{network.name:<12} {size / 1e6:6.1f} MB  {network.top1:5.2f} / "
                f"{network.top5:5.2f} %  {where}\n{'':12} {network.title}; "
                f"licence: {network.licence}"
            )
    if as_json:
        print_result(json.dumps({"models": rows}))
