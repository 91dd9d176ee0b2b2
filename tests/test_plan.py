import itertools
import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jobs.balancing import assign_tasks, chunks
from jobs.catalogue import Title
from jobs.plan import Equal, EqualTracks, KnownTrack, cut_spans, is_unchanged, plan_title
from udfs.media import TrackInfo

TITLE = Title("t", "file:///t", "/t", 10, 1_700_000_000_123_456_789, {"language": "deu", "genre": "news"})


def info(track=0, seconds=100.0, *, content="h", can_seek=True, channels=2):
    return TrackInfo(track, "mp3", "mp3", None, 48_000, channels, "stereo", seconds, content, can_seek, True)


def known(track=0, **changes):
    row = KnownTrack(
        "t", track, "file:///t", "h", "ok", None, 10, 1_700_000_000_123_456, 100.0, 99.0, None, frozenset({"m/1"})
    )
    return replace(row, **changes)


@given(st.floats(0, 40_000), st.integers(1, 4000))
def test_spans_tile_the_track(duration_s, span_s):
    spans = cut_spans(duration_s, span_s)
    assert spans[0][0] == 0.0
    assert spans[-1][1] == math.inf
    for (_, end), (start, _) in itertools.pairwise(spans):
        assert end == start == int(start)
    assert spans[-1][0] <= duration_s


def plan(found, rows=(), models=("m/1",)):
    return plan_title(TITLE, found, list(rows), models, 60, 300)


def test_new_title_is_scored_with_all_models():
    made = plan([info(), info(1, can_seek=False)], models=("m/1", "n/2"))
    assert [track.models for track in made.tracks] == [("m/1", "n/2")] * 2
    assert [len(track.spans) for track in made.tracks] == [2, 1]
    assert made.tracks[0].row["language"] == "deu"
    assert made.tracks[0].row["columns"] == {"catalogue_language": "deu", "genre": "news"}


def test_known_content_is_left_alone_new_models_are_added():
    assert plan([info()], [known()]).tracks == []
    [track] = plan([info()], [known()], models=("m/1", "m/2")).tracks
    assert track.models == ("m/2",)


def test_a_touched_file_of_known_content_is_noted_and_not_scored():
    made = plan([info()], [known(modified_us=1, status="partial", error_code="cut_off", error="why")])
    [track] = made.tracks
    assert track.spans == []
    assert {name: track.row[name] for name in ("status", "error_code", "error", "decoded_s", "scored_with")} == {
        "status": "partial", "error_code": "cut_off", "error": "why", "decoded_s": 99.0, "scored_with": [],
    }  # fmt: skip
    assert track.row["modified_ns"] == TITLE.modified_ns


def test_changed_content_is_scored_anew():
    [track] = plan([info(content="other")], [known()]).tracks
    assert track.models == ("m/1",)


def test_tracks_that_are_gone_are_removed():
    assert plan([info()], [known(), known(1), known(None)]).gone == [("t", 1), ("t", None)]
    made = plan(("not_media", "no"), [known()])
    assert made.gone == [("t", 0)]
    assert made.tracks[0].row["status"] == "rejected"


def test_transient_failures_are_tried_again():
    row = known(error_code="timeout", status="partial")
    assert not is_unchanged(TITLE, [row], ["m/1"])
    [track] = plan([info()], [row]).tracks
    assert track.models == ("m/1",)


@pytest.mark.parametrize(
    ("change", "same"),
    [
        ({}, True),
        ({"size_bytes": 11}, False),
        ({"modified_us": 1}, False),
        ({"uri": "file:///u"}, False),
        ({"scored_with": frozenset()}, False),
        ({"track": None, "scored_with": frozenset(), "error_code": "not_media"}, True),
    ],
)
def test_unchanged_means_nothing_to_do(change, same):
    assert is_unchanged(TITLE, [known(**change)], ["m/1"]) is same
    assert not is_unchanged(TITLE, [], ["m/1"])


@given(st.lists(st.floats(1, 20_000), min_size=1, max_size=30), st.integers(1, 12))
def test_tasks_are_balanced_and_lose_nothing(lengths, tasks):
    plans = [
        plan_title(replace(TITLE, title_id=f"t{n}"), [info(seconds=seconds)], [], ("m/1",), 600, 1800)
        for n, seconds in enumerate(lengths)
    ]
    spans, weights = assign_tasks(plans, tasks)
    assert len(spans) == sum(len(track.spans) for made in plans for track in made.tracks)
    assert {span.task for span in spans} == set(range(len(weights)))
    # longest first: no task exceeds the mean by more than one span (900 s, 2 channels)
    assert max(weights) - sum(weights) / len(weights) <= 2 * 900.0 + 1e-6


def test_spans_of_an_object_stay_together():
    """Each task fetches the whole object; one that would hold up the others is shared all the same."""
    uri = "s3://bucket/{}.mkv"
    plans = [
        plan_title(replace(TITLE, title_id=str(n), uri=uri.format(n), path=uri.format(n)), [info(seconds=7200), info(1, seconds=7200)], [], ("m/1",), 600, 1800)
        for n in range(12)
    ]  # fmt: skip
    spans, weights = assign_tasks(plans, 6)
    fetched = {(span.task, span.title_id) for span in spans}
    assert len(fetched) == 12
    assert min(weights) == max(weights)
    spans, weights = assign_tasks(plans[:1], 6)
    assert {span.task for span in spans} == set(range(6))
    assert max(weights) <= 1.5 * min(weights)
    assert (
        len(
            {
                (span.task, span.title_id)
                for span in assign_tasks([replace(made, title=replace(made.title, path="/x")) for made in plans], 6)[0]
            }
        )
        > 30
    )


def test_chunks_keep_titles_whole_and_in_order():
    plans = [
        plan_title(replace(TITLE, title_id=f"t{n}"), [info(seconds=100)], [], ("m/1",), 600, 1800) for n in range(10)
    ]
    groups = list(chunks(plans, 500.0))
    assert [len(group) for group in groups] == [3, 3, 3, 1]
    assert [made for group in groups for made in group] == plans


def of_title(title_id, declared_s=None):
    return plan_title(
        replace(TITLE, title_id=title_id), [replace(info(), declared_s=declared_s)], [], ("m/1",), 60, 300
    )


def test_copies_announce_the_same():
    """Packets of 100 s each: a header that announces 200 s is no copy of one that tells the truth, and a copy of its like."""
    announced_s = {"a": 200.0, "b": None, "c": 200.0, "d": 100.0, "e": 300.0, "f": None}
    plans = [of_title(title_id, declared_s) for title_id, declared_s in announced_s.items()]
    equal = EqualTracks()
    equal.find(plans)
    assert [made.tracks[0].equal for made in plans] == [
        None, None, Equal("a", 0, is_stored=False), Equal("b", 0, is_stored=False), None, Equal("b", 0, is_stored=False),
    ]  # fmt: skip


def test_what_was_cut_short_takes_no_stored_outcome_and_gives_none():
    lying, honest = of_title("a", 200.0), of_title("b")
    equal = EqualTracks()
    equal.add(lying.tracks[0].row | {"scored_with": ["m/1"]})
    equal.find([honest])
    assert honest.tracks[0].equal is None
    equal.add(honest.tracks[0].row | {"scored_with": ["m/1"], "decoded_s": 100.0})
    equal.find([lying])
    assert lying.tracks[0].equal is None
    again = of_title("c")
    equal.find([again])
    assert again.tracks[0].equal == Equal("b", 0, is_stored=True)
    assert again.tracks[0].row["decoded_s"] == 100.0
