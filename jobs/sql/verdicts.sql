-- Detections beside what people said of them.
--
-- Reads:   {matched}  one row per detection and review of it (matched.sql)
-- Grain:   one row per detection
-- Verdict: the latest review's; NULL where nobody has looked. Any overlap will do, however short: the stretch that was
--          judged and the detection's share some sound, and other operating points move both ends. Where two judged
--          stretches reach into one detection, the one that was judged last counts, and not the one that covers more;
--          stretches that only touch (one ends where the other begins) share nothing.
-- Runs in: Spark SQL, DuckDB

WITH ranked AS (
    SELECT
        *,
        ROW_NUMBER() OVER (
            PARTITION BY title_id, track, content_hash, defect, model, model_version, start_s, end_s,
                threshold, min_detected_s, window_s
            ORDER BY reviewed_at DESC, reviewer, verdict, cause NULLS LAST, note NULLS LAST
        ) AS place
    FROM {matched} AS matched
)

SELECT
    title_id, content_hash, track, defect, start_s, end_s, detected_s, peak_score, channels, model, model_version,
    threshold, min_detected_s, window_s, verdict, cause, reviewer, note, reviewed_at
FROM ranked
WHERE place = 1
