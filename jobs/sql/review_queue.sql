-- What to listen to next.
--
-- Reads:   {verdicts}   one row per detection (verdicts.sql)
--          {precision}  precision.sql, of which the facet "all" counts
-- Grain:   one row per stretch without a verdict, or with "unsure", of a content, defect and model version; where several
--          titles or tracks hold the content, the first of them by name: a verdict holds for all
-- Order:   worth = peak score x width of the interval of its defect's precision (1 where nothing is decided): what is
--          likely, and what a verdict would teach
-- Runs in: Spark SQL, DuckDB

WITH open AS (
    SELECT title_id, content_hash, track, defect, start_s, end_s, peak_score, model, model_version, verdict
    FROM {verdicts} AS verdicts
    WHERE verdict IS NULL OR verdict = 'unsure'
    QUALIFY ROW_NUMBER() OVER (
        PARTITION BY content_hash, defect, start_s, end_s, model, model_version ORDER BY title_id, track
    ) = 1
)

SELECT
    open.title_id, open.content_hash, open.track, open.defect, open.start_s, open.end_s,
    open.peak_score, open.model, open.model_version, open.verdict,
    open.peak_score * COALESCE(known.valid_high - known.valid_low, 1.0) AS worth
FROM open
LEFT JOIN {precision} AS known
    ON open.model = known.model
    AND open.model_version = known.model_version
    AND open.defect = known.defect
    AND known.facet = 'all'
ORDER BY worth DESC, open.title_id, open.track, open.start_s
