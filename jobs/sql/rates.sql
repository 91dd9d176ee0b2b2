-- How many detections an hour of audio brings.
--
-- Reads:   {detections}  the table detections
--          {tracks}      the table tracks
-- Grain:   one row per model version x defect
-- Runs in: Spark SQL

WITH scored AS (  -- one row per model version: audio that it has scored
    SELECT key, SUM(decoded_s) / 3600 AS audio_h, COUNT(DISTINCT title_id) AS titles
    FROM {tracks} AS tracks
    LATERAL VIEW EXPLODE(scored_with) AS key
    GROUP BY key
)

SELECT
    detections.model, detections.model_version, detections.defect,
    COUNT(*) AS detections,
    COUNT(DISTINCT detections.title_id) AS titles_with_detections,
    ANY_VALUE(scored.titles) AS titles,
    ANY_VALUE(scored.audio_h) AS audio_h,
    100 * COUNT(*) / ANY_VALUE(scored.audio_h) AS detections_per_100_h
FROM {detections} AS detections
INNER JOIN scored
    ON scored.key = CONCAT(detections.model, '/', detections.model_version)
GROUP BY detections.model, detections.model_version, detections.defect
ORDER BY detections.model, detections.model_version, detections.defect
