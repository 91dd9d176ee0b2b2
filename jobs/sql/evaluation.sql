-- How often a model said what about segments of which truth.
--
-- Reads:  {judged}   one row per segment (judged.sql)
--         {classes}  one row per label of the model: label, class (labels that mean "no defect" share one class)
--         {clean}    the class of segments in which nothing was planted
-- Grain:  one row per clean title x format x kind x severity x truth x said

WITH said AS (  -- one row per segment: its most probable label
    SELECT
        judged.clean_title_id, judged.format, judged.kind, judged.defect, judged.simulator, judged.severity,
        ARRAY_MAX(TRANSFORM(MAP_ENTRIES(judged.scores), entry -> STRUCT(entry.value AS score, entry.key AS label))).label
            AS label
    FROM {judged} AS judged
)

SELECT
    said.clean_title_id,
    said.format,
    said.kind,
    CASE
        WHEN said.simulator IN ('hum', 'hiss')
            THEN FORMAT_STRING('%s %d..%d dB', said.simulator, CAST(FLOOR(said.severity / 10) * 10 AS INT), CAST(FLOOR(said.severity / 10) * 10 + 10 AS INT))
        WHEN said.simulator IN ('click_additive', 'click_reductive', 'click_offset', 'underrun')
            THEN FORMAT_STRING('%s %.1f..%.1f', said.simulator, FLOOR(said.severity * 5) / 5, FLOOR(said.severity * 5) / 5 + 0.2)
        WHEN said.simulator IS NOT NULL THEN FORMAT_STRING('%s %.1f', said.simulator, said.severity)
    END AS severity,
    COALESCE(said.defect, {clean}) AS truth,
    classes.class AS said,
    COUNT(*) AS segments
FROM said
INNER JOIN {classes} AS classes
    ON said.label = classes.label
GROUP BY ALL
