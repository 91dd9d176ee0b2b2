-- What can ever count as a hit, over time.
--
-- Reads:  {segments}  the table segments, or a part of it
--         {defects}   one row per model x model_version x defect: floor (lowest score of interest), ignored_channels
-- Grain:  one row per title x track x model x version x defect with scores from the floor on
-- Times:  milliseconds; moments are in no order, one per channel and segment: udfs/rolling.py sorts and merges them, one
--         title at a time, where grouping them here would shuffle as many groups as there are segments

WITH hits AS (  -- one row per channel and segment
    SELECT
        segments.title_id,
        segments.content_hash,
        segments.track,
        segments.model,
        segments.model_version,
        defects.defect,
        CAST(ROUND(segments.start_s * 1000) AS BIGINT) AS start_ms,
        CAST(ROUND(segments.end_s * 1000) AS BIGINT) AS end_ms,
        CAST(try_element_at(segments.scores, defects.defect) AS DOUBLE) AS score
    FROM {segments} AS segments
    INNER JOIN {defects} AS defects
        ON segments.model = defects.model
        AND segments.model_version = defects.model_version
    WHERE try_element_at(segments.scores, defects.defect) >= defects.floor
        AND NOT isnan(try_element_at(segments.scores, defects.defect))  -- NaN is larger than any threshold in Spark
        AND NOT array_contains(defects.ignored_channels, segments.channel_name)
)

SELECT
    title_id, content_hash, track, model, model_version, defect,
    COLLECT_LIST(STRUCT(start_ms, end_ms, score)) AS moments
FROM hits
GROUP BY title_id, content_hash, track, model, model_version, defect
