-- question: Which elements of two runs differ most?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- parameter: point point = any only this point
-- parameter: layer number = any only this layer
-- parameter: limit number = 20 elements to show
-- columns: layer, point, occurrence (slot of an expert; 0 otherwise), position, token_id, index (in the row), reference_value, target_value, difference (target - reference; NULL where one is nonfinite: those come first); of rows whose values both runs kept
WITH furthest AS (
  -- the elements that differ most are in as many rows at most: those whose largest difference is largest
  SELECT ordinal, layer, coalesce(layer, -1) AS place, point, occurrence, position, token_id
  FROM compare($reference, $target)
  WHERE (max_abs_diff > 0.0 OR disagreeing > 0) AND point <> 'moe_topk'
    AND ($point = '' OR point = $point) AND ($layer IS NULL OR layer = $layer)
  ORDER BY CASE WHEN disagreeing > 0 THEN CAST('Infinity' AS DOUBLE) ELSE max_abs_diff END DESC, ordinal, occurrence, position
  LIMIT $limit
), of_reference AS (
  SELECT f.*, e.index, CAST(e.value AS DOUBLE) AS reference_value
  FROM furthest f
  JOIN elements e
    ON e.point = f.point AND coalesce(e.layer, -1) = f.place AND e.occurrence = f.occurrence AND e.position = f.position
  WHERE e.run = $reference
), of_both AS (
  SELECT r.*, CAST(e.value AS DOUBLE) AS target_value
  FROM of_reference r
  JOIN elements e
    ON e.point = r.point AND coalesce(e.layer, -1) = r.place AND e.occurrence = r.occurrence AND e.position = r.position
   AND e.index = r.index
  WHERE e.run = $target
), measured AS (
  SELECT *, target_value - reference_value AS difference,
         NOT (abs(reference_value) < 'Infinity' AND abs(target_value) < 'Infinity') AS nonfinite
  FROM of_both
  -- what is nonfinite in the same way agrees, and so do zeros of either sign
  WHERE reference_value <> target_value AND NOT (isnan(reference_value) AND isnan(target_value))
    AND target_value - reference_value <> 0.0
)
SELECT layer, point, occurrence, position, token_id, index, reference_value, target_value,
       CASE WHEN NOT nonfinite THEN difference END AS difference
FROM measured
ORDER BY CASE WHEN nonfinite THEN CAST('Infinity' AS DOUBLE) ELSE abs(difference) END DESC, ordinal, occurrence, position, index
LIMIT $limit
