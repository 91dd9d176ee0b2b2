-- What reaches a score: one channel's segments, or of models with events the events in them.
--
-- Reads:  {segments}  the table segments, or a part of it
--         {points}    one row per model x model_version x defect: threshold, ignored_channels; further columns are passed on
-- Grain:  one row per title x track x channel x model x version x defect x segment or event from the threshold on
-- Times:  milliseconds, in no order

WITH reached AS (  -- one row per channel and segment that reaches the threshold, with what in it may count
    SELECT
        segments.title_id,
        segments.content_hash,
        segments.track,
        segments.channel,
        segments.channel_name,
        points.* EXCEPT (ignored_channels),
        CASE
            WHEN segments.events IS NULL
                THEN ARRAY(
                    STRUCT(segments.start_s, segments.end_s, try_element_at(segments.scores, points.defect) AS score)
                )
            ELSE TRANSFORM(
                FILTER(segments.events, event -> event.label = points.defect),
                event -> STRUCT(event.start_s, event.end_s, ARRAY_MAX(event.scores) AS score)
            )
        END AS parts
    FROM {segments} AS segments
    INNER JOIN {points} AS points
        ON segments.model = points.model
        AND segments.model_version = points.model_version
    WHERE try_element_at(segments.scores, points.defect) >= points.threshold
        AND NOT isnan(try_element_at(segments.scores, points.defect))  -- NaN is larger than any threshold in Spark
        AND NOT array_contains(points.ignored_channels, segments.channel_name)
        AND segments.line_up_hz IS NULL  -- what levels are set by stands ahead of the programme
)

SELECT
    reached.* EXCEPT (parts),
    CAST(ROUND(start_s * 1000) AS BIGINT) AS start_ms,
    CAST(ROUND(end_s * 1000) AS BIGINT) AS end_ms,
    score
FROM reached
LATERAL VIEW INLINE(parts) AS start_s, end_s, score
WHERE score >= threshold
