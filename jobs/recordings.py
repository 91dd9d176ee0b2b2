"""Fetches the freely licensed recordings that training and the demo use, from Debian packages.

Needs `apt-get` and `dpkg` but neither root nor an installation: packages are downloaded and
unpacked into a folder. Run `python -m jobs.recordings FOLDER [PACKAGE ...]`.
"""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

# Recordings kept for the demo catalogue (and so for testing): training never sees these packages.
DEMO_PACKAGES = (
    "hyperrogue-music",
    "asterisk-core-sounds-en-wav",
    "asterisk-core-sounds-fr-wav",
    "asterisk-moh-opsound-wav",
)
TRAINING_PACKAGES = (
    "wesnoth-1.16-music",
    "warzone2100-music",
    "nexuiz-music",
    "ufoai-music",
    "asterisk-core-sounds-es-wav",
    "asterisk-core-sounds-ru-wav",
    "hydrogen-drumkits",
    "supertuxkart-data",
)
AUDIO_SUFFIXES = {".ogg", ".opus", ".wav", ".flac", ".mp3"}


class RecordingsUnavailable(Exception):
    """The packages cannot be had here (no apt, no archive, no network)."""


def fetch(packages: tuple[str, ...], folder: Path) -> dict[str, Path]:
    """Download and unpack packages once; later calls find them in `folder`.

    Args:
        packages: Debian package names.
        folder: where `folder/PACKAGE/` is made for each.

    Returns:
        The unpacked folder of each package.

    Raises:
        RecordingsUnavailable: apt is missing or does not have a package.
    """
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        missing = [name for name in packages if not (folder / name).is_dir()]
        if missing:
            raise RecordingsUnavailable(f"apt-get and dpkg are not on this machine (wanted: {', '.join(missing)})")
    folder.mkdir(parents=True, exist_ok=True)
    for name in packages:
        if not (folder / name).is_dir():
            _fetch_one(name, folder)
    return {name: folder / name for name in packages}


def _fetch_one(name: str, folder: Path) -> None:
    work = folder / f".{name}.part"
    shutil.rmtree(work, ignore_errors=True)
    (work / "tree").mkdir(parents=True)
    download = ["apt-get", "download", name]
    result = subprocess.run(download, cwd=work, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        # A machine whose package lists were never fetched knows no package; fetch them into our own folder.
        lists = folder / ".apt"
        (lists / "partial").mkdir(parents=True, exist_ok=True)
        own = ["-o", f"Dir::State::Lists={lists}", "-o", f"Dir::Cache={lists}"]
        subprocess.run(["apt-get", *own, "update"], capture_output=True, check=False)
        result = subprocess.run(
            ["apt-get", *own, "download", name], cwd=work, capture_output=True, text=True, check=False
        )
    archives = list(work.glob("*.deb"))
    if result.returncode != 0 or not archives:
        shutil.rmtree(work, ignore_errors=True)
        reason = (result.stderr.strip().splitlines() or ["no package file came"])[-1]
        raise RecordingsUnavailable(f"apt-get download {name}: {reason}")
    subprocess.run(["dpkg", "-x", str(archives[0]), str(work / "tree")], check=True)
    for packed in (work / "tree").rglob("*.pk3"):  # games' zip files
        with zipfile.ZipFile(packed) as archive:
            for member in archive.namelist():
                if Path(member).suffix.lower() in AUDIO_SUFFIXES:
                    archive.extract(member, packed.with_suffix(".d"))
    (work / "tree").rename(folder / name)
    shutil.rmtree(work)


def audio_files(folder: Path) -> list[Path]:
    """Audio files of an unpacked package by name, in a fixed order."""
    return sorted(path for path in folder.rglob("*") if path.suffix.lower() in AUDIO_SUFFIXES and path.is_file())


def main(argv: list[str]) -> int:
    """Fetch packages into a folder: `FOLDER [PACKAGE ...]`, by default those that training uses."""
    folder, *packages = argv
    for name, path in fetch(tuple(packages) or TRAINING_PACKAGES, Path(folder)).items():
        print(f"{name}: {len(audio_files(path))} recordings in {path}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
