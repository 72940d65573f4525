-- question: What are the statistics of every capture point, layer by layer, over all token rows?
-- parameter: run run = any only this run
-- columns: label, ordinal (forward order), layer, point, rows (token rows), count (elements), nonfinite, mean, std, rms, absmax
SELECT label, min(ordinal) AS ordinal, layer, point,
       sum(rows) AS rows, sum(count) AS count, sum(nan + pos_inf + neg_inf) AS nonfinite,
       sum(n * mean) / sum(n) AS mean,
       -- this form loses the digits by which the mean's square exceeds the variance; f64 has 16
       CASE WHEN sum(n) > 0.0 THEN sqrt(greatest(sum(n * rms * rms) / sum(n) - power(sum(n * mean) / sum(n), 2), 0.0)) END AS std,
       sqrt(sum(n * rms * rms) / sum(n)) AS rms,
       max(absmax) AS absmax
FROM (SELECT *, CAST(nullif(count - nan - pos_inf - neg_inf, 0) AS DOUBLE) AS n FROM tensors)
WHERE $run = '' OR run = $run
GROUP BY run, label, layer, point
ORDER BY label, run, ordinal
