-- question: At which position is each point of two runs furthest apart, and at which element?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- parameter: limit integer = 20 rows to show
-- columns: layer, point, occurrence (slot of an expert; 0 otherwise), rows (on equal positions and tokens), undecided (of them: they differ, and a side kept no tensor), position, token_id, disagreeing (elements of that row that are nonfinite on one side only, or in different ways), rel_l2 (of that row; NULL where elements disagree, or no row is decided), index (of the largest difference), reference_value, target_value
WITH pairs AS (
  -- what is nonfinite on one side only, or in different ways, is further apart than any number says
  SELECT *, CASE WHEN disagreeing > 0 THEN CAST('Infinity' AS DOUBLE) ELSE rel_l2 END AS apart
  FROM compare($reference, $target)
  WHERE point <> 'moe_topk'
), ranked AS (
  SELECT ordinal, layer, point, occurrence, position, token_id, evidence, disagreeing, rel_l2, apart, max_abs_diff_index AS index,
         reference_value, target_value, count(*) OVER whole AS rows,
         count(*) FILTER (WHERE evidence = 'statistics') OVER whole AS undecided,
         row_number() OVER (PARTITION BY ordinal, occurrence ORDER BY apart DESC NULLS LAST, position) AS place
  FROM pairs
  WINDOW whole AS (PARTITION BY ordinal, occurrence)
)
SELECT layer, point, occurrence, rows, undecided, position, token_id, disagreeing, rel_l2, index, reference_value, target_value
FROM ranked
WHERE place = 1 AND (apart > 0.0 OR undecided > 0)
ORDER BY apart DESC NULLS LAST, ordinal, occurrence
LIMIT $limit
