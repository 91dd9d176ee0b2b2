-- Truth beside prediction: how often a model said what about segments of which truth.
--
-- Reads:  {segments}  the table segments, one model version
--         {titles}    files of a labelled catalogue (jobs/simulate.py)
--         {labels}    intervals planted in them
--         {classes}   one row per label of the model: label, class (labels that mean "no defect" share one class)
--         {clean}     the class of segments in which nothing was planted
-- Grain:  one row per clean title x format x kind x severity x truth x said
-- Truth:  a segment is defective where samples changed in it on its channel, by however little (the paper's rule)

WITH events AS (  -- one row per stretch of changed samples
    SELECT
        labels.title_id, labels.defect, labels.channels, labels.simulator, labels.severity, labels.severity_unit,
        event.start_s,
        event.end_s
    FROM {labels} AS labels
    LATERAL VIEW EXPLODE(labels.events) AS event
),

said AS (  -- one row per segment: its most probable class
    SELECT
        segments.title_id, segments.track, segments.channel, segments.start_s, segments.end_s,
        titles.clean_title_id, titles.format, titles.kind,
        ARRAY_MAX(TRANSFORM(MAP_ENTRIES(segments.scores), entry -> STRUCT(entry.value AS score, entry.key AS label))).label
            AS label
    FROM {segments} AS segments
    INNER JOIN {titles} AS titles
        ON segments.title_id = titles.title_id
),

judged AS (  -- one row per segment: what was there and what was said
    SELECT
        said.title_id, said.track, said.channel, said.start_s,
        ANY_VALUE(said.clean_title_id) AS clean_title_id,
        ANY_VALUE(said.format) AS format,
        ANY_VALUE(said.kind) AS kind,
        ANY_VALUE(said.label) AS label,
        MIN(events.defect) AS defect,
        MIN_BY(events.simulator, events.severity) AS simulator,
        MIN(events.severity) AS severity,
        MIN(events.severity_unit) AS severity_unit
    FROM said
    LEFT JOIN events
        ON said.title_id = events.title_id
        AND events.start_s < said.end_s
        AND events.end_s > said.start_s
        AND (said.channel = -1 OR ARRAY_CONTAINS(events.channels, said.channel))
    GROUP BY said.title_id, said.track, said.channel, said.start_s
)

SELECT
    judged.clean_title_id,
    judged.format,
    judged.kind,
    CASE
        WHEN judged.simulator IN ('hum', 'hiss')
            THEN FORMAT_STRING('%s %d..%d dB', judged.simulator, CAST(FLOOR(judged.severity / 10) * 10 AS INT), CAST(FLOOR(judged.severity / 10) * 10 + 10 AS INT))
        WHEN judged.simulator IN ('click_additive', 'click_reductive')
            THEN FORMAT_STRING('%s %.1f..%.1f', judged.simulator, FLOOR(judged.severity * 5) / 5, FLOOR(judged.severity * 5) / 5 + 0.2)
        WHEN judged.simulator IS NOT NULL THEN FORMAT_STRING('%s %.1f', judged.simulator, judged.severity)
    END AS severity,
    COALESCE(judged.defect, {clean}) AS truth,
    classes.class AS said,
    COUNT(*) AS segments
FROM judged
INNER JOIN {classes} AS classes
    ON judged.label = classes.label
GROUP BY ALL
