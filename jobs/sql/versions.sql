-- How two versions of a model differ on the content that both have scored.
--
-- Reads:   {verdicts}     one row per detection (verdicts.sql)
--          {tracks}       the table tracks
--          {model}, {old_version}, {new_version}
-- Grain:   one row per detection of either version: kept (both have one there; the new version's is shown), gained
--          (the new one only), lost (the old one only)
-- Runs in: Spark SQL

WITH common AS (  -- content that both have scored
    SELECT DISTINCT content_hash
    FROM {tracks} AS tracks
    WHERE ARRAY_CONTAINS(scored_with, CONCAT({model}, '/', {old_version}))
        AND ARRAY_CONTAINS(scored_with, CONCAT({model}, '/', {new_version}))
),

shared AS (
    SELECT verdicts.*
    FROM {verdicts} AS verdicts
    INNER JOIN common
        ON verdicts.content_hash = common.content_hash
    WHERE verdicts.model = {model} AND verdicts.model_version IN ({old_version}, {new_version})
),

marked AS (
    SELECT
        mine.*,
        EXISTS (
            SELECT 1
            FROM shared AS theirs
            WHERE theirs.model_version <> mine.model_version
                AND theirs.title_id = mine.title_id AND theirs.track = mine.track AND theirs.defect = mine.defect
                AND theirs.start_s < mine.end_s AND theirs.end_s > mine.start_s
        ) AS is_in_both
    FROM shared AS mine
)

SELECT
    CASE WHEN is_in_both THEN 'kept' WHEN model_version = {new_version} THEN 'gained' ELSE 'lost' END AS difference,
    title_id, track, defect, start_s, end_s, peak_score, verdict, cause
FROM marked
WHERE NOT is_in_both OR model_version = {new_version}
ORDER BY difference, title_id, track, start_s
