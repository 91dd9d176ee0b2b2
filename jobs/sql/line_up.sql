-- Line-up tones: where they lie, for no score there makes a detection.
--
-- Reads:   {segments}  the table segments, or a part of it
-- Grain:   one row per title x content x track x stretch; tones not more than 5 s apart make one
-- Runs in: Spark SQL, DuckDB

WITH tones AS (  -- before_s: the end of the tones that begin before this one does
    SELECT
        title_id, content_hash, track, channel_name, start_s, end_s,
        CAST(ROUND(line_up_hz) AS INT) AS pitch_hz,
        MAX(end_s) OVER (
            PARTITION BY title_id, content_hash, track
            ORDER BY start_s, end_s ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS before_s
    FROM {segments} AS segments
    WHERE line_up_hz IS NOT NULL
),

stretches AS (
    SELECT
        *,
        SUM(CASE WHEN start_s > before_s + 5 THEN 1 ELSE 0 END) OVER (
            PARTITION BY title_id, content_hash, track
            ORDER BY start_s, end_s ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS stretch
    FROM tones
)

SELECT
    title_id, content_hash, track,
    MIN(start_s) AS start_s,
    MAX(end_s) AS end_s,
    ARRAY_SORT(ARRAY_AGG(DISTINCT pitch_hz)) AS pitches_hz,
    ARRAY_SORT(ARRAY_AGG(DISTINCT channel_name)) AS channels
FROM stretches
GROUP BY title_id, content_hash, track, stretch
ORDER BY title_id, track, start_s
