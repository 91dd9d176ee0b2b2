-- Temporal filter: a defect is detected where hits add up to at least min_detected_s within a rolling window of
-- window_s.
--
-- Reads:  {hits}      hits.sql, of operating points (threshold, min_detected_s, window_s) with the same window_s, which is
--                     {window_ms} milliseconds
-- Grain:  one row per title x track x model x version x defect x stretch
-- Times:  milliseconds inside (exact), seconds outside; a window is [start, start + window)

WITH moments AS (  -- one row per begin, however many channels were hit there
    SELECT
        title_id, content_hash, track, model, model_version, defect, threshold, min_detected_s, window_s,
        start_ms,
        MAX(end_ms) AS end_ms,
        MAX(score) AS score,
        COLLECT_SET(STRUCT(channel, channel_name)) AS channels
    FROM {hits}
    GROUP BY
        title_id, content_hash, track, model, model_version, defect, threshold, min_detected_s, window_s, start_ms
),

reached AS (  -- up to where there are hits without a pause: a long event of one channel may go on behind short ones of another
    SELECT
        *,
        MAX(end_ms) OVER so_far AS reach_ms,
        LEAD(start_ms) OVER (
            PARTITION BY title_id, content_hash, track, model, model_version, defect ORDER BY start_ms
        ) AS next_ms
    FROM moments
    WINDOW so_far AS (
        PARTITION BY title_id, content_hash, track, model, model_version, defect
        ORDER BY start_ms ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
    )
),

pieces AS (  -- cut where the next hit begins, so that no time counts twice
    SELECT *, LEAST(reach_ms, COALESCE(next_ms, reach_ms)) AS piece_end_ms
    FROM reached
),

windows AS (  -- what the window beginning at each hit covers; no window can cover more than one of these
    SELECT
        *,
        SUM(piece_end_ms - start_ms) OVER ahead AS begun_ms,
        MAX(piece_end_ms) OVER ahead AS last_end_ms
    FROM pieces
    WINDOW ahead AS (
        PARTITION BY title_id, content_hash, track, model, model_version, defect
        ORDER BY start_ms RANGE BETWEEN CURRENT ROW AND {last_ms_of_window} FOLLOWING
    )
),

judged AS (  -- is_full: the window that begins here holds enough, its last piece cut off at the window's end
    SELECT
        *,
        begun_ms - GREATEST(0, last_end_ms - (start_ms + {window_ms})) >= ROUND(min_detected_s * 1000) AS is_full
    FROM windows
),

covered AS (  -- last_full_ms: begin of the latest full window that begins at or before the hit
    SELECT
        *,
        MAX(CASE WHEN is_full THEN start_ms END) OVER (
            PARTITION BY title_id, content_hash, track, model, model_version, defect
            ORDER BY start_ms ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS last_full_ms,
        MAX(CASE WHEN is_full THEN start_ms END) OVER (
            PARTITION BY title_id, content_hash, track, model, model_version, defect
            ORDER BY start_ms ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
        ) AS previous_full_ms
    FROM judged
),

stretches AS (  -- windows that overlap or touch make one stretch
    SELECT
        *,
        SUM(CASE WHEN is_full AND start_ms > COALESCE(previous_full_ms + {window_ms}, -1) THEN 1 ELSE 0 END) OVER (
            PARTITION BY title_id, content_hash, track, model, model_version, defect
            ORDER BY start_ms ROWS BETWEEN UNBOUNDED PRECEDING AND CURRENT ROW
        ) AS stretch
    FROM covered
    WHERE start_ms < last_full_ms + {window_ms}  -- hits of some full window; NULL where there is none yet
),

final AS (
    SELECT
        title_id,
        content_hash,
        track,
        defect,
        MIN(start_ms) / 1000.0D AS start_s,
        MAX(piece_end_ms) / 1000.0D AS end_s,
        SUM(piece_end_ms - start_ms) / 1000.0D AS detected_s,
        MAX(score) AS peak_score,
        TRANSFORM(ARRAY_SORT(ARRAY_DISTINCT(FLATTEN(COLLECT_LIST(channels)))), entry -> entry.channel_name) AS channels,
        model,
        model_version,
        threshold,
        min_detected_s,
        window_s
    FROM stretches
    GROUP BY
        title_id, content_hash, track, model, model_version, defect, threshold, min_detected_s, window_s, stretch
)

SELECT
    title_id, content_hash, track, defect, start_s, end_s, detected_s, peak_score, channels,
    model, model_version, threshold, min_detected_s, window_s
FROM final
