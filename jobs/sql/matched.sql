-- Which reviews are about which detections.
--
-- Reads:   {detections}  the table detections
--          {reviews}     the table reviews
-- Grain:   one row per detection and review of the same content and defect at a time that overlaps, so that a renamed or
--          rewrapped title, another operating point and a newer model inherit it; one with NULLs where there is none
-- Runs in: Spark SQL, DuckDB

SELECT
    detections.title_id, detections.content_hash, detections.track, detections.defect,
    detections.start_s, detections.end_s, detections.detected_s, detections.peak_score, detections.channels,
    detections.model, detections.model_version,
    detections.threshold, detections.min_detected_s, detections.window_s,
    reviews.verdict, reviews.cause, reviews.reviewer, reviews.note, reviews.reviewed_at
FROM {detections} AS detections
LEFT JOIN {reviews} AS reviews
    ON detections.content_hash = reviews.content_hash
    AND detections.defect = reviews.defect
    AND reviews.start_s < detections.end_s
    AND reviews.end_s > detections.start_s
