-- What is wrong with the stored rows: duplicates, gaps, orphans.
--
-- Reads:   {tracks}      the table tracks, with is_waiting where the next scan scores the track again anyway
--          {channels}    one row per title x content x track x channel x model version (key: name/version): rows,
--                        segments (different starts), first_s, second_s, last_s (starts), length_s, step_s (median
--                        between starts but the last two)
--          {detections}  the table detections
-- Grain:   one row per kind x title x track x model version, some of them more than once; rows: surplus or missing, count
-- Decoder: {decoder}, the key of what the decoder found: it has rows where it found something
-- Gaps:    a version's hop is the smallest median step of its tracks, of those with six segments where there are such; where
--          no segment of it is left, a segment is taken to last {longest_segment_s} s. Segments lie on the title's grid, but
--          for the last before the sound ends: of a track, or of a span of it where some is missing. Before there were such
--          ones, a whole track lost less than a hop at its end, and {shortfall_s} s count as padding. Of a partial track nothing can be expected but that something is there.
-- Runs in: Spark SQL

WITH duplicates AS (
    SELECT 'duplicates in tracks' AS kind, title_id, track, CAST(NULL AS STRING) AS key, COUNT(*) - 1 AS rows
    FROM {tracks} AS tracks
    GROUP BY title_id, track
    HAVING COUNT(*) > 1
    UNION ALL
    SELECT 'duplicates in segments', title_id, track, key, rows - segments
    FROM {channels} AS channels
    WHERE rows > segments
    UNION ALL
    SELECT 'duplicates in detections', title_id, track, CONCAT(model, '/', model_version), COUNT(*) - 1
    FROM {detections} AS detections
    GROUP BY title_id, content_hash, track, defect, model, model_version, start_s
    HAVING COUNT(*) > 1
),

versions AS (  -- one row per model version
    SELECT
        key,
        COALESCE(MIN(CASE WHEN segments >= 6 THEN step_s END), MIN(step_s)) AS hop_s,
        MAX(length_s) AS length_s
    FROM {channels} AS channels
    GROUP BY key
),

stored AS (  -- one row per content of a track and model version; a downmix has the one channel -1
    SELECT
        title_id, content_hash, track, key,
        SUM(segments) AS segments, COUNT(*) AS channels, MIN(channel) < 0 AS is_downmix,
        MIN(first_s) AS first_s, MIN(second_s) AS second_s, MAX(last_s) AS last_s
    FROM {channels} AS channels
    GROUP BY title_id, content_hash, track, key
),

claimed AS (  -- one row per track and model version that has scored it; the decoder's rows are where it found something
    SELECT title_id, content_hash, track, status, decoded_s, channels, key
    FROM {tracks} AS tracks
    LATERAL VIEW EXPLODE(scored_with) AS key
    WHERE NOT is_waiting AND key <> {decoder}
),

expected AS (
    SELECT
        claimed.title_id, claimed.track, claimed.key, claimed.decoded_s,
        claimed.status = 'ok' AS is_whole,
        stored.segments, stored.channels, stored.first_s, stored.second_s, stored.last_s,
        CASE WHEN stored.is_downmix THEN 1 ELSE GREATEST(claimed.channels, stored.channels) END AS wanted_channels,
        COALESCE(versions.length_s, {longest_segment_s}D) AS length_s,
        COALESCE(versions.hop_s, versions.length_s, {longest_segment_s}D) AS hop_s
    FROM claimed
    LEFT JOIN stored
        ON claimed.title_id = stored.title_id AND claimed.content_hash = stored.content_hash
        AND claimed.track = stored.track AND claimed.key = stored.key
    LEFT JOIN versions ON claimed.key = versions.key
),

compared AS (  -- each: segments that every channel should have; bare_s: decoded before its first and after its last one
    SELECT
        *,
        -- From the second on: the first of a model with margins reaches further back than its start says.
        1 + COALESCE(ROUND((second_s - first_s) / hop_s) + CEIL(ROUND((last_s - second_s) / hop_s, 3)), 0) AS each,
        decoded_s - (last_s + length_s - first_s) AS bare_s
    FROM expected
),

gaps AS (
    SELECT
        STACK(
            4,
            'nothing stored',
            CASE WHEN segments IS NULL AND decoded_s >= length_s + hop_s THEN CAST(decoded_s / hop_s AS BIGINT) END,
            'missing channels',
            CASE WHEN is_whole THEN CAST((wanted_channels - channels) * each AS BIGINT) END,
            'gaps between segments',
            CASE WHEN is_whole THEN CAST(channels * each - segments AS BIGINT) END,
            'gaps at the ends',
            CASE
                WHEN is_whole AND bare_s > length_s + hop_s + {shortfall_s}D
                    THEN CAST(wanted_channels * FLOOR(bare_s / hop_s) AS BIGINT)
            END
        ) AS (kind, rows),
        title_id, track, key
    FROM compared
),

orphans AS (  -- of segments not by content or track: what a title held before is kept
    SELECT
        'orphans in detections' AS kind, detections.title_id, detections.track,
        CONCAT(detections.model, '/', detections.model_version) AS key, 1 AS rows
    FROM {detections} AS detections
    LEFT ANTI JOIN {tracks} AS tracks
        ON detections.title_id = tracks.title_id AND detections.track = tracks.track
        AND detections.content_hash = tracks.content_hash
    UNION ALL
    SELECT 'orphans in segments', channels.title_id, channels.track, channels.key, channels.rows
    FROM {channels} AS channels
    LEFT ANTI JOIN {tracks} AS tracks ON channels.title_id = tracks.title_id
)

SELECT kind, title_id, track, key, rows FROM duplicates
UNION ALL
SELECT kind, title_id, track, key, rows FROM gaps WHERE rows > 0
UNION ALL
SELECT kind, title_id, track, key, rows FROM orphans
