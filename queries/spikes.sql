-- question: Which layers stand out in a point, against the layer before and against the middle of all layers?
-- parameter: run run = first the run that is asked about
-- parameter: step number = 0 its step; 0 is the prefill
-- parameter: statistic std|rms|absmax = std which statistic
-- parameter: above number = 4 factor to the layer before or to the median, up or down, from which a layer is shown
-- parameter: limit number = 20 rows to show
-- columns: layer, point, value, before (value of the layer before), median (over the layers), to_before (factor), to_median (factor)
WITH chosen AS (
  SELECT ordinal, layer, point,
         CASE $statistic WHEN 'std' THEN std WHEN 'rms' THEN rms ELSE absmax END AS value
  FROM tensors
  WHERE run = $run AND step = $step AND layer IS NOT NULL
), joined AS (
  SELECT ordinal, layer, point, value,
         lag(value) OVER (PARTITION BY point ORDER BY ordinal) AS before,
         middle.median
  FROM chosen JOIN (SELECT point AS of, median(value) AS median FROM chosen GROUP BY point) middle ON point = middle.of
), divided AS (
  SELECT *, value / nullif(before, 0.0) AS to_before, value / nullif(median, 0.0) AS to_median FROM joined
)
SELECT layer, point, value, before, median, to_before, to_median
FROM divided
WHERE greatest(to_before, 1.0 / nullif(to_before, 0.0), to_median, 1.0 / nullif(to_median, 0.0)) >= $above
ORDER BY greatest(to_median, 1.0 / nullif(to_median, 0.0)) DESC NULLS LAST, ordinal
LIMIT $limit
