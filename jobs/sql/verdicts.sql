-- Detections beside what people said of them.
--
-- Reads:   {detections}  the table detections
--          {reviews}     the table reviews
-- Grain:   one row per detection
-- Verdict: the latest review of the same content and defect at a time that overlaps; so a renamed or rewrapped title,
--          another operating point and a newer model inherit it. NULL where nobody has looked.
-- Runs in: Spark SQL, DuckDB

WITH matched AS (  -- one row per detection and review of it; one with NULLs where there is none
    SELECT
        detections.title_id, detections.content_hash, detections.track, detections.defect,
        detections.start_s, detections.end_s, detections.detected_s, detections.peak_score,
        detections.model, detections.model_version,
        detections.threshold, detections.min_detected_s, detections.window_s,
        reviews.verdict, reviews.cause, reviews.reviewer, reviews.note, reviews.reviewed_at
    FROM {detections} AS detections
    LEFT JOIN {reviews} AS reviews
        ON detections.content_hash = reviews.content_hash
        AND detections.defect = reviews.defect
        AND reviews.start_s < detections.end_s
        AND reviews.end_s > detections.start_s
),

ranked AS (
    SELECT
        *,
        ROW_NUMBER() OVER (
            PARTITION BY title_id, track, content_hash, defect, model, model_version, start_s, end_s,
                threshold, min_detected_s, window_s
            ORDER BY reviewed_at DESC, reviewer, verdict
        ) AS place
    FROM matched
)

SELECT
    title_id, content_hash, track, defect, start_s, end_s, detected_s, peak_score, model, model_version,
    threshold, min_detected_s, window_s, verdict, cause, reviewer, note, reviewed_at
FROM ranked
WHERE place = 1
