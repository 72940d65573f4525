-- question: Which layers stand out in a point, against the layer before and against the middle of all layers?
-- parameter: run run = any only this run
-- parameter: step integer = 0 its step; 0 is the prefill
-- parameter: statistic std|rms|absmax = std which statistic
-- parameter: above number = 4 factor to the layer before or to the median, up or down, from which a layer is shown; one that is zero where the layer before or the median is not, or the other way round, is shown in any case
-- parameter: limit integer = 20 rows to show
-- columns: label, layer, point, occurrence (slot of an expert; 0 otherwise), rows (token rows; only layers with as many rows of the same positions are set against each other), value, before (value of the layer before; NULL where that was not captured), median (over the layers), to_before (factor; NULL where the layer before is zero), to_median (factor; NULL where the median is zero); layers that are zero where others are not, or alone are not, come first
WITH chosen AS (
  SELECT run, label, ordinal, layer, point, occurrence, rows, first_position, last_position,
         CASE $statistic WHEN 'std' THEN std WHEN 'rms' THEN rms ELSE absmax END AS value
  FROM tensors
  WHERE step = $step AND layer IS NOT NULL AND point <> 'moe_topk' AND ($run = '' OR run = $run)
), beside AS (
  SELECT *, lag(value) OVER alike AS previous, lag(layer) OVER alike AS previous_layer
  FROM chosen
  WINDOW alike AS (PARTITION BY run, point, occurrence, rows, first_position, last_position ORDER BY layer)
), middle AS (
  SELECT run, point, occurrence, rows, first_position, last_position, median(value) AS median
  FROM chosen
  GROUP BY run, point, occurrence, rows, first_position, last_position
), joined AS (
  SELECT b.*, CASE WHEN previous_layer = layer - 1 THEN previous END AS before, m.median
  FROM beside b
  JOIN middle m ON b.run = m.run AND b.point = m.point AND b.occurrence = m.occurrence AND b.rows = m.rows
   AND b.first_position = m.first_position AND b.last_position = m.last_position
), divided AS (
  SELECT *, value / nullif(before, 0.0) AS to_before, value / nullif(median, 0.0) AS to_median,
         -- no factor leads from zero to another number
         coalesce((value = 0.0) <> (median = 0.0), false) OR coalesce((value = 0.0) <> (before = 0.0), false) AS apart
  FROM joined
)
SELECT label, layer, point, occurrence, rows, value, before, median, to_before, to_median
FROM divided
WHERE apart OR greatest(to_before, 1.0 / nullif(to_before, 0.0), to_median, 1.0 / nullif(to_median, 0.0)) >= $above
ORDER BY apart DESC, greatest(to_median, 1.0 / nullif(to_median, 0.0)) DESC NULLS LAST, label, run, ordinal
LIMIT $limit
