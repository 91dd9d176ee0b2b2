"""Damage that the decoder itself notices, from real files to the tables."""

from fractions import Fraction

import av
import numpy as np
import pytest
import toy_models
from signals import music_like, write

from jobs import detect, maintain, scan
from udfs.decode_report import MAX_EVENTS, DecodeReport
from udfs.decoder_findings import DECODER, findings
from udfs.decoding import decode
from udfs.media import probe

RATE = 48_000


def damaged_copy(source, target, hit):
    """The file again, packet by packet; `hit(number, bytes, pts)` gives new bytes and pts, None drops the packet."""
    with av.open(str(source)) as given, av.open(str(target), "w") as made:
        stream = made.add_stream_from_template(given.streams.audio[0])
        number = 0
        for packet in given.demux(given.streams.audio[0]):
            if packet.dts is None:
                continue
            changed = hit(number, bytes(packet), packet.pts)
            number += 1
            if changed is None:
                continue
            copy = av.Packet(changed[0])
            copy.pts = copy.dts = changed[1]
            copy.time_base, copy.duration, copy.stream = packet.time_base, packet.duration, stream
            copy.is_keyframe = True
            made.mux(copy)
    return target


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Ten seconds in AAC, and what can become of them."""
    folder = tmp_path_factory.mktemp("files")
    sound = 0.4 * music_like(10.0, RATE, np.random.default_rng(0))
    whole = write(folder / "whole.mka", sound)
    frame = Fraction(1024, RATE)
    broken = damaged_copy(
        whole,
        folder / "broken.mka",
        lambda n, content, pts: (b"\xff" * len(content), pts) if n in (150, 151, 300) else (content, pts),
    )
    long = damaged_copy(
        whole,
        folder / "long.mka",
        lambda n, content, pts: (b"\xff" * len(content), pts) if 140 < n < 240 else (content, pts),
    )
    gap = damaged_copy(whole, folder / "gap.mka", lambda n, content, pts: None if 200 <= n < 247 else (content, pts))
    wav = write(folder / "whole.wav", sound)
    short = folder / "short.wav"
    short.write_bytes(wav.read_bytes()[: 44 + 7 * RATE * 2 * sound.shape[0]])
    return {"whole": whole, "broken": broken, "long": long, "gap": gap, "short": short, "frame_s": float(frame)}


def events_of(path, start_s=0.0, stop_s=np.inf):
    """(label, start, end) of the events of one span."""
    info = probe(str(path))[0]
    report = DecodeReport()
    for _ in decode(str(path), 0, start_s, stop_s, can_seek=info.can_seek, is_timed=info.is_timed, report=report):
        pass
    announced_s = max(info.duration_s, info.declared_s or 0.0) if stop_s == np.inf else None
    span = {"title_id": "t", "content_hash": "h", "track": 0, "start_s": start_s, "end_s": stop_s}
    rows = findings(span | {"announced_s": announced_s}, report)
    assert len({row["start_s"] for row in rows}) == len(rows)
    for row in rows:
        assert row["start_s"] % 1 == 0
        assert all(row["start_s"] <= event["start_s"] < row["start_s"] + 1 for event in row["events"])
        assert {label for label, score in row["scores"] if score} == {event["label"] for event in row["events"]}
    return [(event["label"], event["start_s"], event["end_s"]) for row in rows for event in row["events"]]


def test_nothing_is_said_of_a_whole_file(files):
    assert events_of(files["whole"]) == []


def test_packets_that_do_not_decode_are_where_they_would_sound(files):
    found = events_of(files["broken"])
    assert [label for label, *_ in found] == ["packet_error"] * len(found)
    assert len(found) == 2  # neighbours are one event
    assert found[0][1] == pytest.approx(150 * files["frame_s"], abs=0.05)
    assert found[0][2] - found[0][1] == pytest.approx(2 * files["frame_s"], abs=0.03)
    assert found[1][1] == pytest.approx(300 * files["frame_s"], abs=0.05)


def test_missing_packets_are_a_jump_of_the_time(files):
    [(label, start_s, end_s)] = events_of(files["gap"])
    assert label == "time_jump"
    assert start_s == pytest.approx(200 * files["frame_s"], abs=0.05)
    assert end_s - start_s == pytest.approx(47 * files["frame_s"], abs=0.05)


def test_a_file_that_was_cut_off_lacks_its_end(files):
    [(label, start_s, end_s)] = events_of(files["short"])
    assert (label, round(start_s, 2), round(end_s, 2)) == ("missing_audio", 7.0, 10.0)


def test_how_spans_are_cut_does_not_show(files):
    """Damage that crosses a border is told by both spans, each its part, as it is where nothing is cut."""
    for name in ("broken", "long", "gap", "short"):
        whole = events_of(files[name])
        for border_s in (3.0, 4.0, 5.0, 6.0):
            parts = [*events_of(files[name], 0.0, border_s), *events_of(files[name], border_s, np.inf)]
            assert parts == whole, (name, border_s)


def test_endless_damage_is_bounded():
    report = DecodeReport()
    for number in range(5 * MAX_EVENTS):
        report.note(ValueError("bad"), float(number), 0.02)
    assert report.packet_errors == 5 * MAX_EVENTS
    assert len(report.events) == MAX_EVENTS
    assert report.events[-1][1:] == [MAX_EVENTS - 1.0, 5 * MAX_EVENTS - 1 + 0.02]


@pytest.mark.slow
def test_findings_stand_beside_the_models(files, module_folder, spark, capsys):
    """From the scan to the tables, once however often the title is scored, and through detect and verification."""
    toy_models.register_level(module_folder / "code")
    toy_models.register_frames(module_folder / "code")
    where = ["--warehouse", str(module_folder / "warehouse")]

    def scanned(model):
        settings = ["--catalogue", str(files["whole"].parent), *where, "--model", f"models:/{model}@champion"]
        assert scan.main(settings) == 0

    def rows(name):
        table = spark.read.format("delta").load(str(module_folder / "warehouse" / name))
        return table.where(f"model = '{DECODER.name}'").orderBy("title_id", "start_s").collect()

    scanned("level")
    found = {(row.title_id, row.defect, round(row.start_s, 1), round(row.end_s, 1)) for row in rows("detections")}
    assert found == {
        ("broken.mka", "packet_error", 3.2, 6.4),
        ("gap.mka", "time_jump", 4.3, 5.3),
        ("long.mka", "packet_error", 3.0, 5.1),
        ("short.wav", "missing_audio", 7.0, 10.0),
    }
    assert "packet_error" in capsys.readouterr().out
    tracks = spark.read.format("delta").load(str(module_folder / "warehouse" / "tracks")).collect()
    assert all(DECODER.key in row.scored_with for row in tracks)
    before = rows("segments"), rows("detections")
    assert {row.channel_name for row in before[0]} == {"ALL"}
    scanned("frames")  # decodes all of them again
    assert (rows("segments"), rows("detections")) == before
    assert maintain.main([*where, "--check"]) == 0
    strict = module_folder / "strict.yaml"
    strict.write_text(
        "operating_points:\n  decoder/packet_error: {threshold: 0.9, min_detected_s: 0.05, window_s: 10}\n"
    )
    assert detect.main([*where, "--settings", str(strict)]) == 0
    assert {row.defect for row in rows("detections")} == {"packet_error", "time_jump", "missing_audio"}
    strict.write_text("operating_points:\n  decoder/packet_error: {threshold: 0.9, min_detected_s: 5, window_s: 10}\n")
    assert detect.main([*where, "--settings", str(strict)]) == 0
    assert {row.defect for row in rows("detections")} == {"time_jump", "missing_audio"}
