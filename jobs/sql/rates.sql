-- How many detections an hour of audio brings; what was looked for and not found has its 0.
--
-- Reads:   {detections}    the table detections
--          {track_facets}  one row per track x facet (track_facets.sql)
--          {sought}        one row per model version x defect that scans looked for
--          {facet}         what to split by; "all" for one row per model version x defect
-- Grain:   one row per model version x defect x value that tracks have which the version has scored
-- Runs in: Spark SQL

WITH described AS (
    SELECT * FROM {track_facets} AS track_facets WHERE facet = {facet}
),

scored AS (  -- one row per model version x value: audio that it has scored
    SELECT key, facet_value, SUM(decoded_s) / 3600 AS audio_h, COUNT(DISTINCT title_id) AS titles
    FROM described
    LATERAL VIEW EXPLODE(scored_with) AS key
    GROUP BY key, facet_value
),

known AS (  -- scans of earlier versions have not recorded what they looked for: what was found anywhere counts too
    SELECT model, model_version, defect FROM {sought} AS sought
    UNION
    SELECT model, model_version, defect FROM {detections} AS detections
),

found AS (  -- of all together, detections whose track is not known any more count too, beside others of their version
    SELECT
        detections.model, detections.model_version, detections.defect,
        COALESCE(described.facet_value, CASE WHEN {facet} = 'all' THEN 'all' END) AS facet_value,
        COUNT(*) AS detections,
        COUNT(DISTINCT detections.title_id) AS titles_with_detections
    FROM {detections} AS detections
    LEFT JOIN described
        ON detections.title_id = described.title_id
        AND detections.track = described.track
    GROUP BY ALL
)

SELECT
    known.model, known.model_version, known.defect,
    {facet} AS facet,
    scored.facet_value,
    COALESCE(found.detections, 0) AS detections,
    COALESCE(found.titles_with_detections, 0) AS titles_with_detections,
    scored.titles,
    scored.audio_h,
    100 * COALESCE(found.detections, 0) / NULLIF(scored.audio_h, 0) AS detections_per_100_h
FROM known
INNER JOIN scored
    ON scored.key = CONCAT(known.model, '/', known.model_version)
LEFT JOIN found
    ON known.model = found.model
    AND known.model_version = found.model_version
    AND known.defect = found.defect
    AND scored.facet_value = found.facet_value
ORDER BY known.model, known.model_version, known.defect, scored.facet_value
