"""Collecting the tests stays light: a runtime is loaded by the test that runs it."""


def test_collecting_the_tests_loads_no_runtime(loaded_by_collecting: list[str]) -> None:
    """Of all tests where all are run, as with `make test`."""
    assert loaded_by_collecting == []
