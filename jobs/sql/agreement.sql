-- How far reviewers agree, beyond chance.
--
-- Reads:   {matched}  one row per detection and review of it (matched.sql)
-- Grain:   one row per pair of reviewers with detections that both have decided; the same stretch of the same content
--          counts once, in however many titles it lies
-- Figures: kappa (J. Cohen, "A coefficient of agreement for nominal scales", 1960); NULL where both always said the same
--          one thing
-- Runs in: Spark SQL, DuckDB

WITH latest AS (  -- one row per stretch of content, model version and reviewer
    SELECT * FROM (
        SELECT
            content_hash, defect, model, model_version, start_s, end_s, reviewer, verdict,
            ROW_NUMBER() OVER (
                PARTITION BY content_hash, defect, model, model_version, start_s, end_s, reviewer
                ORDER BY reviewed_at DESC, verdict
            ) AS place
        FROM {matched} AS matched
    ) AS said
    WHERE place = 1 AND verdict <> 'unsure'
),

pairs AS (
    SELECT one.reviewer AS reviewer, other.reviewer AS other_reviewer, one.verdict AS verdict, other.verdict AS other_verdict
    FROM latest AS one
    INNER JOIN latest AS other
        ON one.content_hash = other.content_hash AND one.defect = other.defect
        AND one.model = other.model AND one.model_version = other.model_version
        AND one.start_s = other.start_s AND one.end_s = other.end_s
        AND one.reviewer < other.reviewer
),

shares AS (  -- how often each verdict came from either; of integers, since Spark's average of 1.0 is a DECIMAL
    SELECT
        reviewer, other_reviewer,
        COUNT(*) AS detections,
        AVG(CASE WHEN verdict = other_verdict THEN 1 ELSE 0 END) AS agreed,
        AVG(CASE WHEN verdict = 'genuine' THEN 1 ELSE 0 END) * AVG(CASE WHEN other_verdict = 'genuine' THEN 1 ELSE 0 END)
        + AVG(CASE WHEN verdict = 'creative_intent' THEN 1 ELSE 0 END) * AVG(CASE WHEN other_verdict = 'creative_intent' THEN 1 ELSE 0 END)
        + AVG(CASE WHEN verdict = 'false_positive' THEN 1 ELSE 0 END) * AVG(CASE WHEN other_verdict = 'false_positive' THEN 1 ELSE 0 END)
            AS by_chance
    FROM pairs
    GROUP BY reviewer, other_reviewer
)

SELECT reviewer, other_reviewer, detections, agreed, (agreed - by_chance) / NULLIF(1 - by_chance, 0) AS kappa
FROM shares
ORDER BY reviewer, other_reviewer
