-- Verdicts on the same sound in other content: a re-encoded or recut title, offered to a person and not carried over.
--
-- Reads:  {verdicts}      one row per detection (verdicts.sql)
--         {reviews}       the table reviews
--         {fingerprints}  the table fingerprints, one row per content and stretch
-- Grain:  one row per stretch without a verdict, or with "unsure", whose sound was judged elsewhere, and model version: the
--         closest match, under the first of the titles that hold the content
-- Match:  {least_items} different items are the same at one shift, and at that shift at most {most_bit_error} of all bits
--         differ (unrelated sound: 0.35 and more); one item over and over, as silence and steady tones give, says nothing

WITH open AS (  -- one row per stretch nobody has decided, and model version
    SELECT title_id, track, peak_score, model, model_version, STRUCT(content_hash, defect, start_s, end_s) AS stretch
    FROM {verdicts} AS verdicts
    WHERE verdict IS NULL OR verdict = 'unsure'
    QUALIFY ROW_NUMBER() OVER (
        PARTITION BY content_hash, defect, start_s, end_s, model, model_version ORDER BY title_id, track
    ) = 1
),

ranked AS (
    SELECT
        STRUCT(content_hash, defect, start_s, end_s) AS stretch, title_id, verdict, cause, reviewer, note, reviewed_at,
        ROW_NUMBER() OVER (
            PARTITION BY content_hash, defect, start_s, end_s ORDER BY reviewed_at DESC, reviewer, verdict
        ) AS place
    FROM {reviews} AS reviews
),

judged AS (  -- one row per judged stretch: what was said last
    SELECT stretch, title_id, verdict, cause, reviewer, note, reviewed_at
    FROM ranked
    WHERE place = 1 AND verdict <> 'unsure'
),

open_items AS (  -- one row per item of an undecided stretch
    SELECT stretch, from_s, item_s, place, item
    FROM (
        SELECT DISTINCT open.stretch, fingerprints.from_s, fingerprints.item_s, fingerprints.items
        FROM open
        INNER JOIN {fingerprints} AS fingerprints
            ON open.stretch.content_hash = fingerprints.content_hash
            AND open.stretch.start_s = fingerprints.start_s
            AND open.stretch.end_s = fingerprints.end_s
    ) AS printed
    LATERAL VIEW POSEXPLODE(items) AS place, item
),

judged_items AS (  -- one row per item of a judged stretch
    SELECT stretch, from_s, place, item
    FROM (
        SELECT judged.stretch, fingerprints.from_s, fingerprints.items
        FROM judged
        INNER JOIN {fingerprints} AS fingerprints
            ON judged.stretch.content_hash = fingerprints.content_hash
            AND judged.stretch.start_s = fingerprints.start_s
            AND judged.stretch.end_s = fingerprints.end_s
    ) AS printed
    LATERAL VIEW POSEXPLODE(items) AS place, item
),

shifts AS (  -- one row per pair of stretches and shift at which enough different items are the same
    SELECT
        open_items.stretch,
        judged_items.stretch AS judged_stretch,
        judged_items.place - open_items.place AS shift
    FROM open_items
    INNER JOIN judged_items
        ON open_items.item = judged_items.item
        AND open_items.stretch.defect = judged_items.stretch.defect
        AND open_items.stretch.content_hash <> judged_items.stretch.content_hash
    GROUP BY ALL
    HAVING COUNT(DISTINCT open_items.item) >= {least_items}
),

compared AS (  -- one row per pair and shift: how much of their bits differ over all that they share
    SELECT
        shifts.stretch,
        shifts.judged_stretch,
        MIN(judged_items.from_s - open_items.from_s + shifts.shift * open_items.item_s) AS shift_s,
        COUNT(*) * MIN(open_items.item_s) AS same_s,
        AVG(BIT_COUNT(CAST(open_items.item ^ judged_items.item AS BIGINT) & 4294967295)) / 32 AS bit_error
    FROM shifts
    INNER JOIN open_items
        ON shifts.stretch = open_items.stretch
    INNER JOIN judged_items
        ON shifts.judged_stretch = judged_items.stretch
        AND judged_items.place = open_items.place + shifts.shift
    GROUP BY shifts.stretch, shifts.judged_stretch, shifts.shift
),

closest AS (  -- loops are the same at several shifts, and a sound may be judged in several titles
    SELECT
        *,
        ROW_NUMBER() OVER (PARTITION BY stretch ORDER BY bit_error, same_s DESC, judged_stretch) AS place
    FROM compared
    WHERE bit_error <= {most_bit_error}
)

SELECT
    open.title_id, open.stretch.content_hash, open.track, open.stretch.defect, open.stretch.start_s, open.stretch.end_s,
    open.peak_score, open.model, open.model_version,
    judged.verdict AS suggested_verdict,
    judged.cause AS suggested_cause,
    judged.reviewer AS judged_by,
    judged.reviewed_at AS judged_at,
    judged.title_id AS judged_title_id,
    judged.note AS judged_note,
    closest.shift_s,
    closest.same_s,
    closest.bit_error
FROM closest
INNER JOIN open ON closest.stretch = open.stretch
INNER JOIN judged ON closest.judged_stretch = judged.stretch
WHERE closest.place = 1
ORDER BY open.title_id, open.track, open.stretch.start_s
