-- What people have said of titles.
--
-- Reads:   {detections}  the table detections
--          {reviews}     the table reviews
--          {tracks}      the table tracks
-- Grain:   one row per title x defect that was detected or judged in it; content_hash is the least of the title's tracks',
--          the same for titles that hold the same
-- Verdict: the latest review that overlaps a detection, or a stretch that was once judged, decides it (as in verdicts.sql).
--          is_defective is NULL where one of them is undecided: without a verdict, or "unsure". What is genuine elsewhere
--          in the title does not help: titles that are half listened to would count where they are defective and be missing
--          where they are not, and every detector would look more precise than it is.

WITH stretches AS (  -- what there is to judge, and what was there when it was judged
    SELECT content_hash, defect, start_s, end_s FROM {detections} AS detections
    UNION
    SELECT content_hash, defect, start_s, end_s FROM {reviews} AS reviews
),

judged AS (  -- one row per stretch and review that overlaps it, the latest first
    SELECT
        stretches.content_hash,
        stretches.defect,
        reviews.verdict,
        ROW_NUMBER() OVER (
            PARTITION BY stretches.content_hash, stretches.defect, stretches.start_s, stretches.end_s
            ORDER BY reviews.reviewed_at DESC, reviews.reviewer, reviews.verdict
        ) AS place
    FROM stretches
    LEFT JOIN {reviews} AS reviews
        ON stretches.content_hash = reviews.content_hash
        AND stretches.defect = reviews.defect
        AND reviews.start_s < stretches.end_s
        AND reviews.end_s > stretches.start_s
),

contents AS (  -- one row per title and content
    SELECT DISTINCT
        title_id,
        content_hash,
        MIN(content_hash) OVER (PARTITION BY title_id) AS first_hash
    FROM {tracks} AS tracks
)

SELECT
    contents.title_id,
    MIN(contents.first_hash) AS content_hash,
    judged.defect,
    CASE
        WHEN BOOL_AND(COALESCE(judged.verdict, 'unsure') <> 'unsure') THEN BOOL_OR(judged.verdict = 'genuine')
    END AS is_defective
FROM judged
INNER JOIN contents
    ON judged.content_hash = contents.content_hash
WHERE judged.place = 1
GROUP BY contents.title_id, judged.defect
