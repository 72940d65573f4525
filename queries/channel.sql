-- question: What is the value of one channel, layer by layer, in one run or in several side by side?
-- parameter: channel integer = 0 index in the row, from 0
-- parameter: point point = resid_post where
-- parameter: run run = any only this run
-- parameter: reference run = any a run whose value is put beside
-- parameter: position integer = any only this position
-- parameter: limit integer = 200 rows to show
-- columns: label, layer, occurrence (slot of an expert; 0 otherwise), position, token_id, value (NULL where it was not kept, or the row has no such channel), absmax (of the row), reference_value (of the same place, on equal position and tokens; NULL inside experts, which may be others, and of moe_topk, whose numbers are names), ratio (value / reference_value)
WITH rows AS (
  SELECT run, label, ordinal, layer, coalesce(layer, -1) AS place, occurrence, position, token_id, prefix, width, absmax,
         at(tensor, $channel) AS value
  FROM activations
  WHERE point = $point AND ($position IS NULL OR position = $position)
), reference AS (
  SELECT place, occurrence, position, prefix, width, value
  FROM rows
  WHERE run = $reference AND $point NOT IN ('moe_topk', 'moe_weights', 'moe_gate', 'moe_up', 'moe_act', 'moe_glu', 'moe_down')
)
SELECT t.label, t.layer, t.occurrence, t.position, t.token_id, t.value, t.absmax, r.value AS reference_value,
       t.value / nullif(r.value, 0.0) AS ratio
FROM rows t
LEFT JOIN reference r
  ON t.place = r.place AND t.occurrence = r.occurrence AND t.position = r.position AND t.prefix = r.prefix AND t.width = r.width
WHERE $run = '' OR t.run = $run
ORDER BY t.position, t.label, t.run, t.ordinal, t.occurrence
LIMIT $limit
