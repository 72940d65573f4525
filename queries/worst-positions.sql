-- question: At which position is each point of two runs furthest apart, and at which element?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- parameter: limit number = 20 rows to show
-- columns: layer, point, position, token_id, rel_l2 (of that row), index (of the largest difference), reference_value, target_value
SELECT layer, point, position, token_id, rel_l2, index, reference_value, target_value
FROM (
  SELECT layer, point, position, token_id, rel_l2, max_abs_diff_index AS index, reference_value, target_value,
         row_number() OVER (PARTITION BY ordinal, occurrence ORDER BY rel_l2 DESC NULLS LAST, position) AS place
  FROM compare($reference, $target)
  WHERE rel_l2 > 0
)
WHERE place = 1
ORDER BY rel_l2 DESC, layer, point
LIMIT $limit
