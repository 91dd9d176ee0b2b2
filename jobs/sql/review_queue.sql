-- What to listen to next.
--
-- Reads:   {verdicts}   one row per detection (verdicts.sql)
--          {precision}  precision.sql, of which the facet "all" counts
-- Grain:   one row per detection without a verdict, or with "unsure"
-- Order:   worth = peak score x width of the interval of its defect's precision (1 where nothing is decided): what is
--          likely, and what a verdict would teach
-- Runs in: Spark SQL, DuckDB

SELECT
    verdicts.title_id, verdicts.content_hash, verdicts.track, verdicts.defect, verdicts.start_s, verdicts.end_s,
    verdicts.peak_score, verdicts.model, verdicts.model_version, verdicts.verdict,
    verdicts.peak_score * COALESCE(known.valid_high - known.valid_low, 1.0) AS worth
FROM {verdicts} AS verdicts
LEFT JOIN {precision} AS known
    ON verdicts.model = known.model
    AND verdicts.model_version = known.model_version
    AND verdicts.defect = known.defect
    AND known.facet = 'all'
WHERE verdicts.verdict IS NULL OR verdicts.verdict = 'unsure'
ORDER BY worth DESC, verdicts.title_id, verdicts.track, verdicts.start_s
