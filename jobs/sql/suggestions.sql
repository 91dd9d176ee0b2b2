-- Verdicts on the same sound in other content: a re-encoded or recut title, offered to a person and not carried over.
--
-- Reads:  {verdicts}      one row per detection (verdicts.sql)
--         {reviews}       the table reviews
--         {fingerprints}  the table fingerprints, one row per content and stretch
-- Grain:  one row per detection without a verdict, or with "unsure", whose sound was judged elsewhere: the closest match
-- Match:  enough items are the same at one shift, and at that shift at most {most_bit_error} of all bits differ (unrelated
--         sound: 0.35 and more); sound that repeats one item, as silence and steady tones do, says nothing

WITH open AS (  -- one row per detection nobody has decided and its fingerprint
    SELECT
        verdicts.title_id, verdicts.content_hash, verdicts.track, verdicts.defect, verdicts.start_s, verdicts.end_s,
        verdicts.peak_score, verdicts.model, verdicts.model_version,
        fingerprints.from_s, fingerprints.item_s, fingerprints.items
    FROM {verdicts} AS verdicts
    INNER JOIN {fingerprints} AS fingerprints
        ON verdicts.content_hash = fingerprints.content_hash
        AND verdicts.start_s = fingerprints.start_s
        AND verdicts.end_s = fingerprints.end_s
    WHERE (verdicts.verdict IS NULL OR verdicts.verdict = 'unsure') AND SIZE(fingerprints.items) > 0
),

latest AS (  -- one row per judged stretch: what was said last
    SELECT *
    FROM (
        SELECT
            *,
            ROW_NUMBER() OVER (
                PARTITION BY content_hash, defect, start_s, end_s ORDER BY reviewed_at DESC, reviewer, verdict
            ) AS place
        FROM {reviews} AS reviews
    ) AS ranked
    WHERE place = 1
),

judged AS (  -- one row per judged stretch and its fingerprint
    SELECT
        latest.content_hash, latest.defect, latest.start_s, latest.end_s, latest.title_id, latest.verdict, latest.cause,
        latest.reviewer, latest.note, latest.reviewed_at,
        fingerprints.from_s, fingerprints.items
    FROM latest
    INNER JOIN {fingerprints} AS fingerprints
        ON latest.content_hash = fingerprints.content_hash
        AND latest.start_s = fingerprints.start_s
        AND latest.end_s = fingerprints.end_s
    WHERE latest.verdict <> 'unsure' AND SIZE(fingerprints.items) > 0
),

open_items AS (
    SELECT open.content_hash, open.defect, open.start_s, open.end_s, place, item
    FROM (SELECT DISTINCT content_hash, defect, start_s, end_s, items FROM open) AS open
    LATERAL VIEW POSEXPLODE(open.items) AS place, item
),

judged_items AS (
    SELECT judged.content_hash, judged.defect, judged.start_s, judged.end_s, place, item
    FROM (SELECT DISTINCT content_hash, defect, start_s, end_s, items FROM judged) AS judged
    LATERAL VIEW POSEXPLODE(judged.items) AS place, item
),

shifts AS (  -- one row per pair of stretches and shift at which enough different items are the same
    SELECT
        open_items.content_hash, open_items.defect, open_items.start_s, open_items.end_s,
        judged_items.content_hash AS judged_hash,
        judged_items.start_s AS judged_start_s,
        judged_items.end_s AS judged_end_s,
        judged_items.place - open_items.place AS shift
    FROM open_items
    INNER JOIN judged_items
        ON open_items.item = judged_items.item
        AND open_items.defect = judged_items.defect
        AND open_items.content_hash <> judged_items.content_hash
    GROUP BY ALL
    HAVING COUNT(DISTINCT open_items.item) >= {least_items}
),

compared AS (  -- one row per pair and shift: how much of their bits differ over all that they share
    SELECT
        shifts.*,
        COUNT(*) AS items,
        AVG(BIT_COUNT(CAST(open_items.item ^ judged_items.item AS BIGINT) & 4294967295)) / 32 AS bit_error
    FROM shifts
    INNER JOIN open_items
        ON shifts.content_hash = open_items.content_hash
        AND shifts.defect = open_items.defect
        AND shifts.start_s = open_items.start_s
        AND shifts.end_s = open_items.end_s
    INNER JOIN judged_items
        ON shifts.judged_hash = judged_items.content_hash
        AND shifts.defect = judged_items.defect
        AND shifts.judged_start_s = judged_items.start_s
        AND shifts.judged_end_s = judged_items.end_s
        AND judged_items.place = open_items.place + shifts.shift
    GROUP BY ALL
    HAVING bit_error <= {most_bit_error}
),

final AS (  -- what matches best; the whole of both stretches may be the same sound at several shifts, as loops are
    SELECT
        open.title_id, open.content_hash, open.track, open.defect, open.start_s, open.end_s, open.peak_score, open.model,
        open.model_version,
        judged.verdict AS suggested_verdict,
        judged.cause AS suggested_cause,
        judged.reviewer AS judged_by,
        judged.reviewed_at AS judged_at,
        judged.title_id AS judged_title_id,
        judged.note AS judged_note,
        judged.start_s AS judged_start_s,
        judged.end_s AS judged_end_s,
        judged.from_s + compared.shift * open.item_s - open.from_s AS shift_s,
        compared.items * open.item_s AS same_s,
        compared.bit_error,
        ROW_NUMBER() OVER (
            PARTITION BY
                open.title_id, open.content_hash, open.track, open.defect, open.start_s, open.end_s, open.model,
                open.model_version
            ORDER BY compared.bit_error, compared.items DESC, judged.reviewed_at DESC, judged.title_id
        ) AS rank
    FROM compared
    INNER JOIN open
        ON compared.content_hash = open.content_hash
        AND compared.defect = open.defect
        AND compared.start_s = open.start_s
        AND compared.end_s = open.end_s
    INNER JOIN judged
        ON compared.judged_hash = judged.content_hash
        AND compared.defect = judged.defect
        AND compared.judged_start_s = judged.start_s
        AND compared.judged_end_s = judged.end_s
)

SELECT
    title_id, content_hash, track, defect, start_s, end_s, peak_score, model, model_version,
    suggested_verdict, suggested_cause, judged_by, judged_at, judged_title_id, judged_note, judged_start_s, judged_end_s,
    shift_s, same_s, bit_error
FROM final
WHERE rank = 1
ORDER BY title_id, track, start_s
