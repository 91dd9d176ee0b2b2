"""SQL files, shipped as package data."""

from importlib.resources import files


def text(name: str) -> str:
    """The query in `name`.sql, with its {placeholders}."""
    return files(__name__).joinpath(f"{name}.sql").read_text()
