-- question: What are the statistics of every capture point, layer by layer, over all token rows?
-- parameter: run run = any only this run
-- columns: label, ordinal (forward order), layer, point (all but moe_topk, whose numbers are names), rows (token rows), count (elements), nonfinite, mean, std, rms, absmax
WITH steps AS (
  SELECT *, CAST(nullif(count - nan - pos_inf - neg_inf, 0) AS DOUBLE) AS n FROM tensors
  WHERE point <> 'moe_topk' AND ($run = '' OR run = $run)
), centred AS (
  SELECT *, sum(n * mean) OVER whole / sum(n) OVER whole AS middle
  FROM steps
  WINDOW whole AS (PARTITION BY run, layer, point)
), merged AS (
  SELECT run, label, min(ordinal) AS ordinal, layer, point,
         sum(rows) AS rows, sum(count) AS count, sum(nan + pos_inf + neg_inf) AS nonfinite,
         sum(n * mean) / sum(n) AS mean, sum(n * rms * rms) / sum(n) AS square, max(absmax) AS absmax,
         -- squared distances from the mean of all, of each step's values
         sum(n * (std * std + power(mean - middle, 2))) / sum(n) AS variance
  FROM centred
  GROUP BY run, label, layer, point
)
SELECT label, ordinal, layer, point, rows, count, nonfinite, mean,
       sqrt(variance) AS std, sqrt(square) AS rms, absmax
FROM merged
ORDER BY label, run, ordinal
