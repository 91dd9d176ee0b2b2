-- Everything that is known of the tracks, to split figures by.
--
-- Reads:  {tracks}  the table tracks
-- Grain:  one row per track x facet: "all", codec, container, language, sample_rate_hz, channels, channel_layout, and each
--         of the catalogue's own columns that has a value there (but one that is called "all")

WITH described AS (
    SELECT
        track.title_id,
        track.track,
        track.decoded_s,
        track.scored_with,
        MAP_FILTER(
            FROM_JSON(TO_JSON(STRUCT(track.*)), 'MAP<STRING, STRING>'),
            (name, value) -> NOT ARRAY_CONTAINS(
                ARRAY(
                    'title_id', 'uri', 'content_hash', 'track', 'duration_s', 'decoded_s', 'status', 'error_code',
                    'error', 'size_bytes', 'modified_at', 'scored_with', 'scan_id', 'all'
                ),
                name
            )
        ) AS columns
    FROM {tracks} AS track
)

SELECT title_id, track, decoded_s, scored_with, 'all' AS facet, 'all' AS facet_value
FROM described
UNION ALL
SELECT title_id, track, decoded_s, scored_with, facet, facet_value
FROM described
LATERAL VIEW EXPLODE(columns) AS facet, facet_value
