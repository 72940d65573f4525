-- question: Which points of two runs are further apart than a limit, the first in forward order on top?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- parameter: above number = 0.001 relative L2 of a whole point, above which it is shown
-- parameter: limit integer = 20 rows to show
-- columns: ordinal (forward order), layer, point, occurrence (slot of an expert; 0 otherwise), rows (on equal positions and tokens), undecided (rows that differ, and one side kept no tensor), disagreeing (elements that are nonfinite on one side only, or in different ways), rel_l2 (over all rows; infinite where the reference is 0 and the target is not; NULL where some are undecided or disagree)
WITH points AS (
  SELECT ordinal, layer, point, occurrence, count(*) AS rows,
         count(*) FILTER (WHERE evidence = 'statistics') AS undecided, coalesce(sum(disagreeing), 0) AS disagreeing,
         sqrt(sum(error_l2 * error_l2)) AS error, sqrt(sum(reference_l2 * reference_l2)) AS reference
  FROM compare($reference, $target)
  WHERE point <> 'moe_topk'
  GROUP BY ordinal, layer, point, occurrence
)
SELECT ordinal, layer, point, occurrence, rows, undecided, disagreeing,
       -- x / 0 is infinite
       CASE WHEN undecided > 0 OR disagreeing > 0 THEN NULL WHEN error = 0.0 THEN 0.0 ELSE error / reference END AS rel_l2
FROM points
WHERE undecided > 0 OR disagreeing > 0 OR error > $above * reference
ORDER BY ordinal, occurrence
LIMIT $limit
