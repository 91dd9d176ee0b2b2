-- What was there and what was said: truth beside scores.
--
-- Reads:  {segments}  the table segments, one model version
--         {titles}    files of a labelled catalogue (jobs/labelled.py)
--         {labels}    intervals planted in them; NULL of track or channels stands for all
-- Grain:  one row per segment (title x track x channel x start)
-- Truth:  a segment is defective where samples changed in it on its channel, by however little (the paper's rule)

WITH events AS (  -- one row per stretch of changed samples
    SELECT
        labels.title_id, labels.track, labels.defect, labels.channels, labels.simulator, labels.severity,
        event.start_s,
        event.end_s
    FROM {labels} AS labels
    LATERAL VIEW EXPLODE(labels.events) AS event
),

scored AS (  -- one row per segment
    SELECT
        segments.title_id, segments.track, segments.channel, segments.start_s, segments.end_s, segments.scores,
        titles.clean_title_id, titles.format, titles.kind
    FROM {segments} AS segments
    INNER JOIN {titles} AS titles
        ON segments.title_id = titles.title_id
)

SELECT
    ANY_VALUE(scored.clean_title_id) AS clean_title_id,
    ANY_VALUE(scored.format) AS format,
    ANY_VALUE(scored.kind) AS kind,
    ANY_VALUE(scored.scores) AS scores,
    MIN(events.defect) AS defect,  -- NULL: nothing was planted there
    MIN_BY(events.simulator, events.severity) AS simulator,
    MIN(events.severity) AS severity
FROM scored
LEFT JOIN events
    ON scored.title_id = events.title_id
    AND events.start_s < scored.end_s
    AND events.end_s > scored.start_s
    AND (events.track IS NULL OR events.track = scored.track)
    AND (scored.channel = -1 OR events.channels IS NULL OR ARRAY_CONTAINS(events.channels, scored.channel))
GROUP BY scored.title_id, scored.track, scored.channel, scored.start_s
