-- What can ever count as a hit, over time.
--
-- Reads:  {segments}  the table segments, or a part of it
--         {defects}   one row per model x model_version x defect: floor (lowest score of interest), ignored_channels
-- Grain:  one row per title x track x model x version x defect with scores from the floor on
-- Times:  milliseconds; moments are in no order, one per channel and segment (or event, of models that have them):
--         udfs/rolling.py sorts and merges them, one title at a time, where grouping them here would shuffle as many groups as
--         there are segments

WITH reached AS (  -- one row per channel and segment, with what in it may count
    SELECT
        segments.title_id,
        segments.content_hash,
        segments.track,
        segments.model,
        segments.model_version,
        defects.defect,
        defects.floor,
        CASE
            WHEN segments.events IS NULL
                THEN ARRAY(
                    STRUCT(segments.start_s, segments.end_s, try_element_at(segments.scores, defects.defect) AS score)
                )
            ELSE TRANSFORM(
                FILTER(segments.events, event -> event.label = defects.defect),
                event -> STRUCT(event.start_s, event.end_s, ARRAY_MAX(event.scores) AS score)
            )
        END AS parts
    FROM {segments} AS segments
    INNER JOIN {defects} AS defects
        ON segments.model = defects.model
        AND segments.model_version = defects.model_version
    WHERE try_element_at(segments.scores, defects.defect) >= defects.floor
        AND NOT isnan(try_element_at(segments.scores, defects.defect))  -- NaN is larger than any threshold in Spark
        AND NOT array_contains(defects.ignored_channels, segments.channel_name)
),

hits AS (  -- one row per channel and segment, or event in it
    SELECT
        title_id, content_hash, track, model, model_version, defect,
        CAST(ROUND(start_s * 1000) AS BIGINT) AS start_ms,
        CAST(ROUND(end_s * 1000) AS BIGINT) AS end_ms,
        CAST(score AS DOUBLE) AS score
    FROM reached
    LATERAL VIEW INLINE(parts) AS start_s, end_s, score
    WHERE score >= floor
)

SELECT
    title_id, content_hash, track, model, model_version, defect,
    COLLECT_LIST(STRUCT(start_ms, end_ms, score)) AS moments
FROM hits
GROUP BY title_id, content_hash, track, model, model_version, defect
