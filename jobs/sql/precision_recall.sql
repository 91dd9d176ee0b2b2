-- How a model's scores are spread over segments with and without the defect.
--
-- Reads:  {judged}   one row per segment (judged.sql)
--         {classes}  one row per label of the model: label, class
-- Grain:  one row per class x score (rounded down to a thousandth)

SELECT
    classes.class AS class,
    FLOOR(scored.score * 1000) / 1000 AS score,
    COUNT_IF(scored.defect <=> classes.class) AS defective_segments,
    COUNT_IF(NOT scored.defect <=> classes.class) AS other_segments
FROM (
    SELECT judged.defect, EXPLODE(judged.scores) AS (label, score)
    FROM {judged} AS judged
) AS scored
INNER JOIN {classes} AS classes
    ON scored.label = classes.label
GROUP BY ALL
