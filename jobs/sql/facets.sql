-- Detections with their verdicts, by everything that is known of their tracks.
--
-- Reads:  {verdicts}  one row per detection (verdicts.sql)
--         {tracks}    the table tracks
-- Grain:  one row per detection x facet: "all", codec, container, language, and each of the catalogue's own columns

WITH described AS (
    SELECT verdicts.model, verdicts.model_version, verdicts.defect, verdicts.verdict, tracks.columns
    FROM {verdicts} AS verdicts
    LEFT JOIN (
        SELECT
            track.title_id,
            track.track,
            MAP_FILTER(
                FROM_JSON(TO_JSON(STRUCT(track.*)), 'MAP<STRING, STRING>'),
                (name, value) -> NOT ARRAY_CONTAINS(
                    ARRAY(
                        'title_id', 'uri', 'content_hash', 'track', 'duration_s', 'decoded_s', 'status', 'error_code',
                        'error', 'size_bytes', 'modified_at', 'scored_with', 'scan_id'
                    ),
                    name
                )
            ) AS columns
        FROM {tracks} AS track
    ) AS tracks
        ON verdicts.title_id = tracks.title_id
        AND verdicts.track = tracks.track
)

SELECT model, model_version, defect, verdict, 'all' AS facet, 'all' AS facet_value
FROM described
UNION ALL
SELECT model, model_version, defect, verdict, facet, facet_value
FROM described
LATERAL VIEW EXPLODE(columns) AS facet, facet_value
