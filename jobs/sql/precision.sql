-- How many detections are right, by people's verdicts.
--
-- Reads:   {faceted}  one row per detection and facet (facets.sql): model, model_version, content_hash, defect, start_s,
--                     end_s, verdict, facet, facet_value
-- Grain:   one row per model version x facet x value x defect, and one with defect NULL over all defects
-- Copies:  the same stretch of the same content counts once, in however many titles and tracks it lies: one verdict is one
--          observation, and counting it twice would narrow the interval
-- Figures: genuine_precision  share of decided detections that are defects
--          valid_precision    the same with creative intent counted in: the sound is there, and somebody meant it
--          low, high          Wilson's 95 % interval (E. B. Wilson, "Probable inference ...", 1927); NULL where nothing
--                             was decided. "unsure" decides nothing.
-- Runs in: Spark SQL, DuckDB

WITH occurrences AS (  -- one row per stretch of content, as each model version and facet value has it
    SELECT DISTINCT model, model_version, facet, facet_value, defect, content_hash, start_s, end_s, verdict
    FROM {faceted} AS faceted
),

counted AS (
    SELECT
        model, model_version, facet, facet_value, defect,
        COUNT(*) AS detections,
        SUM(CASE WHEN verdict = 'genuine' THEN 1 ELSE 0 END) AS genuine,
        SUM(CASE WHEN verdict = 'creative_intent' THEN 1 ELSE 0 END) AS creative_intent,
        SUM(CASE WHEN verdict = 'false_positive' THEN 1 ELSE 0 END) AS false_positive
    FROM occurrences
    GROUP BY GROUPING SETS (
        (model, model_version, facet, facet_value),
        (model, model_version, facet, facet_value, defect)
    )
),

shares AS (
    SELECT
        *,
        genuine + creative_intent + false_positive AS decided,
        CAST(genuine AS DOUBLE) / NULLIF(genuine + creative_intent + false_positive, 0) AS p,
        CAST(genuine + creative_intent AS DOUBLE) / NULLIF(genuine + creative_intent + false_positive, 0) AS q,
        1.959963984540054 * 1.959963984540054 / NULLIF(genuine + creative_intent + false_positive, 0) AS z2_n
    FROM counted
)

SELECT
    model, model_version, facet, facet_value, defect,
    detections, decided, genuine, creative_intent, false_positive,
    p AS genuine_precision,
    (p + z2_n / 2 - SQRT(z2_n * (p * (1 - p) + z2_n / 4))) / (1 + z2_n) AS genuine_low,
    (p + z2_n / 2 + SQRT(z2_n * (p * (1 - p) + z2_n / 4))) / (1 + z2_n) AS genuine_high,
    q AS valid_precision,
    (q + z2_n / 2 - SQRT(z2_n * (q * (1 - q) + z2_n / 4))) / (1 + z2_n) AS valid_low,
    (q + z2_n / 2 + SQRT(z2_n * (q * (1 - q) + z2_n / 4))) / (1 + z2_n) AS valid_high
FROM shares
ORDER BY model, model_version, facet, facet_value, defect NULLS FIRST
