-- What can ever count as a hit, over time.
--
-- Reads:  {hits}  hits.sql, with the lowest score of interest for a threshold
-- Grain:  one row per title x track x model x version x defect
-- Times:  milliseconds; moments are in no order, one per channel and segment (or event, of models that have them):
--         udfs/rolling.py sorts them and merges those that reach a threshold, one title at a time; grouping them here would
--         shuffle as many groups as there are segments

SELECT
    title_id, content_hash, track, model, model_version, defect,
    COLLECT_LIST(STRUCT(start_ms, end_ms, CAST(score AS DOUBLE) AS score)) AS moments
FROM {hits}
GROUP BY title_id, content_hash, track, model, model_version, defect
