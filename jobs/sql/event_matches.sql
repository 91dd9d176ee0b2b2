-- Events that a model with frames found beside those that were planted.
--
-- Reads:  {segments}   the table segments, one model version
--         {titles}     files of a labelled catalogue (jobs/labelled.py)
--         {labels}     intervals planted in them. NULL of track or channels stands for any, and what is found on one of
--                      them has met it
--         {sought}     one row per label of events that the model finds: label; others in {labels} say nothing of them
-- Grain:  one row per clean title x format x kind x severity x label x is_planted x hundredth of score, with a count of
--         events
-- Match:  on the same title, track, channel and label, no more than {tolerance_s} seconds apart

WITH planted AS (  -- one row per stretch of changed samples and channel
    SELECT
        labels.title_id, labels.track, labels.defect AS label, channel, event.start_s, event.end_s, labels.simulator,
        labels.severity, labels.severity_unit LIKE '%dB' AS is_db
    FROM {labels} AS labels
    LATERAL VIEW EXPLODE(labels.events) AS event
    LATERAL VIEW EXPLODE(COALESCE(labels.channels, ARRAY(CAST(NULL AS INT)))) AS channel
    WHERE labels.defect IN (SELECT sought.label FROM {sought} AS sought)
),

found AS (  -- one row per event and channel
    SELECT
        segments.title_id, segments.track, event.label, segments.channel, event.start_s, event.end_s,
        ARRAY_MAX(event.scores) AS score
    FROM {segments} AS segments
    LATERAL VIEW EXPLODE(segments.events) AS event
    WHERE event.label IN (SELECT sought.label FROM {sought} AS sought)
),

met AS (  -- one row per planted stretch and found event that lie together
    SELECT
        planted.title_id, planted.label,
        planted.track AS planted_track,
        planted.channel AS planted_channel,
        planted.start_s AS planted_s,
        found.track AS found_track,
        found.channel AS found_channel,
        found.start_s AS found_s,
        found.score
    FROM planted
    INNER JOIN found
        ON planted.title_id = found.title_id
        AND planted.label = found.label
        AND (planted.track IS NULL OR planted.track = found.track)
        AND (planted.channel IS NULL OR planted.channel = found.channel OR found.channel = -1)
        AND planted.start_s < found.end_s + {tolerance_s}
        AND planted.end_s > found.start_s - {tolerance_s}
),

of_planted AS (  -- score: the largest of what met it, -1 where nothing did
    SELECT
        planted.title_id, planted.label, planted.simulator, planted.severity, planted.is_db,
        TRUE AS is_planted,
        MAX(met.score) IS NOT NULL AS is_met,
        COALESCE(MAX(met.score), -1.0) AS score
    FROM planted
    LEFT JOIN met
        ON planted.title_id = met.title_id
        AND planted.label = met.label
        AND planted.track <=> met.planted_track
        AND planted.channel <=> met.planted_channel
        AND planted.start_s = met.planted_s
    GROUP BY
        planted.title_id, planted.track, planted.label, planted.channel, planted.start_s, planted.end_s, planted.simulator,
        planted.severity, planted.is_db
),

of_found AS (
    SELECT
        found.title_id, found.label, NULL AS simulator, NULL AS severity, NULL AS is_db,
        FALSE AS is_planted,
        MAX(met.score) IS NOT NULL AS is_met,
        found.score
    FROM found
    LEFT JOIN met
        ON found.title_id = met.title_id
        AND found.label = met.label
        AND found.track = met.found_track
        AND found.channel = met.found_channel
        AND found.start_s = met.found_s
    GROUP BY found.title_id, found.track, found.label, found.channel, found.start_s, found.score
)

SELECT
    titles.clean_title_id,
    titles.format,
    titles.kind,
    CASE
        WHEN events.is_db
            THEN FORMAT_STRING('%s %d..%d dB', events.simulator, FLOOR(events.severity / 10) * 10, FLOOR(events.severity / 10) * 10 + 10)
        WHEN events.simulator IS NOT NULL
            THEN FORMAT_STRING('%s %.1f..%.1f', events.simulator, FLOOR(events.severity * 5) / 5, FLOOR(events.severity * 5) / 5 + 0.2)
    END AS severity,
    events.label,
    events.is_planted,
    events.is_met,
    CAST(FLOOR(events.score * 100) AS INT) AS hundredths,
    COUNT(*) AS events
FROM (SELECT * FROM of_planted UNION ALL SELECT * FROM of_found) AS events
INNER JOIN {titles} AS titles
    ON events.title_id = titles.title_id
GROUP BY ALL
