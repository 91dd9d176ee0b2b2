"""Every table's schema, one constant each, with a comment and unit on every column.

Times are seconds from the title's zero; intervals are `[start_s, end_s)`.
"""

from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DoubleType,
    FloatType,
    IntegerType,
    LongType,
    MapType,
    StringType,
    StructField,
    StructType,
    TimestampType,
)


def _column(name: str, data_type: DataType, comment: str, *, nullable: bool = True) -> StructField:
    return StructField(name, data_type, nullable, {"comment": comment})


_TITLE_ID = _column("title_id", StringType(), "Title, as the catalogue names it (path below its folder by default)")
_CONTENT_HASH = _column(
    "content_hash", StringType(), "SHA-256 over the track's codec and packets: survives a new file name or container"
)
_TRACK = _column("track", IntegerType(), "Number among the title's audio tracks, from 0")
_MODEL = _column("model", StringType(), "Registered model name in MLflow; decoder for what the decoder found")
_MODEL_VERSION = _column("model_version", StringType(), "Registered model version in MLflow; of decoder, its rules")
_SCAN_ID = _column("scan_id", StringType(), "Scan that wrote the row (scans.scan_id)")
_START_S = _column("start_s", DoubleType(), "Begin, seconds from the title's zero")
_END_S = _column("end_s", DoubleType(), "End (exclusive), seconds from the title's zero")

TRACKS = StructType(
    [
        _TITLE_ID,
        _column("uri", StringType(), "Where the file was when it was last seen"),
        _CONTENT_HASH,
        _column("track", IntegerType(), "Number among the title's audio tracks, from 0; NULL where the file has none"),
        _column("codec", StringType(), "Codec of the track (FFmpeg's name)"),
        _column("container", StringType(), "Container of the file (FFmpeg's name)"),
        _column("language", StringType(), "Language tag of the track, else the catalogue's language column"),
        _column("sample_rate_hz", IntegerType(), "Samples per second and channel, Hz"),
        _column("channels", IntegerType(), "Channels of the track, count"),
        _column("channel_layout", StringType(), "Channel layout (FFmpeg's name, such as stereo or 5.1)"),
        _column("duration_s", DoubleType(), "Length of the track by its packets, seconds"),
        _column(
            "decoded_s",
            DoubleType(),
            "Audio that was decoded, seconds; below duration_s by what a codec pads, and by more where some is damaged",
        ),
        _column("status", StringType(), "ok, partial (some audio not scored) or rejected (none scored)"),
        _column("error_code", StringType(), "Why the track is partial or rejected, short code; NULL where ok"),
        _column("error", StringType(), "Why the track is partial or rejected, in words; NULL where ok"),
        _column("size_bytes", LongType(), "Size of the file when it was last seen, bytes"),
        _column("modified_at", TimestampType(), "Modification time of the file when it was last seen"),
        _column("scored_with", ArrayType(StringType()), "Models that have scored this content, as name/version"),
        _SCAN_ID,
    ]
)

SEGMENTS = StructType(
    [
        _TITLE_ID,
        _CONTENT_HASH,
        _TRACK,
        _column("channel", IntegerType(), "Index of the channel in the track, from 0; -1 for all together"),
        _column(
            "channel_name",
            StringType(),
            "Name of the channel: FL, FR, FC, LFE ...; MIX for a downmix of all, ALL for what the decoder says",
        ),
        _MODEL,
        _MODEL_VERSION,
        _START_S,
        _END_S,
        _column(
            "scores",
            MapType(StringType(), FloatType()),
            "Probability 0..1 by label; of models with several frames a segment, the largest over its frames",
        ),
        _column(
            "events",
            ArrayType(
                StructType(
                    [
                        _column("label", StringType(), "What was found"),
                        _START_S,
                        _END_S,
                        _column("scores", ArrayType(FloatType()), "Probability 0..1 of each of its frames, in order"),
                    ]
                )
            ),
            "Of models with several frames a segment: frames from the model's event_score on, neighbours in one event; all "
            "others scored less. NULL of models with one score a segment",
        ),
        _column(
            "line_up_hz",
            DoubleType(),
            "Pitch of the line-up tone that the segment holds, and nothing besides, Hz: its hits count for no detection. "
            "NULL of all others, and where no score but that of clean sound reaches 0.1",
        ),
        _SCAN_ID,
    ]
)

DETECTIONS = StructType(
    [
        _TITLE_ID,
        _CONTENT_HASH,
        _TRACK,
        _column("defect", StringType(), "Label of the model that the scores are for"),
        _START_S,
        _END_S,
        _column("detected_s", DoubleType(), "Seconds inside the stretch whose score reaches the threshold"),
        _column("peak_score", FloatType(), "Largest score in the stretch, 0..1"),
        _column("channels", ArrayType(StringType()), "Names of the channels with hits in the stretch"),
        _MODEL,
        _MODEL_VERSION,
        _column("threshold", DoubleType(), "Operating point: score from which a segment (or event) counts, 0..1"),
        _column("min_detected_s", DoubleType(), "Operating point: seconds of hits needed within the window (X)"),
        _column("window_s", DoubleType(), "Operating point: length of the rolling window, seconds (Y)"),
        _SCAN_ID,
    ]
)

_STAGES = MapType(StringType(), DoubleType())

SCANS = StructType(
    [
        _column("scan_id", StringType(), "One run of jobs/scan.py, or of jobs/detect.py, which opens no title"),
        _column("state", StringType(), "running, finished, failed, or interrupted (found dead by a later scan)"),
        _column("started_by", StringType(), "User and host that started the scan"),
        _column("started_at", TimestampType(), "Start of the scan"),
        _column("finished_at", TimestampType(), "End of the scan; NULL while it runs"),
        _column("catalogue", StringType(), "Catalogue that was scanned; 'stored scores' of a run of jobs/detect.py"),
        _column("settings", StringType(), "Settings as resolved, JSON"),
        _column(
            "models",
            ArrayType(
                StructType(
                    [
                        _column("name", StringType(), "Registered model name"),
                        _column("version", StringType(), "Version that the alias or URI stood for"),
                        _column("digest", StringType(), "SHA-256 over the model's files"),
                        _column("device", StringType(), "Device asked for"),
                    ]
                )
            ),
            "Models that were applied",
        ),
        _column("titles_done", LongType(), "Titles scored by this scan, count"),
        _column("titles_skipped", LongType(), "Titles that were done before, count"),
        _column("titles_rejected", LongType(), "Titles of which nothing could be scored, count"),
        _column("audio_done_h", DoubleType(), "Audio scored by this scan, hours (sum over tracks)"),
        _column("audio_skipped_h", DoubleType(), "Audio that was scored before, hours"),
        _column("wall_s", DoubleType(), "Time from start to end, seconds"),
        _column("audio_h_per_h", DoubleType(), "Hours of audio scored per hour of wall time"),
        _column(
            "stages_s",
            _STAGES,
            "Seconds by stage, those of tasks summed over tasks: decode, resample, model, await_audio (the model idle), "
            "plan, score, commit and others; udfs/stages.py says what each is",
        ),
    ]
)

REVIEWS = StructType(
    [
        _CONTENT_HASH,
        _column("defect", StringType(), "Label that was judged (detections.defect)"),
        _START_S,
        _END_S,
        _column("verdict", StringType(), "genuine, creative_intent, false_positive or unsure"),
        _column("cause", StringType(), "What it was, from conf/verdicts.yaml; NULL where not said"),
        _column("reviewer", StringType(), "Who judged"),
        _column("note", StringType(), "In their own words"),
        _column("reviewed_at", TimestampType(), "When; of several verdicts the latest counts"),
        _column(
            "title_id", StringType(), "Title that was listened to; the verdict holds for its content elsewhere too"
        ),
        _column("track", IntegerType(), "Number among that title's audio tracks, from 0"),
    ]
)

FINGERPRINTS = StructType(
    [
        _CONTENT_HASH,
        _START_S,
        _END_S,
        _column("from_s", DoubleType(), "Begin of what the fingerprint describes, seconds from the title's zero"),
        _column("item_s", DoubleType(), "Seconds from item to item"),
        _column("items", ArrayType(IntegerType()), "Chromaprint's items, 32 bits each"),
    ]
)

_THRESHOLD = _column("threshold", DoubleType(), "Score from which a segment counts, 0..1")
_MIN_DETECTED_S = _column("min_detected_s", DoubleType(), "Seconds of hits needed within the window (X)")
_WINDOW_S = _column("window_s", DoubleType(), "Length of the rolling window, seconds (Y)")
_VERSION = _column("version", IntegerType(), "Number of the set of operating points, from 1; rows are never changed")

OPERATING_POINTS = StructType(
    [
        _VERSION,
        _MODEL,
        _MODEL_VERSION,
        _column("defect", StringType(), "Label of the model that the point is for"),
        _THRESHOLD,
        _MIN_DETECTED_S,
        _WINDOW_S,
        _column("ignored_channels", ArrayType(StringType()), "Channels whose hits do not count, by name"),
        _column("objective", StringType(), "What was sought, such as f1 or recall_within_5_detections_per_100_h"),
        _column("labels", StringType(), "Labelled titles that it was sought on"),
        _column("titles", LongType(), "Labelled titles of which it is known whether they have the defect, count"),
        _column("defective_titles", LongType(), "Labelled titles with the defect, count"),
        _column("detections_per_100_h", DoubleType(), "Detections per 100 hours of the labelled titles' audio"),
        _column("precision", DoubleType(), "Share of detected titles that have the defect, cross-validated, 0..1"),
        _column(
            "precision_low",
            DoubleType(),
            "Lower end of its 95 % interval over titles, or groups of them: the wider of bootstrap and Wilson's",
        ),
        _column("precision_high", DoubleType(), "Upper end of its 95 % interval"),
        _column("recall", DoubleType(), "Share of titles with the defect that are detected, cross-validated, 0..1"),
        _column("recall_low", DoubleType(), "Lower end of its 95 % interval"),
        _column("recall_high", DoubleType(), "Upper end of its 95 % interval"),
        _column("f1", DoubleType(), "Harmonic mean of precision and recall, cross-validated, 0..1"),
        _column("f1_low", DoubleType(), "Lower end of its 95 % interval"),
        _column("f1_high", DoubleType(), "Upper end of its 95 % interval"),
        _column("created_by", StringType(), "User and host"),
        _column("created_at", TimestampType(), "When"),
        _column("note", StringType(), "Why, in somebody's words"),
    ]
)

OPERATING_CURVES = StructType(
    [
        _VERSION,
        _MODEL,
        _MODEL_VERSION,
        _column("defect", StringType(), "Label of the model"),
        _THRESHOLD,
        _MIN_DETECTED_S,
        _WINDOW_S,
        _column("precision", DoubleType(), "Share of detected titles that have the defect, on all labelled titles"),
        _column("recall", DoubleType(), "Share of titles with the defect that are detected, on all labelled titles"),
        _column("f1", DoubleType(), "Harmonic mean of precision and recall"),
        _column("detections_per_100_h", DoubleType(), "Detections per 100 hours of the labelled titles' audio"),
    ]
)

TABLES = {
    "tracks": TRACKS,
    "segments": SEGMENTS,
    "detections": DETECTIONS,
    "reviews": REVIEWS,
    "operating_points": OPERATING_POINTS,
    "operating_curves": OPERATING_CURVES,
    "scans": SCANS,
}

# What udfs.rolling makes of a track's scores, for each threshold and window length.
RISES = StructType(
    [
        _TITLE_ID,
        _TRACK,
        _column("defect", StringType(), "Label that the scores are for"),
        _THRESHOLD,
        _WINDOW_S,
        _column("above_ms", ArrayType(LongType()), "Detections begin here for every X above this, milliseconds"),
        _column("up_to_ms", ArrayType(LongType()), "... and up to this; the largest is the most that a window holds"),
        _column("count", ArrayType(LongType()), "... as often as this, count"),
    ]
)

# What the scan UDF takes: one row per span of a track.
SPANS = StructType(
    [
        _column("task", IntegerType(), "Task that scores the span", nullable=False),
        _TITLE_ID,
        _column("path", StringType(), "Local path, undecodable bytes percent-encoded, or the URI of an object"),
        _TRACK,
        _CONTENT_HASH,
        _START_S,
        _END_S,
        _column("can_seek", BooleanType(), "A decode after a seek is sample-identical to one from the start"),
        _column("is_timed", BooleanType(), "The packets' time stamps are usable"),
        _column("models", ArrayType(StringType()), "Models that have not scored this content yet, as name/version"),
        _column(
            "announced_s",
            DoubleType(),
            "Of a track's last span: where its packets or its header say that it ends, seconds from the title's zero",
        ),
    ]
)

# What it returns: segments, and one report per span (the columns of the other kind are NULL).
SCORED = StructType(
    [
        *(field for field in SEGMENTS.fields if field.name != "scan_id"),
        _column("decoded_s", DoubleType(), "Report of a span: audio decoded inside it, seconds"),
        _column("error_code", StringType(), "Report of a span: what went wrong, NULL where nothing did"),
        _column("error", StringType(), "Report of a span: what went wrong, in words"),
        _column(
            "stages_s", _STAGES, "Report of a span: seconds by stage (udfs/stages.py) since the task's last report"
        ),
        _column("is_report", BooleanType(), "Whether the row reports on a span", nullable=False),
    ]
)

PROBED = StructType(
    [
        _TITLE_ID,
        _column("found", StringType(), "Tracks of the title or the error, JSON"),
    ]
)

# What jobs/simulate.py writes: a catalogue of files with planted defects (and untouched ones), and what is in them.
SIMULATED = StructType(
    [
        _column("title_id", StringType(), "File: the version's name and the clean title's, such as hum/album/01.flac"),
        _column("uri", StringType(), "Where the file is"),
        _column("clean_title_id", StringType(), "Title that it was made from"),
        _column("clean_uri", StringType(), "File of the clean title"),
        _column("version", StringType(), "Simulator that was applied, or clean"),
        _column("format", StringType(), "Suffix that chose codec and container, without the dot"),
        _column("duration_s", DoubleType(), "Length of the file, seconds"),
        _column("kind", StringType(), "The catalogue's column kind (music, speech ...); NULL where it has none"),
        _column("error", StringType(), "Why there is no file; NULL where there is one"),
    ]
)

LABELS = StructType(
    [
        _column("title_id", StringType(), "File with the defect (titles.title_id)"),
        _column("clean_uri", StringType(), "File of the clean title"),
        _column("defect", StringType(), "Label under which a detector should report it"),
        _column("simulator", StringType(), "Simulator that planted it"),
        _START_S,
        _END_S,
        _column("channels", ArrayType(IntegerType()), "Channels with the defect, indices from 0"),
        _column(
            "events",
            ArrayType(StructType([_START_S, _END_S])),
            "Stretches inside in which samples changed; pauses below 50 ms belong to a stretch",
        ),
        _column("severity", DoubleType(), "How bad, in severity_unit"),
        _column("severity_unit", StringType(), "What severity measures"),
        _column("parameters", StringType(), "What the simulator was given, JSON"),
    ]
)

EVALUATIONS = StructType(
    [
        _column("evaluation_id", StringType(), "One run of jobs/evaluate.py for one model version"),
        _column("evaluated_at", TimestampType(), "When"),
        _column(
            "catalogue",
            StringType(),
            "Labelled catalogue: folder that jobs/simulate.py wrote, or any with a file of labels",
        ),
        _MODEL,
        _MODEL_VERSION,
        _column(
            "facet",
            StringType(),
            "What the labelled catalogue was split by: all (it was not), format (suffix of the file), kind (the catalogue's "
            "column) or severity (simulated defects only)",
        ),
        _column(
            "facet_value", StringType(), "Which part, such as mp3, speech or hum 10..20 dB; all where it was not split"
        ),
        _column(
            "label", StringType(), "Class or kind of events that the figure is about; NULL for figures over all of them"
        ),
        _column(
            "metric",
            StringType(),
            "None is by title. Of models with one score a segment, by segments of one channel: balanced_accuracy, recall, precision, "
            "average_precision. Of models with frames, by events on one channel: f1, recall (of labelled stretches), "
            "precision (of found events), false_events_per_hour (of a channel), all at the score with the largest F1, which "
            "is threshold; f1 over all kinds is the mean of theirs",
        ),
        _column(
            "value",
            DoubleType(),
            "The figure: events per channel hour of false_events_per_hour, 0..1 of all others. A segment is defective where "
            "a labelled stretch (simulated: of changed samples; people's: from begin to end, or the whole title) touches it "
            "on a labelled channel (on each, where none is named), and left out where all such are of defects that the model "
            "does not know; a stretch is found where an event lies within a frame of it",
        ),
        _column(
            "low",
            DoubleType(),
            "Lower end of the 95 % interval over clean titles (of people's labels: over groups, or titles where they have "
            "none): the wider of bootstrap and, of fewer than 30 titles or such as do not differ, Wilson's or Poisson's "
            "(jobs/confidence.py); NULL of threshold and average_precision, which have none",
        ),
        _column("high", DoubleType(), "Upper end of the 95 % interval"),
        _column(
            "segments",
            LongType(),
            "What is behind the figure, count: of precision the segments that were said to be of the class, of recall and "
            "average_precision those that are, of balanced_accuracy all; of models with frames the labelled stretches, one "
            "with several channels named as often. NULL of threshold",
        ),
    ]
)

# One row per file that a simulation task makes: the columns of SIMULATED, and its labels.
SIMULATION = StructType(
    [
        *SIMULATED.fields,
        _column(
            "labels",
            ArrayType(StructType([field for field in LABELS.fields if field.name not in ("title_id", "clean_uri")])),
            "Planted intervals",
        ),
    ]
)
SIMULATION_ORDERS = StructType(
    [
        *(field for field in SIMULATED.fields if field.name not in ("duration_s", "error", "uri")),
        _column("path", StringType(), "Local path of the clean file, undecodable bytes percent-encoded"),
        _column("target", StringType(), "Local path of the file to make"),
        _column("seed", LongType(), "Seed of the whole simulation"),
        _column("seconds", DoubleType(), "Longest piece of the title to take, seconds"),
        _column("mean_interval_s", DoubleType(), "Mean length of intervals beyond the least, seconds"),
        _column("loudness_lufs", DoubleType(), "Loudness to bring the clean title to, LUFS; NULL leaves its level"),
        _column("one_channel_share", DoubleType(), "Share of the intervals whose defect is on one channel only"),
    ]
)
