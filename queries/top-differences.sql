-- question: Which elements of two runs differ most?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- parameter: point point = any only this point
-- parameter: layer integer = any only this layer
-- parameter: limit integer = 20 elements to show
-- columns: undecided (rows of the chosen points that differ, and a side kept no tensor: none of their elements is here), layer, point, occurrence (slot of an expert; 0 otherwise), position, token_id, index (in the row), reference_value, target_value, difference (target - reference; NULL where one is nonfinite: those come first); of rows whose values both runs kept; where only undecided rows differ, one row that counts them
WITH counted AS (
  SELECT count(*) AS undecided
  FROM compare($reference, $target)
  WHERE evidence = 'statistics' AND point <> 'moe_topk'
    AND ($point = '' OR point = $point) AND ($layer IS NULL OR layer = $layer)
), furthest AS (
  -- the elements that differ most are in as many rows at most: those whose largest difference is largest
  SELECT ordinal, layer, coalesce(layer, -1) AS place, point, occurrence, position, token_id
  FROM compare($reference, $target)
  WHERE (max_abs_diff > 0.0 OR disagreeing > 0) AND point <> 'moe_topk'
    AND ($point = '' OR point = $point) AND ($layer IS NULL OR layer = $layer)
  ORDER BY CASE WHEN disagreeing > 0 THEN CAST('Infinity' AS DOUBLE) ELSE max_abs_diff END DESC, ordinal, occurrence, position
  LIMIT $limit
), differing AS (
  SELECT f.*, unnest(top_differences(r.tensor, t.tensor, $limit)) AS element
  FROM furthest f
  JOIN activations r
    ON r.point = f.point AND coalesce(r.layer, -1) = f.place AND r.occurrence = f.occurrence AND r.position = f.position
  JOIN activations t
    ON t.point = f.point AND coalesce(t.layer, -1) = f.place AND t.occurrence = f.occurrence AND t.position = f.position
  WHERE r.run = $reference AND t.run = $target
)
SELECT undecided, layer, point, occurrence, position, token_id, element['index'] AS index, element['reference'] AS reference_value,
       element['target'] AS target_value, element['difference'] AS difference
FROM counted LEFT JOIN differing ON true
WHERE undecided > 0 OR point IS NOT NULL
ORDER BY abs(element['difference']) DESC NULLS FIRST, ordinal, occurrence, position, index
LIMIT $limit
