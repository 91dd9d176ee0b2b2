import pytest
from pyspark.sql.types import DoubleType

from udfs.schemas import PROBED, SCORED, SPANS, TABLES


@pytest.mark.parametrize("schema", [*TABLES.values(), PROBED, SCORED, SPANS])
def test_every_column_has_a_comment(schema):
    assert all(field.metadata.get("comment") for field in schema)


def test_times_carry_their_unit():
    for schema in TABLES.values():
        for field in schema:
            is_share = field.name == "threshold" or field.name.startswith(("precision", "recall", "f1"))
            if isinstance(field.dataType, DoubleType) and not is_share:
                assert field.name.endswith(("_s", "_h", "_hz")), field.name


def test_imports_go_one_way():
    import ast

    from jobs.launch import PROJECT

    above = {"models": {"jobs", "udfs"}, "udfs": {"jobs"}, "jobs": set()}
    for package, forbidden in above.items():
        for path in (PROJECT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text())):
                names = (
                    [alias.name for alias in node.names] if isinstance(node, ast.Import)
                    else [node.module or ""] if isinstance(node, ast.ImportFrom) else []
                )  # fmt: skip
                assert not {name.split(".")[0] for name in names} & forbidden, path
