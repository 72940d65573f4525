-- question: Which elements of two runs differ most?
-- parameter: reference run = first the run to compare with
-- parameter: target run = second the run that is asked about
-- parameter: point point = any only this point
-- parameter: layer number = any only this layer
-- parameter: limit number = 20 elements to show
-- columns: layer, point, occurrence (slot of an expert; 0 otherwise), position, token_id, index (in the row), reference_value, target_value, difference (target - reference)
WITH furthest AS (
  -- the elements that differ most are in as many rows at most: those whose largest difference is largest
  SELECT ordinal, layer, coalesce(layer, -1) AS place, point, occurrence, position, token_id
  FROM compare($reference, $target)
  WHERE max_abs_diff > 0.0 AND point <> 'moe_topk' AND ($point = '' OR point = $point) AND ($layer IS NULL OR layer = $layer)
  ORDER BY max_abs_diff DESC, ordinal, occurrence, position
  LIMIT $limit
), left_side AS (
  SELECT f.*, r.index, CAST(r.value AS DOUBLE) AS reference_value
  FROM furthest f JOIN elements r ON r.point = f.point AND coalesce(r.layer, -1) = f.place AND r.occurrence = f.occurrence AND r.position = f.position
  WHERE r.run = $reference
)
SELECT l.layer, l.point, l.occurrence, l.position, l.token_id, l.index, l.reference_value, CAST(t.value AS DOUBLE) AS target_value,
       CAST(t.value AS DOUBLE) - l.reference_value AS difference
FROM left_side l JOIN elements t ON t.point = l.point AND coalesce(t.layer, -1) = l.place AND t.occurrence = l.occurrence AND t.position = l.position AND t.index = l.index
WHERE t.run = $target
ORDER BY abs(CAST(t.value AS DOUBLE) - l.reference_value) DESC, l.ordinal, l.occurrence, l.position, l.index
LIMIT $limit
