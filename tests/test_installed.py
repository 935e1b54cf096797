"""What is installed, asked of the machine that runs the tests."""

from importlib import metadata

from alexnet_deploy.installed import has_distribution, has_module, version_of


def test_what_is_installed_is_found_with_its_version() -> None:
    assert has_module("numpy")
    assert has_distribution("numpy")
    assert version_of("numpy") == metadata.version("numpy")


def test_what_is_not_installed_is_not_found() -> None:
    assert not has_module("no_such_package_of_ours")
    assert not has_distribution("no-such-package-of-ours")
    assert version_of("no-such-package-of-ours") == ""
