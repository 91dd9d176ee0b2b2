"""Makes files that nobody vetted: broken, lying and hostile ones, each with the row that a scan must leave of it."""

from pathlib import Path

import hostile_content
import hostile_headers
import hostile_names
from hostile_case import Case, Maker


def make(folder: Path) -> list[Case]:
    """Write all of them into a folder."""
    maker = Maker(folder)
    for step in (  # all draw from one generator: in this order
        hostile_content.nothing_in_them,
        hostile_content.cut_off,
        hostile_content.wrong_names,
        hostile_headers.lying_headers,
        hostile_content.changing_midway,
        hostile_content.damaged_packets,
        hostile_content.time_stamps,
        hostile_content.encrypted,
        hostile_headers.other_streams,
        hostile_headers.channels_and_formats,
        hostile_headers.long_silence,
        hostile_names.names,
        hostile_names.not_files,
        hostile_names.playlists,
    ):
        step(maker)
    return maker.cases
