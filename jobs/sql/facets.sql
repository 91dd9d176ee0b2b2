-- Detections with their verdicts, by everything that is known of their tracks.
--
-- Reads:  {verdicts}      one row per detection (verdicts.sql)
--         {track_facets}  one row per track x facet (track_facets.sql)
-- Grain:  one row per detection x facet; a detection whose track is not known any more has "all" alone

WITH judged AS (
    SELECT title_id, track, model, model_version, content_hash, defect, start_s, end_s, verdict
    FROM {verdicts} AS verdicts
)

SELECT model, model_version, content_hash, defect, start_s, end_s, verdict, 'all' AS facet, 'all' AS facet_value
FROM judged
UNION ALL
SELECT
    judged.model, judged.model_version, judged.content_hash, judged.defect, judged.start_s, judged.end_s, judged.verdict,
    track_facets.facet, track_facets.facet_value
FROM judged
INNER JOIN {track_facets} AS track_facets
    ON judged.title_id = track_facets.title_id
    AND judged.track = track_facets.track
WHERE track_facets.facet <> 'all'
