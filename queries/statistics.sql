-- question: What are the statistics of every capture point, layer by layer, over all token rows?
-- parameter: run run = any only this run
-- columns: label, ordinal (forward order), layer, point, rows (token rows), count (elements), nonfinite, mean, std, rms, absmax
WITH steps AS (
  SELECT *, CAST(nullif(count - nan - pos_inf - neg_inf, 0) AS DOUBLE) AS n FROM tensors WHERE $run = '' OR run = $run
), merged AS (
  SELECT run, label, min(ordinal) AS ordinal, layer, point,
         sum(rows) AS rows, sum(count) AS count, sum(nan + pos_inf + neg_inf) AS nonfinite,
         sum(n * mean) / sum(n) AS mean, sum(n * rms * rms) / sum(n) AS square, max(absmax) AS absmax
  FROM steps
  GROUP BY run, label, layer, point
), variances AS (
  -- this form loses the digits by which the mean's square exceeds the variance; f64 has 16
  SELECT *, square - mean * mean AS variance FROM merged
)
SELECT label, ordinal, layer, point, rows, count, nonfinite, mean,
       CASE WHEN variance < 0.0 THEN 0.0 ELSE sqrt(variance) END AS std, sqrt(square) AS rms, absmax
FROM variances
ORDER BY label, run, ordinal
