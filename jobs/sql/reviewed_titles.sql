-- Titles of which people have said what is broken.
--
-- Reads:  {reviews}  the table reviews
--         {tracks}   the table tracks
-- Grain:  one row per title with a decided verdict x defect that somebody found genuine; defect is NULL in a further row
--         for each such title
-- Truth:  the latest verdict on each stretch counts. Only what was detected once was ever judged: recall is the share of
--         that, and not of all there is.

WITH latest AS (
    SELECT * FROM (
        SELECT
            content_hash, defect, verdict,
            ROW_NUMBER() OVER (
                PARTITION BY content_hash, defect, start_s, end_s ORDER BY reviewed_at DESC, reviewer, verdict
            ) AS place
        FROM {reviews} AS reviews
    ) AS ranked
    WHERE place = 1 AND verdict <> 'unsure'
)

SELECT DISTINCT
    tracks.title_id,
    latest.content_hash,
    EXPLODE(CASE WHEN latest.verdict = 'genuine' THEN ARRAY(NULL, latest.defect) ELSE ARRAY(CAST(NULL AS STRING)) END) AS defect
FROM latest
INNER JOIN {tracks} AS tracks
    ON latest.content_hash = tracks.content_hash
