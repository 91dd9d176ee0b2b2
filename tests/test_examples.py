"""The examples in docstrings hold."""

import doctest
import importlib
import pkgutil
from pathlib import Path

import pytest

import jobs
import models
import udfs

EXAMPLES = [
    module.name
    for package in (models, udfs, jobs)
    for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}.")
    if not module.ispkg and ">>>" in Path(module.module_finder.find_spec(module.name).origin).read_text()
]


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name):
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted > 0
    assert found.failed == 0
