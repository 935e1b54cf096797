"""`alexnet-deploy doctor`."""

import dataclasses
import json

import click

from alexnet_deploy.console.reporting import in_options, print_result


@click.command(epilog="Example: alexnet-deploy doctor")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def doctor(as_json: bool) -> None:
    """Try every runtime on this machine and say what works.

    What does not work comes with the reason. Exit 1 when no runtime works.
    """
    from alexnet_deploy.doctor import examine
    from alexnet_deploy.files.path_text import printable

    findings = []
    for finding in examine():
        findings.append(finding)
        mark = {True: "ok", False: "no", None: "--"}[finding.works]
        if not as_json:
            print_result(f"{mark}  {finding.name:<20} {printable(in_options(finding.detail))}")
    if as_json:
        print_result(json.dumps({"findings": [dataclasses.asdict(one) for one in findings]}))
    if not any(finding.works and finding.is_runtime for finding in findings):
        raise click.exceptions.Exit(1)
