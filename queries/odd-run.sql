-- question: Of three runs, which one is the odd one, point by point?
-- parameter: a run = first one of them
-- parameter: b run = second another
-- parameter: c run = third the third
-- parameter: factor number = 3 the odd one is at least so many times as far from both others as they are from each other
-- columns: ordinal (forward order), layer, point, rows (on positions and tokens that all three have), undecided (pairs of rows that differ, and a side kept no tensor), disagreeing (elements of pairs that are nonfinite on one side only, or in different ways), a_b, b_c, c_a (norm of the difference over the middle one of the three norms; infinite where that is 0; NULL where they differ and pairs of rows are undecided or disagree), odd (label; NULL where none stands out)
-- empty: the three runs have no capture point in common on equal positions and tokens
WITH ab AS (
  SELECT ordinal, layer, coalesce(layer, -1) AS place, point, occurrence, position, disagreeing,
         evidence = 'statistics' AS undecided, error_l2 * error_l2 AS error, reference_l2 * reference_l2 AS norm
  FROM compare($a, $b)
  WHERE point <> 'moe_topk'
), bc AS (
  SELECT coalesce(layer, -1) AS place, point, occurrence, position, disagreeing,
         evidence = 'statistics' AS undecided, error_l2 * error_l2 AS error, reference_l2 * reference_l2 AS norm
  FROM compare($b, $c)
), ca AS (
  SELECT coalesce(layer, -1) AS place, point, occurrence, position, disagreeing,
         evidence = 'statistics' AS undecided, error_l2 * error_l2 AS error, reference_l2 * reference_l2 AS norm
  FROM compare($c, $a)
), merged AS (
  -- Errors are those of the decided rows: from below, where others are undecided.
  SELECT min(ab.ordinal) AS ordinal, ab.layer, ab.point, count(*) AS rows,
         count(*) FILTER (WHERE ab.undecided) AS ab_undecided, coalesce(sum(ab.disagreeing), 0) AS ab_disagreeing,
         count(*) FILTER (WHERE bc.undecided) AS bc_undecided, coalesce(sum(bc.disagreeing), 0) AS bc_disagreeing,
         count(*) FILTER (WHERE ca.undecided) AS ca_undecided, coalesce(sum(ca.disagreeing), 0) AS ca_disagreeing,
         sqrt(coalesce(sum(ab.error), 0.0)) AS ab, sqrt(coalesce(sum(bc.error), 0.0)) AS bc,
         sqrt(coalesce(sum(ca.error), 0.0)) AS ca,
         sqrt(sum(ab.norm)) AS a, sqrt(sum(bc.norm)) AS b, sqrt(sum(ca.norm)) AS c
  FROM ab
  JOIN bc ON ab.place = bc.place AND ab.point = bc.point AND ab.occurrence = bc.occurrence AND ab.position = bc.position
  JOIN ca ON ab.place = ca.place AND ab.point = ca.point AND ab.occurrence = ca.occurrence AND ab.position = ca.position
  GROUP BY ab.layer, ab.point
), known AS (
  SELECT *, ab_undecided + ab_disagreeing = 0 AS ab_known, bc_undecided + bc_disagreeing = 0 AS bc_known,
         ca_undecided + ca_disagreeing = 0 AS ca_known,
         -- norms are of decided rows too
         CASE WHEN ab_undecided + ab_disagreeing + bc_undecided + bc_disagreeing + ca_undecided + ca_disagreeing = 0
              THEN greatest(least(a, b), least(greatest(a, b), c)) END AS middle
  FROM merged
), at_least AS (
  -- How far a pair is apart at least: beyond all bounds where elements disagree; more than 0 where rows differ by nobody knows
  -- how much, which is enough if the other two are equal.
  SELECT *,
         CASE WHEN ab_disagreeing > 0 THEN CAST('Infinity' AS DOUBLE)
              WHEN ab_undecided > 0 THEN greatest(ab, 5e-324) ELSE ab END AS ab_least,
         CASE WHEN bc_disagreeing > 0 THEN CAST('Infinity' AS DOUBLE)
              WHEN bc_undecided > 0 THEN greatest(bc, 5e-324) ELSE bc END AS bc_least,
         CASE WHEN ca_disagreeing > 0 THEN CAST('Infinity' AS DOUBLE)
              WHEN ca_undecided > 0 THEN greatest(ca, 5e-324) ELSE ca END AS ca_least
  FROM known
), judged AS (
  SELECT *, CASE WHEN bc_known AND least(ab_least, ca_least) > 0.0 AND least(ab_least, ca_least) >= $factor * bc THEN $a
                 WHEN ca_known AND least(ab_least, bc_least) > 0.0 AND least(ab_least, bc_least) >= $factor * ca THEN $b
                 WHEN ab_known AND least(bc_least, ca_least) > 0.0 AND least(bc_least, ca_least) >= $factor * ab THEN $c END AS odd
  FROM at_least
)
SELECT ordinal, layer, point, j.rows, ab_undecided + bc_undecided + ca_undecided AS undecided,
       ab_disagreeing + bc_disagreeing + ca_disagreeing AS disagreeing,
       CASE WHEN NOT ab_known THEN NULL WHEN ab = 0.0 THEN 0.0 ELSE ab / middle END AS a_b,
       CASE WHEN NOT bc_known THEN NULL WHEN bc = 0.0 THEN 0.0 ELSE bc / middle END AS b_c,
       CASE WHEN NOT ca_known THEN NULL WHEN ca = 0.0 THEN 0.0 ELSE ca / middle END AS c_a,
       r.label AS odd
FROM judged j LEFT JOIN runs r ON r.run = j.odd
ORDER BY ordinal
